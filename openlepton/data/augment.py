"""Training images made from others: mosaic, mixup, copy-paste, affine and perspective, flips, colour.

Labels move along. Every function takes its `Generator` and returns new values, so one seed gives one image, whoever
computes it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Final

import cv2
import numpy as np

from openlepton.arrays import Image
from openlepton.data.warp import Labelled, Matrix, Tile, compose, draw_outline
from openlepton.errors import UsageError
from openlepton.ops.boxes import area

MAX_PASTE_COVER = 0.30
"""An object is pasted where it hides less than this share of every other."""

Read = Callable[[int], Labelled]
"""Gives the labelled image of an index, its longer side scaled to the training size."""


@dataclass(frozen=True)
class AugmentConfig:
    """How far, and how often, training images differ from those on disk; all zeros change nothing.

    Raises:
        UsageError: A probability is outside 0..1, or a range is negative or so wide that images would vanish.
    """

    hsv_h: float = 0.0
    """Hue is multiplied by 1 ± up to this."""
    hsv_s: float = 0.0
    """Saturation is multiplied by 1 ± up to this."""
    hsv_v: float = 0.0
    """Brightness is multiplied by 1 ± up to this."""
    degrees: float = 0.0
    """Rotation, ± degrees."""
    translate: float = 0.0
    """Shift, ± share of the image size."""
    scale: float = 0.0
    """Zoom, 1 ± up to this."""
    shear: float = 0.0
    """Shear of each axis, ± degrees."""
    perspective: float = 0.0
    """The projective terms, ±; 0.001 is already strong."""
    flipud: float = 0.0
    """How probable it is that the image is turned upside down."""
    fliplr: float = 0.0
    """How probable it is that left and right are swapped."""
    mosaic: float = 0.0
    """How probable it is that four images meet in one."""
    mixup: float = 0.0
    """How probable it is that a mosaic is blended with another."""
    copy_paste: float = 0.0
    """Share of the objects with outlines that are pasted again, mirrored."""

    def __post_init__(self) -> None:
        limits = {"degrees": 180.0, "shear": 80.0, "perspective": 0.002}
        for field in fields(self):
            value, most = getattr(self, field.name), limits.get(field.name, 1.0)
            if not 0 <= value <= most:
                raise UsageError(f"{field.name}: expected 0 to {most:g}, got {value}")
        if self.scale >= 1:
            raise UsageError(f"scale: expected less than 1 (1 shrinks images to nothing), got {self.scale}")

    def closing(self) -> "AugmentConfig":
        """Return the same without mosaic and mixup, for the last epochs: the network then sees whole images again."""
        return replace(self, mosaic=0.0, mixup=0.0)


_LOW: Final = AugmentConfig(hsv_h=0.015, hsv_s=0.7, hsv_v=0.4, translate=0.1, scale=0.5, fliplr=0.5, mosaic=1.0)

PRESETS: Final[Mapping[str, AugmentConfig]] = {
    "none": AugmentConfig(),
    "low": _LOW,
    "medium": replace(_LOW, scale=0.9, mixup=0.1),
    "high": replace(_LOW, scale=0.9, mixup=0.1, copy_paste=0.1),
}
"""The published settings of YOLOv5 6.0 to 7.0: low for the sizes n and s, high for m, l and x."""


def training_image(
    read: Read, count: int, index: int, size: int, config: AugmentConfig, rng: np.random.Generator
) -> Labelled:
    """Return a training image of `size` x `size` pixels built around image `index` of `count`.

    What is drawn from `rng` depends on nothing but `config`, `count` and the images' sizes and outlines.
    """
    flip = flips(config, size, rng)
    if rng.random() < config.mosaic:
        made = mosaic([read(row) for row in _with_partners(index, count, rng)], size, config, rng, flip)
        if rng.random() < config.mixup:
            rows = _with_partners(int(rng.integers(count)), count, rng)
            made = mixup(
                made, mosaic([read(row) for row in rows], size, config, rng, flip), float(rng.beta(32.0, 32.0))
            )
    else:
        made = single(read(index), size, config, rng, flip)
    if config.copy_paste:
        made = copy_paste(made, config.copy_paste, rng)
    return replace(made, image=hsv(made.image, *hsv_gains(config, rng)))


def mosaic(
    items: Sequence[Labelled], size: int, config: AugmentConfig, rng: np.random.Generator, flip: Matrix
) -> Labelled:
    """Return four images that meet at a random point, seen through a random affine or perspective map.

    The canvas is twice `size`; the meeting point lies in its middle half, which is what the map brings into the result.

    Args:
        items: Four images with a longer side of at most `size` pixels, in any order.
        size: Side of the result, pixels.
        config: How far the map may go.
        rng: Where chance comes from.
        flip: A matrix applied last, in pixels of the result.
    """
    centre_x, centre_y = (int(value) for value in rng.integers(size // 2, size + (size + 1) // 2, 2, endpoint=True))
    tiles = tiles_around(centre_x, centre_y, [items[place] for place in rng.permutation(4)])
    canvas = 2 * size
    return compose(tiles, (canvas, canvas), flip @ random_map(config, (canvas, canvas), size, rng), (size, size))


def single(item: Labelled, size: int, config: AugmentConfig, rng: np.random.Generator, flip: Matrix) -> Labelled:
    """Return one image, centred on grey, seen through a random affine or perspective map."""
    height, width = item.image.shape[:2]
    tile = Tile(item, (size - width) // 2, (size - height) // 2)
    return compose([tile], (size, size), flip @ random_map(config, (size, size), size, rng), (size, size))


def tiles_around(x: int, y: int, items: Sequence[Labelled]) -> list[Tile]:
    """Return four items with one corner at (x, y): top left, top right, bottom left, bottom right of it."""
    places = []
    for place, item in enumerate(items):
        height, width = item.image.shape[:2]
        places.append(Tile(item, x if place % 2 else x - width, y if place >= 2 else y - height))
    return places


def random_map(config: AugmentConfig, canvas_hw: tuple[int, int], size: int, rng: np.random.Generator) -> Matrix:
    """Return a matrix that brings the middle of a canvas near the middle of `size` x `size` pixels.

    About the middle it applies perspective, then rotation and zoom, then shear, and at last the shift.
    """
    perspective_x, perspective_y = rng.uniform(-config.perspective, config.perspective, 2)
    angle = np.deg2rad(rng.uniform(-config.degrees, config.degrees))
    zoom = rng.uniform(1 - config.scale, 1 + config.scale)
    shear_x, shear_y = np.tan(np.deg2rad(rng.uniform(-config.shear, config.shear, 2)))
    shift_x, shift_y = rng.uniform(0.5 - config.translate, 0.5 + config.translate, 2) * size
    cos, sin = zoom * np.cos(angle), zoom * np.sin(angle)
    to_middle = np.array([[1, 0, -canvas_hw[1] / 2], [0, 1, -canvas_hw[0] / 2], [0, 0, 1]])
    perspective = np.array([[1, 0, 0], [0, 1, 0], [perspective_x, perspective_y, 1]])
    rotate = np.array([[cos, sin, 0], [-sin, cos, 0], [0, 0, 1]])
    shear = np.array([[1, shear_x, 0], [shear_y, 1, 0], [0, 0, 1]])
    shift = np.array([[1, 0, shift_x], [0, 1, shift_y], [0, 0, 1]])
    made: Matrix = shift @ shear @ rotate @ perspective @ to_middle
    return made


def flips(config: AugmentConfig, size: int, rng: np.random.Generator) -> Matrix:
    """Return the matrix that flips `size` x `size` pixels at random; as part of the map it costs nothing."""
    upside_down, mirrored = rng.random(2) < (config.flipud, config.fliplr)
    matrix = np.eye(3)
    if mirrored:
        matrix[0] = -1, 0, size
    if upside_down:
        matrix[1] = 0, -1, size
    return matrix


def mixup(a: Labelled, b: Labelled, share: float) -> Labelled:
    """Return `share` of `a` over `1 - share` of `b`, with the labels of both (Zhang et al. 2018)."""
    outlines = None if a.outlines is None or b.outlines is None else a.outlines + b.outlines
    image: Image = cv2.addWeighted(a.image, share, b.image, 1 - share, 0)  # type: ignore[assignment]
    return Labelled(image, np.concatenate([a.boxes, b.boxes]), np.concatenate([a.class_ids, b.class_ids]), outlines)


def copy_paste(item: Labelled, share: float, rng: np.random.Generator) -> Labelled:
    """Return `item` with a `share` of its outlined objects pasted again, mirrored (after Ghiasi et al. 2021).

    An object is left out where it would hide 30 % or more of another. Without outlines nothing is pasted.
    """
    if not item.outlines:
        return item
    width = item.image.shape[1]
    boxes, class_ids, outlines = item.boxes, item.class_ids, list(item.outlines)
    cover = np.zeros(item.image.shape[:2], np.uint8)
    for row in rng.choice(len(outlines), round(share * len(outlines)), replace=False):
        x1, y1, x2, y2 = item.boxes[row]
        box = np.array([width - x2, y1, width - x1, y2], np.float32)
        hidden = np.concatenate([np.maximum(box[:2], boxes[:, :2]), np.minimum(box[2:], boxes[:, 2:])], axis=1)
        if (area(hidden) >= MAX_PASTE_COVER * area(boxes)).any():
            continue
        outline = tuple(np.stack([width - part[:, 0], part[:, 1]], axis=1) for part in item.outlines[row])
        draw_outline(cover, outline, 255)
        boxes, class_ids = np.concatenate([boxes, box[None]]), np.append(class_ids, item.class_ids[row])
        outlines.append(outline)
    if len(outlines) == len(item.outlines):
        return item
    image = item.image.copy()
    cv2.copyTo(cv2.flip(item.image, 1), cover, image)
    return Labelled(image, boxes, class_ids, tuple(outlines))


def hsv_gains(config: AugmentConfig, rng: np.random.Generator) -> tuple[float, float, float]:
    """Return the factors for hue, saturation and value, each 1 ± up to its range."""
    hue, saturation, value = 1 + rng.uniform(-1, 1, 3) * (config.hsv_h, config.hsv_s, config.hsv_v)
    return float(hue), float(saturation), float(value)


def hsv(image: Image, hue: float, saturation: float, value: float) -> Image:
    """Return `image` with hue, saturation and value multiplied; hue goes round, the others stop at 255."""
    if hue == saturation == value == 1:
        return image
    steps = np.arange(256)
    tables = np.stack(
        [np.rint(steps * hue) % 180, *(np.minimum(np.rint(steps * gain), 255) for gain in (saturation, value))], -1
    )
    planes = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
    cv2.LUT(planes, tables[None].astype(np.uint8), planes)
    return cv2.cvtColor(planes, cv2.COLOR_HSV2RGB, planes)  # type: ignore[return-value]


def _with_partners(index: int, count: int, rng: np.random.Generator) -> list[int]:
    return [index, *(int(row) for row in rng.integers(count, size=3))]
