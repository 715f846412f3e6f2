"""The modules of Darknet's networks, one for each kind of layer.

What they compute is what the original C program (Redmon, 2013-2018) and its continuation compute; where those differ, an
argument says which is meant.
"""

import copy
from collections.abc import Callable, Mapping
from typing import Literal, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from openlepton.nets.blocks import fuse
from openlepton.nets.darknet_layers import (
    Connected,
    Convolutional,
    Local,
    Maxpool,
    Reorg,
    Route,
    Shortcut,
    Softmax,
    Upsample,
)

Epsilon = Literal["variance", "deviation"]
"""What keeps batch norm from dividing by zero: 1e-5 added to the variance, as Darknet does on GPUs and its continuation
everywhere, or 1e-6 added to the standard deviation, as the original does on processors."""

ACTIVATIONS: Mapping[str, Callable[[], nn.Module]] = {
    "linear": nn.Identity,
    "leaky": lambda: nn.LeakyReLU(0.1),
    "mish": nn.Mish,
    "swish": nn.SiLU,
    "relu": nn.ReLU,
    "logistic": nn.Sigmoid,
}


class Norm(nn.BatchNorm2d):
    """Batch norm with either epsilon; the stored variance is that of the file, so that it is written as it was read."""

    def __init__(self, channels: int, epsilon: Epsilon) -> None:
        super().__init__(channels, eps=1e-5, momentum=0.01)
        self.epsilon = epsilon

    def forward(self, x: Tensor) -> Tensor:
        """Return `(B, C, H, W)`."""
        if self.training or self.epsilon == "variance":
            y: Tensor = super().forward(x)
            return y
        plain = self.plain()
        assert plain.running_mean is not None
        assert plain.running_var is not None
        scale = self.weight.double() / plain.running_var.sqrt()
        shift = self.bias.double() - plain.running_mean * scale
        return x * scale.to(x.dtype)[:, None, None] + shift.to(x.dtype)[:, None, None]

    def plain(self) -> nn.BatchNorm2d:
        """Return an equal batch norm of the usual form, in double precision."""
        assert self.running_mean is not None
        assert self.running_var is not None
        plain = nn.BatchNorm2d(self.num_features, eps=self.eps if self.epsilon == "variance" else 0.0)
        variance = self.running_var.double()
        plain.running_var = variance if self.epsilon == "variance" else (variance.sqrt() + 1e-6) ** 2
        plain.running_mean = self.running_mean.double()
        plain.weight, plain.bias = self.weight, self.bias
        return plain.eval()


class Convolution(nn.Module):
    """Convolution with bias or batch norm, and activation."""

    def __init__(self, facts: Convolutional, epsilon: Epsilon) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            facts.cin,
            facts.shape[0],
            facts.size,
            facts.stride,
            facts.pad,
            facts.dilation,
            facts.groups,
            bias=not facts.normalized,
        )
        self.bn: nn.Module = Norm(facts.shape[0], epsilon) if facts.normalized else nn.Identity()
        self.act = ACTIVATIONS[facts.activation]()

    def forward(self, x: Tensor) -> Tensor:
        """Return `(B, out, H', W')`."""
        y: Tensor = self.act(self.bn(self.conv(x)))
        return y

    def fused(self) -> Self:
        """Return an equal block whose batch norm is inside the convolution."""
        fused = copy.copy(self)
        conv = fuse(self.conv, self.bn.plain()) if isinstance(self.bn, Norm) else self.conv
        fused._modules = {"conv": conv, "bn": nn.Identity(), "act": self.act}
        return fused


class LocalConvolution(nn.Module):
    """Convolution whose every place has a kernel and a bias of its own, and activation."""

    def __init__(self, facts: Local) -> None:
        super().__init__()
        self.facts = facts
        filters, high, wide = facts.shape
        self.bias = nn.Parameter(torch.zeros(facts.shape))
        self.weight = nn.Parameter(torch.empty(high * wide, filters, facts.cin * facts.size**2))
        bound = self.weight.shape[2] ** -0.5
        nn.init.uniform_(self.weight, -bound, bound)
        self.act = ACTIVATIONS[facts.activation]()

    def forward(self, x: Tensor) -> Tensor:
        """Return `(B, out, H', W')`."""
        facts = self.facts
        patches = F.unfold(x, facts.size, padding=facts.pad, stride=facts.stride)  # (B, in * size * size, H' * W')
        y = patches.permute(2, 0, 1) @ self.weight.transpose(1, 2)  # (H' * W', B, out)
        z: Tensor = self.act(y.permute(1, 2, 0).reshape(-1, *facts.shape) + self.bias)
        return z


