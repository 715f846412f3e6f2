"""Muon (Jordan et al. 2024): momentum whose every step is made orthogonal, for the matrices between embedding and output.

torch.optim.Muon computes in bfloat16, which processors without instructions for it do ten times slower than float32; this one stays
in the type of the weights and takes matrices of like shape together.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

_QUINTIC = (3.4445, -4.7750, 2.0315)  # of the paper: singular values of 0.01 and more end between 0.7 and 1.2


def orthogonal(matrices: Tensor, steps: int = 5) -> Tensor:
    """Return `(K, M, N)` matrices with all singular values near 1 (Newton-Schulz iteration), directions kept."""
    a, b, c = _QUINTIC
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    for _ in range(steps):
        gram = x @ x.mT  # (K, M, M), M the shorter side
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x


class Muon(torch.optim.Optimizer):
    """Moves matrices by the orthogonalised, Nesterov-corrected mean of their gradients."""

    def __init__(
        self, params: Iterable[Tensor], lr: float = 0.02, momentum: float = 0.95, weight_decay: float = 0.01
    ) -> None:
        """Take `params`, all of them matrices; weights shrink by `lr * weight_decay` in each step."""
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """Move every matrix that has a gradient."""
        del closure  # of no use: nothing is evaluated again
        for group in self.param_groups:
            shapes: dict[torch.Size, list[Tensor]] = {}
            for weight in group["params"]:
                if weight.grad is not None:
                    shapes.setdefault(weight.shape, []).append(weight)
            for shape, weights in shapes.items():
                means = [self.state[weight].setdefault("mean", torch.zeros_like(weight)) for weight in weights]
                grads = [weight.grad for weight in weights if weight.grad is not None]
                torch._foreach_lerp_(means, grads, 1 - group["momentum"])
                moves = orthogonal(torch.stack(torch._foreach_lerp(grads, means, group["momentum"])))
                torch._foreach_mul_(weights, 1 - group["lr"] * group["weight_decay"])
                torch._foreach_add_(weights, list(moves), alpha=-group["lr"] * max(1.0, shape[0] / shape[1]) ** 0.5)
