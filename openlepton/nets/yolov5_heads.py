"""The heads of YOLOv5: boxes and classes, and with masks; each in the form that is trained and in an equal one for inference."""

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from openlepton.nets.blocks import Activation, Conv, Summed

if TYPE_CHECKING:
    from openlepton.nets.yolov5 import Config

MASKS = 32
"""Prototypes that a mask is mixed from."""


class Level(NamedTuple):
    """Logits of one level of the pyramid, for A anchors."""

    places: Tensor
    """`(B, 5 * A, H, W)` all x, all y, all w, all h, all objectness."""
    classes: list[Tensor]
    """Per anchor `(B, C, H, W)`."""
    extra: list[Tensor]
    """Per anchor `(B, E, H, W)` what the head says besides; empty where it says nothing."""


class Detect(nn.Module):
    """The head: one 1x1 convolution per level; each anchor has 5 + C channels: x, y, w, h, objectness, classes.

    Heads that say more of an object have `extra` channels for each anchor after these.
    """

    anchors: Tensor  # (levels, A, 2) width and height in cells, as checkpoints store them

    def __init__(self, config: "Config", channels: list[int], extra: int = 0) -> None:
        super().__init__()
        strides = torch.tensor(config.strides, dtype=torch.float32)
        self.register_buffer("anchors", torch.tensor(config.anchors, dtype=torch.float32) / strides[:, None, None])
        self.classes = config.classes
        outputs = len(config.anchors[0]) * (5 + config.classes + extra)
        self.m = nn.ModuleList(nn.Conv2d(c, outputs, 1) for c in channels)
        for conv, stride in zip(self.m, config.strides, strict=True):
            _set_prior(conv, config, stride)

    def forward(self, x: list[Tensor]) -> Any:
        """Return the logits of each level, `(B, A * (5 + C), H, W)`."""
        return [conv(level) for conv, level in zip(self.m, x, strict=True)]

    def fused(self) -> "DetectApart":
        """Return an equal head that computes what `decode` wants apart."""
        return DetectApart(self)


def _set_prior(conv: nn.Module, config: "Config", stride: int) -> None:
    """Shift the biases: eight objects per 640-pixel image, classes alike (the idea: RetinaNet, arXiv:1708.02002)."""
    assert isinstance(conv, nn.Conv2d)
    assert conv.bias is not None
    with torch.no_grad():
        bias = conv.bias.view(len(config.anchors[0]), -1)
        bias[:, 4] += math.log(8 / (640 / stride) ** 2)
        bias[:, 5 : 5 + config.classes] += math.log(0.6 / (config.classes - 0.99999))


class DetectApart(nn.Module):
    """`Detect` for inference: one convolution per level for places and objectness, one per anchor for classes, and for the rest.

    The scores are by far the largest tensor. Apart, the sigmoid is computed inside the convolution and the anchors' scores
    leave it in the order of the rows, so that a runtime moves them twice instead of five times.
    """

    anchors: Tensor

    def __init__(self, head: Detect) -> None:
        super().__init__()
        A, C = head.anchors.shape[1], head.classes
        self.register_buffer("anchors", head.anchors)
        self.m = (
            nn.ModuleList()
        )  # per level: places, classes of the first anchor, of the second, ..., the rest likewise
        for conv in head.m:
            assert isinstance(conv, nn.Conv2d)
            rows = torch.arange(conv.out_channels).view(A, -1)  # (A, 5 + C + E)
            parts = (rows[:, :5].T.flatten(), *rows[:, 5 : 5 + C], *rows[:, 5 + C :])
            self.m.append(nn.ModuleList(_some_outputs(conv, part) for part in parts if len(part)))

    def forward(self, x: list[Tensor]) -> Any:
        """Return each level as `decode` wants it."""
        levels = []
        for convs, level in zip(self.m, x, strict=True):
            assert isinstance(convs, nn.ModuleList)
            places, *rest = [conv(level) for conv in convs]
            A = self.anchors.shape[1]
            levels.append(Level(places, rest[:A], rest[A:]))
        return levels


def _some_outputs(conv: nn.Conv2d, rows: Tensor) -> nn.Conv2d:
    some = nn.Conv2d(conv.in_channels, len(rows), 1, device=conv.weight.device, dtype=conv.weight.dtype)
    assert conv.bias is not None
    some.weight, some.bias = nn.Parameter(conv.weight.detach()[rows]), nn.Parameter(conv.bias.detach()[rows])
    return some


def level_of(raw: Tensor, anchors: int, classes: int) -> Level:
    """Return the raw map of a level, `(B, A * (5 + C + E), H, W)`, as its parts."""
    raw = raw.view(len(raw), anchors, -1, *raw.shape[2:])  # (B, A, 5 + C + E, H, W)
    places = raw[:, :, :5].transpose(1, 2).flatten(1, 2)
    return Level(places, list(raw[:, :, 5 : 5 + classes].unbind(1)), list(raw[:, :, 5 + classes :].unbind(1)))


