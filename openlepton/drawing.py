"""Draw a result on its image: boxes with name tags, masks, classes of pixels with a legend, or a panel of probable classes."""

from collections.abc import Sequence
from functools import lru_cache
from math import ceil
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from openlepton.arrays import Array, ClassMap, Image
from openlepton.errors import ShapeError, UsageError
from openlepton.lettering import LEAST_FONT, extent, length, shorten, written
from openlepton.ops.masks import Rle
from openlepton.results import Classification, Detections, Segmentation

__all__ = ["PALETTE", "draw"]

PALETTE = (
    (230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0), (204, 121, 167), (77, 254, 249),
    (55, 137, 253), (254, 172, 158), (53, 220, 235), (140, 255, 167), (182, 53, 144), (201, 47, 54), (243, 88, 104),
    (55, 209, 108), (53, 103, 222), (26, 149, 216), (73, 162, 254), (34, 237, 209), (252, 133, 173), (181, 213, 25),
    (48, 200, 204), (194, 45, 109),
)  # fmt: skip
"""RGB of the classes, by class id and then again from the start.

The first seven are Okabe and Ito's ("Color Universal Design", 2008). Each of the others is the colour that lies farthest from
all before it, in Oklab, as seen with normal vision, protanopia and deuteranopia, whichever is nearest.
"""

MASK_OPACITY = 0.45
SHADOW_OPACITY = 0.35
PANEL_OPACITY = 0.8
CLASSES_SHOWN = 5
LEGEND_SHOWN = 12
CROWD = 30  # more detections than this get smaller letters
MASKED_ROOM = 0.25  # of an object with a mask, in a crowd, that a tag may cover

Color = tuple[int, int, int]
Rectangle = tuple[int, int, int, int]
"""x1, y1, x2, y2 in whole pixels, the last two exclusive."""

_PANEL, _BEST_BAR, _OTHER_BAR = (18, 20, 26), (0, 114, 178), (84, 96, 116)
_WHITE = (255, 255, 255)


class _Layer(NamedTuple):
    """What is mixed into an image, `(h, w, 3)`, in 256ths."""

    paint: NDArray[np.uint16]
    """The colour times its share, and one half to round with."""
    rest: NDArray[np.uint16]
    """The share of what is there already."""


class _Tag(NamedTuple):
    pixels: Image
    color: Color
    radius: int


def draw(
    image: Image,
    result: Detections | Classification | Segmentation,
    *,
    names: Sequence[str] | None = None,
    line_width: int | None = None,
    font_size: int | None = None,
) -> Image:
    """Return a copy of `image`, `(H, W, 3)` RGB uint8, with `result` drawn on it; `image` itself is left alone.

    An image too small for letters gets boxes alone.

    Args:
        image: The picture that `result` is about.
        result: Detections become boxes with tags, best on top; a classification becomes a panel at the lower left, a
            segmentation becomes colours, but for its background, and a legend there.
        names: Class names by class id, instead of the model's own: another language, for one.
        line_width: Of boxes and contours, pixels; by default it follows the size of the image.
        font_size: Height of the letters, pixels; by default it follows the size of the image.

    Raises:
        ShapeError: `image` is not RGB uint8, or not of the size that `result` is about.
        UsageError: `result` is no result, `names` does not name every class, or a size is not a whole number above zero.
    """
    if not isinstance(result, (Detections, Classification, Segmentation)):
        raise UsageError(f"result: expected Detections, Classification or Segmentation, got {type(result).__name__}")
    if not isinstance(image, np.ndarray) or image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        found = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
        raise ShapeError(f"image: expected (H, W, 3) RGB uint8, got {found}")
    for what, value in (("line_width", line_width), ("font_size", font_size)):
        if value is not None and (not isinstance(value, (int, np.integer)) or value < 1):
            raise UsageError(f"{what}: expected a whole number of pixels above zero, got {value!r}")
    names = result.names if names is None else names
    if len(names) != len(result.names):
        raise UsageError(f"names: expected {len(result.names)}, one for each class, got {len(names)}")
    side = float(np.sqrt(image.shape[0] * image.shape[1]))
    size = font_size or max(LEAST_FONT, round(6 + side / 80))
    canvas = np.array(image, order="C")
    if isinstance(result, Classification):
        _draw_panel(canvas, result, names, size)
        return canvas
    if image.shape[:2] != tuple(result.image_hw):
        (height, width), (h, w) = result.image_hw, image.shape[:2]
        raise ShapeError(f"image: the result is about {width}x{height} pixels, this image has {w}x{h}")
    if isinstance(result, Segmentation):
        _draw_classes(canvas, result.class_map, result.background)
        _draw_legend(canvas, result, names, size)
        return canvas
    if font_size is None and len(result) > CROWD:
        size = max(LEAST_FONT, round(size * 0.75))
    _draw_detections(canvas, result, names, line_width or max(1, round(1 + side / 450)), size)
    return canvas


