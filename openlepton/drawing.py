"""Draw a result on its image: boxes with name tags, masks, or a panel of the most probable classes."""

from collections.abc import Sequence
from functools import lru_cache
from importlib.resources import files
from io import BytesIO
from math import ceil
from threading import Lock
from typing import TYPE_CHECKING, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from openlepton.arrays import Array, Image
from openlepton.errors import ShapeError, UsageError
from openlepton.results import Classification, Detections

if TYPE_CHECKING:
    from PIL.ImageFont import FreeTypeFont

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
CROWD = 30
"""More detections than this get smaller letters."""

Color = tuple[int, int, int]
Rectangle = tuple[int, int, int, int]
"""x1, y1, x2, y2 in whole pixels, the last two exclusive."""

_FONT_FILE = "sans.ttf"
_TEXT_LIMIT = 80  # characters; nobody reads more on a tag
_LEAST_FONT = 11  # pixels; smaller Chinese characters cannot be told apart
_PANEL, _BEST_BAR, _OTHER_BAR = (18, 20, 26), (0, 114, 178), (84, 96, 116)
_BLACK = (0, 0, 0)
_WHITE = (255, 255, 255)
_FREETYPE = Lock()  # a FreeType face must not be used by two threads at once


class _Layer(NamedTuple):
    """What is mixed into an image, `(h, w, 3)`, in 256ths."""

    paint: NDArray[np.uint16]
    """The colour times its share, and one half to round with."""
    rest: NDArray[np.uint16]
    """The share of what is there already."""


class _Tag(NamedTuple):
    shape: tuple[int, int]
    """Height and width, pixels."""
    color: Color
    radius: int
    letters: _Layer


def draw(
    image: Image,
    result: Detections | Classification,
    *,
    names: Sequence[str] | None = None,
    line_width: int | None = None,
    font_size: int | None = None,
) -> Image:
    """Return a copy of `image`, `(H, W, 3)` RGB uint8, with `result` drawn on it; `image` itself is left alone.

    An image too small for letters gets boxes alone.

    Args:
        image: The picture that `result` is about.
        result: Detections become boxes with tags, best on top; a classification becomes a panel at the lower left.
        names: Class names by class id, instead of the model's own: another language, for one.
        line_width: Of boxes and contours, pixels; by default it follows the size of the image.
        font_size: Height of the letters, pixels; by default it follows the size of the image.

    Raises:
        ShapeError: `image` is not RGB uint8, or not of the size that `result` is about.
        UsageError: `result` is no result, `names` does not name every class, or a size is not a whole number above zero.
    """
    if not isinstance(result, (Detections, Classification)):
        raise UsageError(f"result: expected Detections or Classification, got {type(result).__name__}")
    if not isinstance(image, np.ndarray) or image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        found = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
        raise ShapeError(f"image: expected (H, W, 3) RGB uint8, got {found}")
    for what, value in (("line_width", line_width), ("font_size", font_size)):
        if value is not None and (not isinstance(value, (int, np.integer)) or value < 1):
            raise UsageError(f"{what}: expected a whole number of pixels above zero, got {value!r}")
    if names is not None and len(names) != len(result.names):
        raise UsageError(f"names: expected {len(result.names)}, one for each class, got {len(names)}")
    names = result.names if names is None else names
    side = float(np.sqrt(image.shape[0] * image.shape[1]))
    size = font_size or max(_LEAST_FONT, round(6 + side / 80))
    canvas = np.array(image, order="C")
    if isinstance(result, Classification):
        _draw_panel(canvas, result, names, size)
        return canvas
    if image.shape[:2] != tuple(result.image_hw):
        raise ShapeError(f"image: the result is about {_by(result.image_hw)} pixels, this image has {_by(image.shape)}")
    if font_size is None and len(result) > CROWD:
        size = max(_LEAST_FONT, round(size * 0.75))
    _draw_detections(canvas, result, names, line_width or max(1, round(1 + side / 450)), size)
    return canvas