class Prototypes(nn.Module):
    """From the finest level to 32 maps, twice as fine, that masks are mixed from (YOLACT, arXiv:1904.02689)."""

    def __init__(self, cin: int, c: int, *, act: Activation) -> None:
        super().__init__()
        self.cv1 = Conv(cin, c, 3, act=act)
        self.cv2 = Conv(c, c, 3, act=act)
        self.cv3 = Conv(c, MASKS, 1, act=act)

    def forward(self, x: Tensor) -> Tensor:
        """Return `(B, 32, 2 * H, 2 * W)`."""
        y: Tensor = self.cv3(self.cv2(F.interpolate(self.cv1(x), scale_factor=2.0, mode="nearest")))
        return y

    def fused(self) -> "PrototypesApart":
        """Return an equal module that never enlarges what its largest convolution reads."""
        return PrototypesApart(self)


def _taps() -> Tensor:
    """Return which of 3 x 3 taps each of 2 x 2 stands for, `(4, 2, 2, 3, 3)`, by the parity of row and column."""
    # For an even pixel the first of three taps falls on the pixel before; for an odd one the last on the one after.
    taps = torch.tensor([[[1, 0, 0], [0, 1, 1]], [[1, 1, 0], [0, 0, 1]]], dtype=torch.float64)  # (parity, 2, 3)
    return torch.einsum("ray,cbx->rcabyx", taps, taps).flatten(0, 1)


def whole_kernel(quarters: Tensor) -> Tensor:
    """Return the kernel `(O, I, 3, 3)` that the four of `PrototypesApart`, `(4, O, I, 2, 2)`, are sums of."""
    sums = quarters.double().permute(0, 3, 4, 1, 2).flatten(0, 2).flatten(1)  # (16, O * I)
    kernel: Tensor = torch.linalg.lstsq(_taps().flatten(0, 2).flatten(1), sums).solution  # (9, O * I)
    return kernel.T.reshape(*quarters.shape[1:3], 3, 3).to(quarters.dtype)


class PrototypesApart(nn.Module):
    """`Prototypes` for inference: nine taps on pixels that come in fours are four taps, other ones for each of the four.

    So four 2x2 convolutions of the small map give the pixels of the large one, by the parity of row and column, with less
    than half of the multiplications.
    """

    def __init__(self, protos: Prototypes) -> None:
        super().__init__()
        self.cv1, cv2, self.cv3 = protos.cv1.fused(), protos.cv2.fused(), protos.cv3.fused()
        self.act = cv2.act
        weight, bias = cv2.conv.weight.detach(), cv2.conv.bias
        assert bias is not None
        self.quarters = nn.ModuleList()
        for kernel in torch.einsum("oiyx,qabyx->qoiab", weight.double(), _taps()):
            conv = Summed(weight.shape[1], weight.shape[0], 2, padding=1)
            conv.weight, conv.bias = nn.Parameter(kernel.to(weight.dtype)), nn.Parameter(bias.detach().clone())
            self.quarters.append(conv)

    def forward(self, x: Tensor) -> Tensor:
        """Return `(B, 32, 2 * H, 2 * W)`."""
        x = self.cv1(x)
        B, _, H, W = x.shape
        pixels = []
        for index, conv in enumerate(self.quarters):
            row, column = divmod(index, 2)
            y = self.cv3(self.act(conv(x)))  # (B, 32, H + 1, W + 1)
            pixels.append(y[:, :, row : row + H, column : column + W])
        fours = torch.stack(pixels, -1).view(B, MASKS, H, W, 2, 2)
        return fours.permute(0, 1, 2, 4, 3, 5).reshape(B, MASKS, 2 * H, 2 * W)


class Segment(Detect):
    """The head with masks: 32 more channels for each anchor, what an object takes of each prototype, and the prototypes."""

    def __init__(self, config: "Config", channels: list[int]) -> None:
        super().__init__(config, channels, extra=MASKS)
        self.proto = Prototypes(channels[0], math.ceil(256 * config.width / 8) * 8, act=config.activation)

    def forward(self, x: list[Tensor]) -> Any:
        """Return the logits of each level, `(B, A * (5 + C + 32), H, W)`, and the prototypes `(B, 32, h, w)`."""
        return super().forward(x), self.proto(x[0])

    def fused(self) -> "SegmentApart":
        """Return an equal head for inference."""
        return SegmentApart(self)


class SegmentApart(DetectApart):
    """`Segment` for inference."""

    def __init__(self, head: Segment) -> None:
        super().__init__(head)
        self.proto = head.proto.fused()

    def forward(self, x: list[Tensor]) -> Any:
        """Return each level as `decode` wants it, and the prototypes `(B, 32, h, w)`."""
        return super().forward(x), self.proto(x[0])