def _draw_detections(canvas: Image, found: Detections, names: Sequence[str], width: int, size: int) -> None:
    ranked = ((int(row), _inside(found.boxes[row], canvas)) for row in np.argsort(found.scores, kind="stable"))
    boxes = {row: box for row, box in ranked if box is not None}  # the best come last, and so on top
    # Masks of a single class: each object has a colour of its own, so that one sees where two touch.
    hues = found.class_ids if found.masks is None or len(names) > 1 else np.arange(len(found))
    colors = [PALETTE[int(index) % len(PALETTE)] for index in hues]
    if found.masks is not None:
        for row in boxes:
            _draw_mask(canvas, found.masks[row], colors[row], width)
    labels = {row: _label_of(found, row, names, size, colors[row], canvas) for row in boxes}
    hiding = set[int]()
    if len(found) > CROWD:  # a tag larger than its object would hide the neighbours; a mask then needs no frame either
        room = 1 if found.masks is None else MASKED_ROOM
        hiding = {
            row for row, tag in labels.items() if tag is not None and tag.pixels[..., 0].size > _area(boxes[row]) * room
        }
    for row, box in boxes.items():
        if row not in hiding or found.masks is None:
            _draw_box(canvas, box, colors[row], width)
    tags: list[tuple[Image, _Tag]] = []
    taken = np.empty((len(boxes), 4), np.int64)
    for row, box in reversed(boxes.items()):  # the best choose their places first
        tag = labels[row]
        if tag is None or row in hiding:
            continue
        h, w = tag.pixels.shape[:2]
        x, y = _place(box, (h, w), taken[: len(tags)], canvas.shape, width)
        taken[len(tags)] = (x, y, x + w, y + h)
        tags.append((canvas[y : y + h, x : x + w], tag))
    for region, tag in reversed(tags):
        _mix_corners(region, tag.color, tag.radius, 1.0)
        for part in _cross(region, tag.radius):
            region[part] = tag.pixels[part]


def _label_of(found: Detections, row: int, names: Sequence[str], size: int, color: Color, canvas: Image) -> _Tag | None:
    """Return the tag of one detection; None where the image is too small for it."""
    track = "" if found.track_ids is None else f"#{found.track_ids[row]} "
    score = f" {found.scores[row]:.0%}"
    tag = _tag(track, names[found.class_ids[row]], score, size, color, canvas.shape[1])
    return None if tag is None or len(tag.pixels) > len(canvas) else tag


def _area(box: Rectangle) -> int:
    return (box[2] - box[0]) * (box[3] - box[1])


def _inside(box: Array, canvas: Image) -> Rectangle | None:
    """Return the pixels of the image that `box` covers, at least one; None where it lies outside or is not a number."""
    height, width = canvas.shape[:2]
    x1, y1, x2, y2 = (float(value) for value in box)
    if not (x1 <= x2 and y1 <= y2 and x1 < width and y1 < height and x2 > 0 and y2 > 0):
        return None
    left, top = int(max(x1, 0)), int(max(y1, 0))
    return left, top, max(ceil(min(x2, width)), left + 1), max(ceil(min(y2, height)), top + 1)


