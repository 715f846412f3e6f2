"""Draws what a video's viewer wants to see beside boxes: zones, lines, trails, labels, a legend. Everything draws in place."""

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from math import ceil

import cv2
import numpy as np
from numpy.typing import NDArray

from openlepton.arrays import Image
from openlepton.lettering import LEAST_FONT, extent, length, shorten, written
from openlepton.video.analytics import Track
from openlepton.video.zones import Line, Points, Zone

Color = tuple[int, int, int]

CALM: Color = (86, 180, 233)
ALERT: Color = (213, 60, 40)
PAPER: Color = (18, 20, 26)
WHITE: Color = (255, 255, 255)

_SHIFT = 4  # OpenCV takes coordinates in sixteenths of a pixel


def font_size(image_hw: tuple[int, int]) -> int:
    """Return a height of letters that suits an image of `image_hw`, pixels."""
    return max(LEAST_FONT, round(6 + float(np.sqrt(image_hw[0] * image_hw[1])) / 80))


def draw_zone(canvas: Image, zone: Zone, *, text: str = "", alert: bool = False) -> None:
    """Tint a zone and write `text` at its top, red if `alert`."""
    points, color = zone.pixels((canvas.shape[0], canvas.shape[1])), ALERT if alert else CALM
    polygon = _fixed(points)
    x1, y1 = np.floor(points.min(axis=0)).astype(int).clip(0)
    x2, y2 = np.ceil(points.max(axis=0)).astype(int) + 1
    part = canvas[y1:y2, x1:x2]
    if not part.size:
        return
    tinted = part.copy()
    cv2.fillPoly(tinted, [polygon - (np.array([x1, y1]) << _SHIFT)], color, cv2.LINE_AA, _SHIFT)
    cv2.addWeighted(tinted, 0.18, part, 0.82, 0, dst=part)
    cv2.polylines(canvas, [polygon], True, color, 2, cv2.LINE_AA, _SHIFT)
    if text:
        top = points[points[:, 1].argmin()]
        draw_label(canvas, text, (round(float(top[0])), round(float(top[1]))), color)


def draw_line(canvas: Image, line: Line, *, text: str = "", alert: bool = False) -> None:
    """Draw a line with an arrow that points to where `in` is, and `text` at its first point."""
    points, color = line.pixels((canvas.shape[0], canvas.shape[1])), ALERT if alert else CALM
    cv2.polylines(canvas, [_fixed(points)], False, color, 2, cv2.LINE_AA, _SHIFT)
    along = points[1] - points[0]
    right = np.array([-along[1], along[0]]) / np.hypot(*along)
    middle = points.mean(axis=0)
    tip = middle + right * 1.5 * font_size((canvas.shape[0], canvas.shape[1]))
    tail, head = _fixed(np.array([middle, tip]))
    cv2.arrowedLine(canvas, tail.tolist(), head.tolist(), color, 2, cv2.LINE_AA, _SHIFT, 0.4)
    if text:
        draw_label(canvas, text, (round(float(points[0][0])), round(float(points[0][1]))), color)


def draw_trail(canvas: Image, track: Track, color: Color) -> None:
    """Draw where the track's foot was."""
    if len(track.times) > 1:
        cv2.polylines(canvas, [_fixed(track.feet)], False, color, 2, cv2.LINE_AA, _SHIFT)


def draw_label(canvas: Image, text: str, at: tuple[int, int], paper: Color, *, size: int | None = None) -> None:
    """Write `text` on a plate of `paper` whose lower left corner is at `at`, moved into the picture where it must be."""
    height, width = canvas.shape[:2]
    size = size or font_size((height, width))
    plate = _plate(shorten(text, width - size, size), size, paper)
    h, w = plate.shape[:2]
    if h > height or w > width:
        return
    x, y = min(max(at[0], 0), width - w), min(max(at[1] - h, 0), height - h)
    canvas[y : y + h, x : x + w] = plate


def draw_panel(canvas: Image, rows: Sequence[tuple[str, Color]]) -> None:
    """Write rows of text, each with a mark of its colour, on a dark panel at the upper left: a legend, or what goes on now."""
    size = font_size((canvas.shape[0], canvas.shape[1]))
    ascent, descent = extent(size)
    step, pad = round(1.5 * (ascent + descent)), size // 2
    room = canvas.shape[1] - 4 * pad - size
    rows = [(shorten(text, room, size), color) for text, color in rows[: max(0, (canvas.shape[0] // 2) // step)]]
    if not rows or room < 4 * size:
        return
    w = min(canvas.shape[1], ceil(max(length(text, size) for text, _ in rows)) + size + 3 * pad)
    panel = canvas[: step * len(rows) + pad, :w]
    panel[:] = (panel * 0.3 + np.array(PAPER) * 0.7).astype(np.uint8)
    for place, (text, color) in enumerate(rows):
        line = panel[pad // 2 + place * step :][:step]
        mark = (step - size) // 2
        line[mark : mark + size, pad : pad + size] = color
        ink = written(line.shape, [(text, 2 * pad + size, 255)], (step - ascent - descent) // 2 + ascent, size)
        _write(line, ink, WHITE)


def counted(counts: Mapping[str, int]) -> str:
    """Return `2 person, 1 car`."""
    return ", ".join(f"{count} {label}" for label, count in counts.items())


def _fixed(points: Points) -> NDArray[np.int32]:
    """Return points as OpenCV takes them, far away ones nearer so that they fit."""
    fixed: NDArray[np.int32] = np.rint(points.clip(-1e5, 1e5) * 2**_SHIFT).astype(np.int32)
    return fixed


@lru_cache(maxsize=128)
def _plate(text: str, size: int, paper: Color) -> Image:
    ascent, descent = extent(size)
    pad = max(2, size // 4)
    shape = (ascent + descent + 2 * pad, ceil(length(text, size)) + 3 * pad)
    plate = np.full((*shape, 3), paper, np.uint8)
    _write(plate, written(shape, [(text, pad + pad // 2, 255)], pad + ascent, size), _ink(paper))
    return plate


def _ink(paper: Color) -> Color:
    return (0, 0, 0) if np.dot(paper, (0.299, 0.587, 0.114)) > 140 else WHITE


def _write(canvas: Image, ink: NDArray[np.uint8], color: Iterable[int]) -> None:
    share = (ink / np.float32(255))[..., None]
    canvas[:] = np.rint(canvas * (1 - share) + np.array(list(color), np.float32) * share).astype(np.uint8)