def _draw_detections(canvas: Image, found: Detections, names: Sequence[str], width: int, size: int) -> None:
    boxes = [_inside(box, canvas) for box in found.boxes]
    order = [int(row) for row in np.argsort(found.scores, kind="stable") if boxes[row] is not None]
    colors = [PALETTE[int(index) % len(PALETTE)] for index in found.class_ids]
    if found.masks is not None:
        for row in order:
            _draw_mask(canvas, found.masks[row], colors[row], width)
    for row in order:
        box = boxes[row]
        assert box is not None
        _draw_box(canvas, box, colors[row], width)
    tags: list[tuple[Image, _Tag]] = []
    taken = np.empty((len(order), 4), np.int64)
    for row in reversed(order):  # the best choose their places first
        box = boxes[row]
        assert box is not None
        track = "" if found.track_ids is None else f"#{found.track_ids[row]} "
        score = f" {found.scores[row]:.0%}"
        tag = _tag(track, names[found.class_ids[row]], score, size, colors[row], canvas.shape[1])
        if tag is None or tag.shape[0] > len(canvas):
            continue
        h, w = tag.shape
        x, y = _place(box, (h, w), taken[: len(tags)], canvas.shape, width)
        taken[len(tags)] = (x, y, x + w, y + h)
        tags.append((canvas[y : y + h, x : x + w], tag))
    for region, tag in reversed(tags):
        _fill(region, tag.color, tag.radius)
        _mix(region, tag.letters)


def _inside(box: Array, canvas: Image) -> Rectangle | None:
    """Return the pixels of the image that `box` covers, at least one; None where it lies outside or is not a number."""
    height, width = canvas.shape[:2]
    x1, y1, x2, y2 = (float(value) for value in box)
    if not (x1 <= x2 and y1 <= y2 and x1 < width and y1 < height and x2 > 0 and y2 > 0):
        return None
    left, top = int(max(x1, 0)), int(max(y1, 0))
    return left, top, max(ceil(min(x2, width)), left + 1), max(ceil(min(y2, height)), top + 1)