def _draw_mask(canvas: Image, mask: Rle, color: Color, width: int) -> None:
    pixels, (x, y) = mask.part()
    h, w = pixels.shape
    if w == 0:
        return
    part, region = np.ascontiguousarray(pixels).view(np.uint8), canvas[y : y + h, x : x + w]
    levels = np.arange(256)[:, None] * (1 - MASK_OPACITY) + np.array(color) * MASK_OPACITY
    region[:] = cv2.copyTo(cv2.LUT(region, np.rint(levels).astype(np.uint8)[None]), part, region.copy())
    contours, _ = cv2.findContours(part, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(canvas, contours, -1, color, width, cv2.LINE_AA, offset=(x, y))


def _draw_box(canvas: Image, box: Rectangle, color: Color, width: int) -> None:
    """Draw a frame inside `box`, and on both sides of it a thin shadow that keeps it visible on its own colour."""
    x1, y1, x2, y2 = box
    shorter = min(x2 - x1, y2 - y1)
    width = max(1, min(width, shorter // 4))
    radius = min(3 * width, shorter // 2)
    rim = max(1, width // 3)
    size, across, shadow = radius + rim, width + 2 * rim, _shadow(SHADOW_OPACITY)
    for y in (y1 - rim, y2 + rim - across):
        _stamp(canvas, x1 + radius, y, x2 - x1 - 2 * radius, across, shadow)
        canvas[y + rim : y + rim + width, x1 + radius : x2 - radius] = color
    for x in (x1 - rim, x2 + rim - across):
        _stamp(canvas, x, y1 + radius, across, y2 - y1 - 2 * radius, shadow)
        canvas[y1 + radius : y2 - radius, x + rim : x + rim + width] = color
    corner = _corner(color, radius, width, rim)
    for rows, y in ((1, y1 - rim), (-1, y2 + rim - size)):
        for columns, x in ((1, x1 - rim), (-1, x2 + rim - size)):
            _stamp(canvas, x, y, size, size, _Layer(*(part[::rows, ::columns] for part in corner)))


def _stamp(canvas: Image, x: int, y: int, w: int, h: int, layer: _Layer) -> None:
    """Mix `layer`, `(h, w, 3)` or a single value, into the image at x, y; what reaches beyond the image is left out."""
    left, top, right, bottom = max(x, 0), max(y, 0), min(x + w, canvas.shape[1]), min(y + h, canvas.shape[0])
    if layer.rest.size > 1:
        layer = _Layer(*(part[top - y : bottom - y, left - x : right - x] for part in layer))
    _mix(canvas[top:bottom, left:right], layer)


@lru_cache(maxsize=1)
def _shadow(opacity: float) -> _Layer:
    """Return black of any size: `(1, 1, 1)`."""
    return _Layer(np.full((1, 1, 1), 128, np.uint16), np.full((1, 1, 1), round(256 * (1 - opacity)), np.uint16))


@lru_cache(maxsize=256)
def _corner(color: Color, radius: int, width: int, rim: int) -> _Layer:
    """Return the upper left corner of a frame, `(radius + rim, radius + rim, 3)`."""
    frame = _ring(radius + rim, radius, radius - width)
    shaded = _ring(radius + rim, radius + rim, radius - width - rim)
    return _layer(color, frame, (1 - frame) * (1 - shaded * SHADOW_OPACITY))


def _fill(region: Image, color: Color, radius: int, opacity: float = 1.0) -> None:
    """Mix a colour into `region`, with round corners."""
    radius = min(radius, region.shape[0] // 2, region.shape[1] // 2)
    _mix_corners(region, color, radius, opacity)
    for part in _cross(region, radius):
        _mix(region[part], _disc(color, 0, opacity))


def _mix_corners(region: Image, color: Color, radius: int, opacity: float) -> None:
    if radius == 0:
        return
    h, w = region.shape[:2]
    disc = _disc(color, radius, opacity)
    for rows, y in ((1, slice(0, radius)), (-1, slice(h - radius, h))):
        for columns, x in ((1, slice(0, radius)), (-1, slice(w - radius, w))):
            _mix(region[y, x], _Layer(*(part[::rows, ::columns] for part in disc)))


def _cross(region: Image, radius: int) -> tuple[tuple[slice, slice], ...]:
    """Return what remains of `region` without its corners: the middle, the left and the right."""
    h, w = region.shape[:2]
    rows = slice(radius, h - radius)
    return (slice(None), slice(radius, w - radius)), (rows, slice(0, radius)), (rows, slice(w - radius, w))


@lru_cache(maxsize=64)
def _disc(color: Color, radius: int, opacity: float) -> _Layer:
    """Return the upper left quarter of a disc, `(radius, radius, 3)`, or one pixel of it where `radius` is 0."""
    if radius == 0:
        return _layer(color, np.full((1, 1), opacity))
    return _layer(color, _ring(radius, radius, 0) * opacity)


def _ring(size: int, outer: int, inner: int) -> Array:
    """Return how much of each pixel, `(size, size)` 0..1, a ring around the lower right corner covers."""
    points = (np.arange(size * 8) + 0.5) / 8 - size
    distance = np.hypot(points[:, None], points[None])
    cover: Array = ((distance <= outer) & (distance >= inner)).reshape(size, 8, size, 8).mean((1, 3))
    return cover


def _layer(color: Color, opacity: Array, rest: Array | None = None) -> _Layer:
    """Return a layer of `color` with `opacity` 0..1, which leaves `rest`, or what `opacity` leaves, of what is there."""
    share = np.rint(opacity * 256).astype(np.uint16)[..., None].repeat(3, axis=-1)
    kept = 256 - share
    if rest is not None:
        kept = np.minimum(kept, np.rint(rest * 256).astype(np.uint16)[..., None])
    return _Layer(np.asarray(color, np.uint16) * share + np.uint16(128), kept)


def _mix(region: Image, layer: _Layer) -> None:
    """Mix `layer` into `region`, `(h, w, 3)`, in place."""
    mixed = region * layer.rest
    mixed += layer.paint
    mixed >>= 8
    region[:] = mixed


def _place(box: Rectangle, tag: tuple[int, int], taken: Array, image: tuple[int, ...], width: int) -> tuple[int, int]:
    """Return x and y for a tag, inside the image, where it hides the least of the tags that are placed already."""
    x1, y1, x2, y2 = box
    h, w = tag
    above, below, top, bottom = y1 - h + width, y2 - width, y1, y2 - h
    roomy = x2 - x1 >= w and y2 - y1 >= 3 * h  # a tag inside hides little of the object
    near, far = ((above, top, below, bottom), (above, top)) if roomy else ((above, below, top, bottom), (above, below))
    wanted = np.array([(x1, y) for y in near] + [(x2 - w, y) for y in far])
    corners = np.maximum(np.minimum(wanted, (image[1] - w, image[0] - h)), 0)
    cost = np.abs(wanted[:, 1] - corners[:, 1]) * w
    if len(taken):
        low = np.maximum(corners[:, None], taken[None, :, :2])
        high = np.minimum(corners[:, None] + (w, h), taken[None, :, 2:])
        hidden = np.maximum(high - low, 0)
        cost += (hidden[..., 0] * hidden[..., 1]).sum(axis=1)
    x, y = corners[cost.argmin()]
    return int(x), int(y)


def _tag(track: str, name: str, score: str, size: int, color: Color, room: int) -> _Tag | None:
    """Return a name tag, at most `room` wide; None if not a letter would fit."""
    pad = max(2, round(size * 0.35))
    if length(track + score, size) > room / 2:
        track = score = ""
    name = shorten(name, ceil(room - 2 * pad - length(track + score, size)), size)
    if not name:
        return None
    ascent, descent = extent(size)
    rise = max(2, pad // 2)
    shape = ascent + descent + 2 * rise, min(room, ceil(length(track + name + score, size)) + 2 * pad)
    second, third = (pad + round(length(part, size)) for part in (track, track + name))
    texts = [(track, pad, 204), (name, second, 255), (score, third, 204)]
    ink = (0, 0, 0) if _luminance(color) > 0.179 else _WHITE  # where both contrast equally (WCAG 2)
    return _Tag(_ramp(color, ink).take(written(shape, texts, rise + ascent, size), axis=0), color, max(2, size // 5))


@lru_cache(maxsize=64)
def _ramp(paper: Color, ink: Color) -> Image:
    """Return `(256, 3)`, what lies between two colours."""
    share = np.arange(256)[:, None] / 255
    return np.rint(np.array(paper) * (1 - share) + np.array(ink) * share).astype(np.uint8)


def _draw_classes(canvas: Image, class_map: ClassMap, background: int | None) -> None:
    """Mix into every pixel the colour of its class, but for the background."""
    colors = np.array([PALETTE[index % len(PALETTE)] for index in range(256)], np.uint8)[None]  # (1, 256, 3)
    paint = cv2.LUT(cv2.merge([class_map] * 3), colors)
    mixed = cv2.addWeighted(canvas, 1 - MASK_OPACITY, paint, MASK_OPACITY, 0)
    shown = np.full(class_map.shape, 255, np.uint8) if background is None else (class_map != background).view(np.uint8)
    cv2.copyTo(mixed, shown, canvas)


def _draw_legend(canvas: Image, result: Segmentation, names: Sequence[str], size: int) -> None:
    """Draw the colours, names and shares of the classes that are there, but for the background."""
    areas = result.areas / result.class_map.size
    rows = [(index, names[index], f"{areas[index]:.1%}") for index in result.present() if index != result.background]
    if not rows:
        return
    widest = max(length(f"{name}  {share}", size) for _, name, share in rows)
    side = round(size * 0.9)
    lines = _panel(canvas, min(len(rows), LEGEND_SHOWN), ceil(widest) + side + 2 * size, size)
    ascent, descent = extent(size)
    for line, (index, name, share) in zip(lines, rows, strict=False):
        row, breadth = line.shape[:2]
        top, left = (row - side) // 2, side + round(size * 0.5)
        _fill(line[top : top + side, :side], PALETTE[index % len(PALETTE)], size // 5)
        right = breadth - ceil(length(share, size))
        texts = [(shorten(name, right - left - size // 2, size), left, 255), (share, right, 204)]
        _mix(line, _layer(_WHITE, written(line.shape, texts, (row - ascent - descent) // 2 + ascent, size) / 255))


def _panel(canvas: Image, count: int, breadth: int, size: int) -> list[Image]:
    """Draw a dark panel at the lower left and return its lines, at most `count`, as many as the lower half has room for."""
    height, width = canvas.shape[:2]
    row, gap, pad = round(size * 1.65), max(1, size // 6), round(size * 0.5)
    margin = pad if width > 16 * size else 0
    count = min(count, (height // 2 - 2 * pad - margin + gap) // (row + gap))
    breadth = min(width - 2 * margin, breadth)
    if count < 1 or breadth < 8 * size:
        return []
    tall = count * (row + gap) - gap + 2 * pad
    panel = canvas[height - margin - tall : height - margin, margin : margin + breadth]
    _fill(panel, _PANEL, size // 2, PANEL_OPACITY)
    return [panel[pad + place * (row + gap) :][:row, pad : breadth - pad] for place in range(count)]


def _draw_panel(canvas: Image, result: Classification, names: Sequence[str], size: int) -> None:
    """Draw the most probable classes, each as a bar."""
    lines = _panel(canvas, min(CLASSES_SHOWN, len(result.scores)), 22 * size, size)
    for place, (line, index) in enumerate(zip(lines, np.argsort(-result.scores, kind="stable"), strict=False)):
        _draw_bar(line, names[index], float(result.scores[index]), size, _OTHER_BAR if place else _BEST_BAR)


def _draw_bar(line: Image, name: str, score: float, size: int, color: Color) -> None:
    """Draw one class into `line`: a bar as long as it is probable, its name on it, and the number at the right."""
    row, breadth = line.shape[:2]
    filled = max(1, round(breadth * min(1.0, max(0.0, score))))
    _fill(line, _WHITE, size // 5, 0.07)
    _fill(line[:, :filled], color, size // 5)
    ascent, descent = extent(size)
    pad, baseline = round(size * 0.4), (row - ascent - descent) // 2 + ascent
    percent = f"{score:.1%}"
    right = breadth - pad - ceil(length(percent, size))
    texts = [(shorten(name, right - pad - size, size), pad, 255), (percent, right, 255)]
    _mix(line, _layer(_WHITE, written(line.shape, texts, baseline, size) / 255))


def _luminance(color: Color) -> float:
    """Return the relative luminance of an sRGB colour, 0..1 (WCAG 2)."""
    parts = [part / 255 for part in color]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
