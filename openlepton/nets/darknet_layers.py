"""The layers of a Darknet network as facts: what each reads, the shape of its map and the size of its weights."""

from dataclasses import dataclass

Shape = tuple[int, int, int]
"""Channels, height and width of a map."""

IMAGE = -1
"""The number of the image among the layers."""


@dataclass(frozen=True, kw_only=True)
class Layer:
    """What every layer has."""

    line: int
    """Of its section in the file."""
    reads: tuple[int, ...]
    """Numbers of earlier layers, or `IMAGE`."""
    shape: Shape
    """Of its map."""
    weights: int = 0
    """How many numbers a weights file holds for it."""


@dataclass(frozen=True, kw_only=True)
class Same(Layer):
    """`[dropout]` and `[cost]`, which leave a map as it is."""


@dataclass(frozen=True, kw_only=True)
class Convolutional(Layer):
    """`[convolutional]`; `pad` is what is added on each side, pixels."""

    cin: int
    size: int
    stride: int
    pad: int
    dilation: int
    groups: int
    normalized: bool
    activation: str


@dataclass(frozen=True, kw_only=True)
class Local(Layer):
    """`[local]`: a convolution whose every place has a kernel of its own."""

    cin: int
    size: int
    stride: int
    pad: int
    activation: str


@dataclass(frozen=True, kw_only=True)
class Connected(Layer):
    """`[connected]`."""

    inputs: int
    normalized: bool
    activation: str


@dataclass(frozen=True, kw_only=True)
class Maxpool(Layer):
    """`[maxpool]`; `padding` is what is added on both sides together, the smaller half before."""

    size: int
    stride: int
    padding: int


@dataclass(frozen=True, kw_only=True)
class Avgpool(Layer):
    """`[avgpool]`: the mean of each channel."""


@dataclass(frozen=True, kw_only=True)
class Softmax(Layer):
    """`[softmax]`."""

    groups: int
    temperature: float


@dataclass(frozen=True, kw_only=True)
class Route(Layer):
    """`[route]`: maps side by side, of each the group `group_id` of `groups`."""

    groups: int
    group_id: int


@dataclass(frozen=True, kw_only=True)
class Shortcut(Layer):
    """`[shortcut]`: the map before, and added to it what the others have in common with it."""

    activation: str


@dataclass(frozen=True, kw_only=True)
class Upsample(Layer):
    """`[upsample]`, nearest; `scale` multiplies every value."""

    stride: int
    scale: float


@dataclass(frozen=True, kw_only=True)
class Reorg(Layer):
    """`[reorg]`: squares of pixels become channels, in an order of Darknet's own."""

    stride: int


@dataclass(frozen=True, kw_only=True)
class Head(Layer):
    """What gives boxes and scores; no other layer may read it."""

    classes: int
    boxes: int
    """Of a cell."""


@dataclass(frozen=True, kw_only=True)
class Yolo(Head):
    """`[yolo]`, of YOLOv3 and later; anchors in pixels."""

    anchors: tuple[tuple[float, float], ...]
    scale_xy: float
    new_coords: bool


@dataclass(frozen=True, kw_only=True)
class Region(Head):
    """`[region]`, of YOLOv2; anchors in cells."""

    anchors: tuple[tuple[float, float], ...]


@dataclass(frozen=True, kw_only=True)
class Detection(Head):
    """`[detection]`, of YOLOv1."""

    side: int
    softmax: bool
    roots: bool
    """Whether width and height are the squares of what comes out."""