class Connection(nn.Module):
    """`(B, C, H, W)` to `(B, out, 1, 1)`: a sum over everything, batch norm if there is one, and activation."""

    def __init__(self, facts: Connected, epsilon: Epsilon) -> None:
        super().__init__()
        self.linear = nn.Linear(facts.inputs, facts.shape[0], bias=not facts.normalized)
        self.bn: nn.Module = Norm(facts.shape[0], epsilon) if facts.normalized else nn.Identity()
        self.act = ACTIVATIONS[facts.activation]()

    def forward(self, x: Tensor) -> Tensor:
        """Return `(B, out, 1, 1)`."""
        y: Tensor = self.act(self.bn(self.linear(x.flatten(1))[..., None, None]))
        return y

    def fused(self) -> Self:
        """Return an equal block whose batch norm is inside the sum."""
        fused = copy.copy(self)
        linear = self.linear
        if isinstance(self.bn, Norm):
            whole = nn.Conv2d(linear.in_features, linear.out_features, 1, bias=False)
            whole.weight = nn.Parameter(linear.weight.detach()[..., None, None])
            whole = fuse(whole, self.bn.plain())
            linear = nn.Linear(linear.in_features, linear.out_features)
            assert whole.bias is not None
            linear.weight, linear.bias = (
                nn.Parameter(whole.weight.detach()[..., 0, 0]),
                nn.Parameter(whole.bias.detach()),
            )
        fused._modules = {"linear": linear, "bn": nn.Identity(), "act": self.act}
        return fused


class Pool(nn.Module):
    """Max pool of which the smaller half of the padding comes before, as nothing that a maximum would take."""

    def __init__(self, facts: Maxpool) -> None:
        super().__init__()
        self.size, self.stride = facts.size, facts.stride
        self.before, self.after = facts.padding // 2, facts.padding - facts.padding // 2

    def forward(self, x: Tensor) -> Tensor:
        """Return `(B, C, H', W')`."""
        if self.before == self.after <= self.size // 2:
            return F.max_pool2d(x, self.size, self.stride, self.before)
        if self.before == 0 and self.after == self.stride - 1:
            return F.max_pool2d(x, self.size, self.stride, ceil_mode=True)
        sides = (self.before, self.after) * 2
        return F.max_pool2d(F.pad(x, sides, value=float("-inf")), self.size, self.stride)


class Mean(nn.Module):
    """`(B, C, H, W)` to `(B, C, 1, 1)`."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the mean of each channel."""
        return F.adaptive_avg_pool2d(x, 1)


class GroupSoftmax(nn.Module):
    """`(B, C, H, W)` to `(B, C * H * W, 1, 1)`: the softmax of each of some groups of values."""

    def __init__(self, facts: Softmax) -> None:
        super().__init__()
        self.groups, self.temperature = facts.groups, facts.temperature

    def forward(self, x: Tensor) -> Tensor:
        """Return values of which each group sums to 1."""
        y = x.reshape(x.shape[0], self.groups, -1) / self.temperature
        return y.softmax(2).flatten(1)[..., None, None]


class Join(nn.Module):
    """Maps side by side, of each one group of its channels."""

    def __init__(self, facts: Route) -> None:
        super().__init__()
        self.groups, self.group_id = facts.groups, facts.group_id

    def forward(self, *maps: Tensor) -> Tensor:
        """Return `(B, sum of channels, H, W)`."""
        parts = maps if self.groups == 1 else [x.chunk(self.groups, 1)[self.group_id] for x in maps]
        return parts[0] if len(parts) == 1 else torch.cat(tuple(parts), 1)


class Sum(nn.Module):
    """A map and what others have in common with it: the first channels, and every so manieth pixel of a larger one."""

    def __init__(self, facts: Shortcut) -> None:
        super().__init__()
        self.act = ACTIVATIONS[facts.activation]()

    def forward(self, x: Tensor, *others: Tensor) -> Tensor:
        """Return `(B, C, H, W)`, the shape of the first."""
        C, H, W = x.shape[1:]
        for other in others:
            if other.shape[2] != H:
                other = other[:, :, :: other.shape[2] // H, :: other.shape[3] // W]
            shared = min(C, other.shape[1])
            if other.shape[1] > C:
                other = other[:, :C]
            x = x + other if shared == C else torch.cat((x[:, :shared] + other, x[:, shared:]), 1)
        y: Tensor = self.act(x)
        return y


class Enlarge(nn.Module):
    """Every pixel repeated, and multiplied with a number."""

    def __init__(self, facts: Upsample) -> None:
        super().__init__()
        self.stride, self.scale = facts.stride, facts.scale

    def forward(self, x: Tensor) -> Tensor:
        """Return `(B, C, H * stride, W * stride)`."""
        y = F.interpolate(x, scale_factor=float(self.stride), mode="nearest")
        return y if self.scale == 1 else y * self.scale


class Reorganize(nn.Module):
    """Squares of pixels to channels, as Darknet does it and YOLOv2's published weights want it.

    The map is read as if it had `stride` squared fewer channels and were so much larger; of that, squares become channels;
    and what comes out is read, number after number, as the map of more channels and fewer pixels that it should have been.
    """

    def __init__(self, facts: Reorg) -> None:
        super().__init__()
        self.stride = facts.stride

    def forward(self, x: Tensor) -> Tensor:
        """Return `(B, C * stride * stride, H / stride, W / stride)`."""
        s, (B, C, H, W) = self.stride, x.shape
        x = x.reshape(B, C // s**2, H, s, W, s).permute(0, 3, 5, 1, 2, 4)  # (B, s, s, C / s / s, H, W)
        return x.reshape(B, C * s**2, H // s, W // s)


class Unchanged(nn.Module):
    """What leaves a map as it is."""

    def forward(self, x: Tensor) -> Tensor:
        """Return `x`."""
        return x