def _draw_mask(canvas: Image, mask: NDArray[np.bool_], color: Color, width: int) -> None:
    pixels = mask.view(np.uint8)
    x, y, w, h = cv2.boundingRect(pixels)
    if w == 0:
        return
    part, region = np.ascontiguousarray(pixels[y : y + h, x : x + w]), canvas[y : y + h, x : x + w]
    levels = np.arange(256)[:, None] * (1 - MASK_OPACITY) + np.array(color) * MASK_OPACITY
    region[:] = cv2.copyTo(cv2.LUT(region, np.rint(levels).astype(np.uint8)[None]), part, region.copy())
    contours, _ = cv2.findContours(part, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(canvas, contours, -1, color, width, cv2.LINE_AA, offset=(x, y))


def _draw_box(canvas: Image, box: Rectangle, color: Color, width: int) -> None:
    """Draw a frame inside `box`, and a thin shadow on both sides of it that keeps it visible on its own colour."""
    x1, y1, x2, y2 = box
    shorter = min(x2 - x1, y2 - y1)
    width = max(1, min(width, shorter // 4))
    radius = min(3 * width, shorter // 2)
    rim = min(max(1, width // 3), radius)
    height, breadth = canvas.shape[:2]
    around = (max(x1 - rim, 0), max(y1 - rim, 0), min(x2 + rim, breadth), min(y2 + rim, height))
    _draw_frame(canvas, around, _BLACK, width + 2 * rim, radius + rim, SHADOW_OPACITY)
    _draw_frame(canvas, box, color, width, radius, 1.0)


def _draw_frame(canvas: Image, box: Rectangle, color: Color, width: int, radius: int, opacity: float) -> None:
    """Draw a frame inside `box`: straight sides are exact pixels, rounded corners are anti-aliased."""
    x1, y1, x2, y2 = box
    radius = min(radius, (x2 - x1) // 2, (y2 - y1) // 2)
    width = max(1, min(width, radius))
    for y in (slice(y1, y1 + width), slice(y2 - width, y2)):
        _paint(canvas[y, x1 + radius : x2 - radius], color, opacity)
    for x in (slice(x1, x1 + width), slice(x2 - width, x2)):
        _paint(canvas[y1 + radius : y2 - radius, x], color, opacity)
    corner = _corner(color, radius, width, opacity)
    for rows, y in ((1, slice(y1, y1 + radius)), (-1, slice(y2 - radius, y2))):
        for columns, x in ((1, slice(x1, x1 + radius)), (-1, slice(x2 - radius, x2))):
            _mix(canvas[y, x], _Layer(corner.paint[::rows, ::columns], corner.rest[::rows, ::columns]))


def _fill(region: Image, color: Color, radius: int, opacity: float = 1.0) -> None:
    """Fill `region` but for its corners, which are rounded."""
    h, w = region.shape[:2]
    radius = min(radius, h // 2, w // 2)
    _draw_frame(region, (0, 0, w, h), color, radius, radius, opacity)
    _paint(region[radius : h - radius, radius : w - radius], color, opacity)


def _paint(region: Image, color: Color, opacity: float) -> None:
    if opacity == 1:
        region[:] = color
    else:
        _mix(region, _wash(color, opacity))


@lru_cache(maxsize=16)
def _wash(color: Color, opacity: float) -> _Layer:
    return _layer(color, np.full((1, 1), opacity))


@lru_cache(maxsize=256)
def _corner(color: Color, radius: int, width: int, opacity: float) -> _Layer:
    return _layer(color, _arc(radius, width) * opacity)


def _arc(radius: int, width: int) -> Array:
    """Return how much of each pixel, 0..1, an arc around the lower right of a `(radius, radius)` square covers."""
    points = (np.arange(radius * 8) + 0.5) / 8 - radius
    distance = np.hypot(points[:, None], points[None])
    ring = (distance <= radius) & (distance >= radius - width)
    cover: Array = ring.reshape(radius, 8, radius, 8).sum((1, 3)) / 64
    return cover


def _layer(paint: Array | Color, opacity: Array) -> _Layer:
    """Return the layer of a colour, or of `(h, w, 3)` pixels, with `opacity`, `(h, w)` 0..1."""
    share = np.rint(opacity * 256).astype(np.uint16)[..., None].repeat(3, axis=2)
    layer = _Layer(np.asarray(paint, np.uint16) * share + np.uint16(128), 256 - share)
    for part in layer:
        part.flags.writeable = False
    return layer


def _mix(region: Image, layer: _Layer) -> None:
    """Mix `layer` into `region`, `(h, w, 3)`, in place."""
    mixed = region * layer.rest
    mixed += layer.paint
    mixed >>= 8
    region[:] = mixed


def _place(box: Rectangle, tag: tuple[int, ...], taken: Array, image: tuple[int, ...], width: int) -> tuple[int, int]:
    """Return x and y for a tag, inside the image, where it hides the least of the tags that are placed already."""
    x1, y1, x2, y2 = box
    h, w = tag[:2]
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
    if _length(track + score, size) > room / 2:
        track = score = ""
    name = _shorten(name, ceil(room - 2 * pad - _length(track + score, size)), size)
    if not name:
        return None
    ascent, descent = _extent(size)
    rise = max(2, pad // 2)
    shape = ascent + descent + 2 * rise, min(room, ceil(_length(track + name + score, size)) + 2 * pad)
    texts = [
        (track, pad, 0.8),
        (name, pad + round(_length(track, size)), 1.0),
        (score, pad + round(_length(track + name, size)), 0.8),
    ]
    ink = _BLACK if _luminance(color) > 0.179 else _WHITE  # where both contrast equally (WCAG 2)
    return _Tag(shape, color, max(2, size // 5), _layer(ink, _written(shape, texts, rise + ascent, size)))


def _draw_panel(canvas: Image, result: Classification, names: Sequence[str], size: int) -> None:
    """Draw the most probable classes at the lower left, in as many rows as the lower half has room for."""
    height, width = canvas.shape[:2]
    row, gap, pad = round(size * 1.65), max(1, size // 6), round(size * 0.5)
    margin = pad if width > 16 * size else 0
    count = min(CLASSES_SHOWN, len(result.scores), (height // 2 - 2 * pad - margin + gap) // (row + gap))
    breadth = min(width - 2 * margin, 22 * size)
    if count < 1 or breadth < 8 * size:
        return
    tall = count * (row + gap) - gap + 2 * pad
    panel = canvas[height - margin - tall : height - margin, margin : margin + breadth]
    _fill(panel, _PANEL, size // 2, PANEL_OPACITY)
    for place, index in enumerate(np.argsort(-result.scores, kind="stable")[:count]):
        top = pad + place * (row + gap)
        line = panel[top : top + row, pad : breadth - pad]
        score = float(result.scores[index])
        _draw_bar(line, names[index], score, size, _BEST_BAR if place == 0 else _OTHER_BAR)


def _draw_bar(line: Image, name: str, score: float, size: int, color: Color) -> None:
    """Draw one class into `line`: a bar as long as it is probable, its name on it, and the number at the right."""
    row, breadth = line.shape[:2]
    filled = max(1, round(breadth * min(1.0, max(0.0, score))))
    _fill(line, _WHITE, size // 5, 0.07)
    _fill(line[:, :filled], color, size // 5)
    ascent, descent = _extent(size)
    pad, baseline = round(size * 0.4), (row - ascent - descent) // 2 + ascent
    percent = f"{score:.1%}"
    right = breadth - pad - ceil(_length(percent, size))
    texts = [(_shorten(name, right - pad - size, size), pad, 1.0), (percent, right, 1.0)]
    _mix(line, _layer(_WHITE, _written(line.shape, texts, baseline, size)))


def _shorten(text: str, room: float, size: int) -> str:
    """Return `text` in one line, at most `room` pixels long, with an ellipsis where some was left out."""
    text = " ".join(text.split())
    if len(text) <= _TEXT_LIMIT and _length(text, size) <= room:
        return text
    text = text[:_TEXT_LIMIT]
    while text and _length(text.rstrip() + "...", size) > room:
        text = text[:-1]
    return text.rstrip() + "..." if text else ""


def _written(shape: tuple[int, ...], texts: Sequence[tuple[str, int, float]], baseline: int, size: int) -> Array:
    """Return the opacity, `(h, w)` 0..1, of `texts`, each with its x and its strength, on one line."""
    plate = np.zeros(shape[:2], np.float32)
    for text, x, strength in texts:
        letters, left, above = _letters(text, size)
        h, w = letters.shape
        x, y = max(0, x + left), max(0, baseline - above)
        into = plate[y : y + h, x : x + w]
        into += letters[: into.shape[0], : into.shape[1]] * np.float32(strength / 255)
    return plate


@lru_cache(maxsize=512)
def _letters(text: str, size: int) -> tuple[NDArray[np.uint8], int, int]:
    """Return `text` in white on black, `(h, w)`, and where it begins: right of the pen, above the baseline."""
    from PIL import Image as PillowImage
    from PIL import ImageDraw

    with _FREETYPE:
        left, top, right, bottom = (int(value) for value in _font(size).getbbox(text, anchor="ls"))
        plate = PillowImage.new("L", (right - left, bottom - top))
        ImageDraw.Draw(plate).text((-left, -top), text, fill=255, font=_font(size), anchor="ls")
    return np.asarray(plate), left, -top


@lru_cache(maxsize=4096)
def _length(text: str, size: int) -> float:
    with _FREETYPE:
        return float(_font(size).getlength(text))


@lru_cache(maxsize=64)
def _extent(size: int) -> tuple[int, int]:
    """Return how far letters reach above and below the baseline, pixels."""
    with _FREETYPE:
        _, top, _, bottom = _font(size).getbbox("Hg国", anchor="ls")
    return -int(top), int(bottom)


@lru_cache(maxsize=8)
def _font(size: int) -> "FreeTypeFont":
    from PIL import ImageFont

    data = (files("openlepton") / "assets" / _FONT_FILE).read_bytes()
    return ImageFont.truetype(BytesIO(data), size, layout_engine=ImageFont.Layout.BASIC)


def _luminance(color: Color) -> float:
    """Return the relative luminance of an sRGB colour, 0..1 (WCAG 2)."""
    parts = [part / 255 for part in color]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def _by(shape: Sequence[int]) -> str:
    return f"{shape[1]}x{shape[0]}"
