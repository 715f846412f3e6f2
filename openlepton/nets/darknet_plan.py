"""A Darknet network as a plan: every layer with what it reads, the shape of its map and the size of its weights.

Planning is arithmetic on integers with a limit on each: nothing is allocated, nothing takes longer than milliseconds, and what
comes out can be built.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from openlepton.errors import CheckpointRefused
from openlepton.nets.darknet_cfg import Options, read_sections
from openlepton.nets.darknet_layers import Convolutional, Head, Layer, Region, Same, Softmax, Yolo
from openlepton.nets.darknet_sections import KINDS, MAX_CHANNELS, Reader

MAX_SIDE = 8192
MAX_MAP = 1 << 27
"""Numbers in one map."""
MAX_MAPS = 1 << 31
"""Numbers in all maps together."""
MAX_WEIGHTS = 1 << 30
MAX_PRODUCTS = 1 << 42
"""Multiplications for one image; the largest networks of the field ask for about 2^39."""


@dataclass(frozen=True)
class Plan:
    """A network that can be built."""

    size_hw: tuple[int, int]
    """Height and width of the image."""
    layers: tuple[Layer, ...]
    any_size: bool
    """Whether the same weights serve images of every size that `multiple` divides."""
    multiple: int
    """Pixels that one cell of the coarsest map stands for; 1 where the size is fixed."""
    letterboxed: bool
    """Whether `letter_box` says that images are letterboxed."""

    @property
    def weights(self) -> int:
        """How many numbers a weights file holds after its header."""
        return sum(layer.weights for layer in self.layers)

    @property
    def heads(self) -> tuple[int, ...]:
        """Numbers of the layers that give boxes and scores, or of the softmax of a classifier."""
        heads = tuple(index for index, layer in enumerate(self.layers) if isinstance(layer, Head))
        return heads or (max(index for index, layer in enumerate(self.layers) if not isinstance(layer, Same)),)

    @property
    def task(self) -> Literal["detect", "classify"]:
        """What the network is for."""
        return "detect" if isinstance(self.layers[self.heads[0]], Head) else "classify"

    @property
    def classes(self) -> int:
        """How many classes it tells apart."""
        head = self.layers[self.heads[0]]
        return head.classes if isinstance(head, Head) else head.shape[0]


def plan(text: str, where: str = "cfg") -> Plan:
    """Return the plan of the network that a configuration file states; `where` names the file in errors.

    Raises:
        CheckpointRefused: Something in it is unknown, malformed, larger than any network needs, or leads nowhere; the
            message says section and line.
    """
    sections = read_sections(text, where)
    net = Options(sections[0], where)
    height, width = (net.integer(side, 0, 1, MAX_SIDE) for side in ("height", "width"))
    channels = net.integer("channels", 0, 1, MAX_CHANNELS)
    if not (height and width and channels):
        raise net.error("expected height, width and channels")
    if channels != 3:
        raise net.error(f"models here take 3 channels (RGB), got {channels}", "channels")
    net.only("inputs", height * width * channels)
    letterboxed = net.flag("letter_box")
    net.done()
    layers = [Options(section, where) for section in sections[1:]]
    found = _layers(layers, (height, width))
    multiple = _multiple(layers, found, (height, width))
    result = Plan((height, width), found, multiple > 0, multiple or 1, letterboxed)
    _check_end(result, net)
    return result


def _check_end(result: Plan, net: Options) -> None:
    if not any(not isinstance(layer, Same) for layer in result.layers):
        raise net.error("there is no layer after it")
    head = result.layers[result.heads[0]]
    if not isinstance(head, Head | Softmax) or (isinstance(head, Softmax) and head.shape[1:] != (1, 1)):
        raise net.error("expected [yolo], [region] or [detection], or [softmax] at the end: what it gives is not known")
    heads = [result.layers[index] for index in result.heads]
    if len({head.classes for head in heads if isinstance(head, Head)}) > 1:
        raise net.error(
            f"its heads tell different numbers of classes apart (lines {', '.join(str(h.line) for h in heads)})"
        )


def _multiple(sections: Sequence[Options], found: Sequence[Layer], size_hw: tuple[int, int]) -> int:
    """Return the pixels of the coarsest cell if the network takes any multiple of them, 0 if it takes one size.

    It is tried: planned for other sizes, every layer must have the same weights and every head cells of the same size.
    """
    heads = [layer for layer in found if isinstance(layer, Yolo | Region)]
    if not heads or len(heads) != sum(isinstance(layer, Head) for layer in found):
        return 0
    cells = {(size_hw[0] / head.shape[1], size_hw[1] / head.shape[2]) for head in heads}
    if any(high != wide or high % 1 for high, wide in cells):
        return 0
    multiple = math.lcm(*(int(high) for high, _ in cells))
    for high, wide in ((1, 1), (1, 2), (3, 1)) if multiple <= 1024 else ():
        try:
            other = _layers(sections, (high * multiple, wide * multiple))
        except CheckpointRefused:
            return 0
        for a, b in zip(found, other, strict=True):
            same = a.weights == b.weights and a.shape[0] == b.shape[0]
            if not same or (isinstance(a, Head) and a.shape[1] * high * multiple != b.shape[1] * size_hw[0]):
                return 0
            if isinstance(a, Head) and a.shape[2] * wide * multiple != b.shape[2] * size_hw[1]:
                return 0
    return multiple if multiple <= 1024 else 0


def _layers(sections: Sequence[Options], size_hw: tuple[int, int]) -> tuple[Layer, ...]:
    """Return the layers for images of `size_hw`."""
    reader, maps, weights, products = Reader(size_hw), 0, 0, 0
    for options in sections:
        kind = KINDS.get(options.section.kind)
        if kind is None:
            raise options.error(f"not a section that is read; those are {', '.join(KINDS)}")
        layer = kind(options, reader)
        options.done()
        size = math.prod(layer.shape)
        maps, weights = maps + size, weights + layer.weights
        products += layer.weights * (math.prod(layer.shape[1:]) if isinstance(layer, Convolutional) else 1)
        for what, count, most in (
            ("numbers in its map", size, MAX_MAP),
            ("numbers in the maps so far", maps, MAX_MAPS),
            ("weights so far", weights, MAX_WEIGHTS),
            ("multiplications so far", products, MAX_PRODUCTS),
        ):
            if count > most:
                raise options.error(f"{count:,} {what}, at most {most:,} are read")
        reader.layers.append(layer)
    return tuple(reader.layers)
