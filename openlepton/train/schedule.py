"""How fast to learn when: learning rates, momentum and accumulation as functions of the batch, and averaged weights."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from openlepton.train.config import TrainConfig


@dataclass(frozen=True)
class Pace:
    """What holds for one batch."""

    lr_bias: float
    """Of biases."""
    lr: float
    """Of everything else."""
    momentum: float
    accumulate: int
    """Batches whose gradients make one step."""


def decline(config: TrainConfig, epoch: int) -> float:
    """Return the share of the learning rate that is left in an epoch, from 1 in the first towards `final_lr`."""
    done = epoch / config.epochs
    if config.schedule == "cosine":
        done = (1 - math.cos(done * math.pi)) / 2
    return 1 + done * (config.final_lr - 1)


def pace(config: TrainConfig, epoch: int, batch: int, batches: int) -> Pace:
    """Return what holds for batch `batch` of `batches` in an epoch; warm-up goes from batch to batch, the rest by epochs."""
    most = max(round(config.nominal_batch / config.batch), 1)
    lr = config.lr * decline(config, epoch)
    warmup = max(round(config.warmup_epochs * batches), config.warmup_steps) if config.warmup_epochs else 0
    number = epoch * batches + batch
    if number >= warmup:
        return Pace(lr, lr, config.momentum, most)
    share = number / warmup

    def between(start: float, end: float) -> float:
        return start + (end - start) * share

    return Pace(
        between(config.warmup_bias_lr, lr),
        between(0.0, lr),
        between(config.warmup_momentum, config.momentum),
        max(round(between(1, most)), 1),
    )


def make_optimizer(network: nn.Module, config: TrainConfig) -> Optimizer:
    """Return Nesterov SGD, or AdamW, over three groups: biases, norms and what else does not decay, and kernels, which do."""
    norms = tuple(kind for kind in vars(nn).values() if isinstance(kind, type) and "Norm" in kind.__name__)
    biases, plain, kernels = list[nn.Parameter](), list[nn.Parameter](), list[nn.Parameter]()
    for module in network.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.requires_grad:
                (biases if name == "bias" else plain if isinstance(module, norms) else kernels).append(parameter)
    accumulated = max(round(config.nominal_batch / config.batch), 1) * config.batch
    decay = config.weight_decay * accumulated / config.nominal_batch
    groups = [
        {"params": biases, "weight_decay": 0.0, "biases": True},
        {"params": plain, "weight_decay": 0.0},
        {"params": kernels, "weight_decay": decay},
    ]
    groups = [group for group in groups if group["params"]]
    if config.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=config.lr, betas=(config.momentum, 0.999), fused=True)
    return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum, nesterov=True, fused=True)


def set_pace(optimizer: Optimizer, now: Pace) -> None:
    """Set the learning rates and the momentum of `optimizer`."""
    for group in optimizer.param_groups:
        group["lr"] = now.lr_bias if group.get("biases") else now.lr
        if "momentum" in group:
            group["momentum"] = now.momentum
        else:
            group["betas"] = (now.momentum, group["betas"][1])


class Averaged:
    """Exponentially averaged weights and statistics of a network, which detect better than the latest ones.

    Args:
        network: What is averaged.
        decay: How much of the average stays in a step, once it has ramped up.
        ramp: Steps over which the decay rises to 63 % of its value.
    """

    def __init__(self, network: nn.Module, decay: float, ramp: float) -> None:
        self.decay, self.ramp, self.steps = decay, ramp, 0
        self.state = {name: value.detach().clone() for name, value in network.state_dict().items()}

    def update(self, network: nn.Module) -> None:
        """Move the average towards the network."""
        self.steps += 1
        weight = 1 - self.decay * (1 - math.exp(-self.steps / self.ramp))
        current = network.state_dict()
        floats = [name for name, value in self.state.items() if value.dtype.is_floating_point]
        with torch.no_grad():
            torch._foreach_lerp_([self.state[name] for name in floats], [current[name] for name in floats], weight)
            for name in self.state.keys() - set(floats):
                self.state[name].copy_(current[name])


def optimizer_state(network: nn.Module, optimizer: Optimizer) -> dict[str, Tensor]:
    """Return what the optimiser remembers of each parameter, by the parameter's name and then its own: `NAME/momentum_buffer`."""
    return {
        f"{name}/{key}": value
        for name, parameter in network.named_parameters()
        for key, value in optimizer.state.get(parameter, {}).items()
        if isinstance(value, Tensor)
    }


def set_optimizer_state(network: nn.Module, optimizer: Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Give the optimiser what `optimizer_state` returned."""
    parameters = dict(network.named_parameters())
    for path, value in tensors.items():
        name, _, key = path.rpartition("/")
        parameter = parameters[name]
        # In the parameter's own layout of memory: fused steps walk through both side by side.
        kept = torch.empty_like(parameter) if value.shape == parameter.shape else torch.empty_like(value)
        optimizer.state[parameter][key] = kept.detach().copy_(value)
