"""The block that the convolutional networks share: convolution, batch norm, activation; and how it is fused."""

from collections.abc import Callable
from typing import Literal, Self

import torch
from torch import Tensor, nn

Activation = Literal["silu", "relu", "leaky_relu", "hardswish"]

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "silu": nn.SiLU,
    "relu": nn.ReLU,
    "leaky_relu": lambda: nn.LeakyReLU(0.1),
    "hardswish": nn.Hardswish,
}


class Summed(nn.Conv2d):
    """A convolution for inference whose kernel is a sum of trained numbers, which half precision would round."""


class Conv(nn.Module):
    """`(B, in, H, W)` to `(B, out, H / stride, W / stride)`: convolution without bias, batch norm, activation."""

    def __init__(
        self,
        cin: int,
        cout: int,
        kernel: int = 1,
        stride: int = 1,
        *,
        pad: int | None = None,
        groups: int = 1,
        act: Activation = "silu",
        eps: float = 1e-3,
    ) -> None:
        super().__init__()
        pad = kernel // 2 if pad is None else pad
        self.conv = nn.Conv2d(cin, cout, kernel, stride, pad, groups=groups, bias=False)
        self.bn: nn.Module = nn.BatchNorm2d(cout, eps=eps, momentum=0.03)
        self.act = ACTIVATIONS[act]()

    def forward(self, x: Tensor) -> Tensor:
        """Return `(B, out, H / stride, W / stride)`."""
        y: Tensor = self.act(self.bn(self.conv(x)))
        return y

    def fused(self) -> Self:
        """Return an equal block whose convolution has a bias and whose batch norm is gone."""
        fused = type(self).__new__(type(self))
        nn.Module.__init__(fused)
        fused.conv, fused.bn, fused.act = fuse(self.conv, self.bn), nn.Identity(), self.act
        return fused.train(self.training)


def fuse(conv: nn.Conv2d, bn: nn.Module) -> nn.Conv2d:
    """Return one convolution equal to `bn(conv(x))` in evaluation, computed in double precision.

    Its attribute `scale`, `(out,)`, is what the weights were multiplied with, for who stores them in half precision.
    """
    if not isinstance(bn, nn.BatchNorm2d):
        return conv
    assert bn.running_mean is not None
    assert bn.running_var is not None
    with torch.no_grad():
        scale = bn.weight.double() / torch.sqrt(bn.running_var.double() + bn.eps)
        bias = bn.bias.double() - bn.running_mean.double() * scale
        if conv.bias is not None:
            bias = bias + conv.bias.double() * scale
        weight = conv.weight.double() * scale[:, None, None, None]
        fused = nn.Conv2d(
            conv.in_channels,
            conv.out_channels,
            conv.kernel_size,  # type: ignore[arg-type]
            conv.stride,  # type: ignore[arg-type]
            conv.padding,  # type: ignore[arg-type]
            conv.dilation,  # type: ignore[arg-type]
            conv.groups,
            device=conv.weight.device,
            dtype=conv.weight.dtype,
        )
        fused.weight.copy_(weight)
        assert fused.bias is not None
        fused.bias.copy_(bias)
        fused.scale = scale.to(conv.weight.dtype)
    return fused


def fuse_children(module: nn.Module) -> None:
    """Replace, in place, every block below `module` that knows its fused form by that form."""
    for name, child in module.named_children():
        fused = getattr(child, "fused", None)
        if callable(fused):
            setattr(module, name, fused())
        else:
            fuse_children(child)
