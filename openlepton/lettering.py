"""Letters as arrays: the bundled font, Latin and Chinese, without a layout engine or a window system."""

from collections.abc import Sequence
from functools import lru_cache
from importlib.resources import files
from io import BytesIO
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL.ImageFont import FreeTypeFont

LEAST_FONT = 11
"""Pixels; smaller Chinese characters cannot be told apart."""

_TEXT_LIMIT = 80  # characters; nobody reads more on a tag
_FREETYPE = Lock()  # a FreeType face must not be used by two threads at once


def shorten(text: str, room: float, size: int) -> str:
    """Return `text` in one line, at most `room` pixels long, with an ellipsis where some was left out."""
    text = " ".join(text.split())
    if len(text) <= _TEXT_LIMIT and length(text, size) <= room:
        return text
    text = text[:_TEXT_LIMIT]
    while text and length(text + "...", size) > room:
        text = text[:-1].rstrip()
    return text + "..." if text else ""


def written(
    shape: tuple[int, ...], texts: Sequence[tuple[str, int, int]], baseline: int, size: int
) -> NDArray[np.uint8]:
    """Return the strength, `(h, w)` 0 to 255, of `texts`, each with its x and its greatest strength, on one line."""
    plate = np.zeros(shape[:2], np.uint8)
    for text, x, strength in texts:
        letters, left, above = _letters(text, size, strength)
        into = plate[max(0, baseline - above) :, max(0, x + left) :][: len(letters), : letters.shape[1]]
        np.maximum(into, letters[: len(into), : into.shape[1]], out=into)
    return plate


@lru_cache(maxsize=512)
def _letters(text: str, size: int, strength: int) -> tuple[NDArray[np.uint8], int, int]:
    """Return `text` on black, `(h, w)`, and where it begins: right of the pen, above the baseline."""
    from PIL import Image as PillowImage
    from PIL import ImageDraw

    with _FREETYPE:
        left, top, right, bottom = (int(value) for value in _font(size).getbbox(text, anchor="ls"))
        plate = PillowImage.new("L", (right - left, bottom - top))
        ImageDraw.Draw(plate).text((-left, -top), text, fill=strength, font=_font(size), anchor="ls")
    return np.asarray(plate), left, -top


@lru_cache(maxsize=4096)
def length(text: str, size: int) -> float:
    """Return how wide `text` is in letters of `size` pixels, pixels."""
    with _FREETYPE:
        return float(_font(size).getlength(text))


@lru_cache(maxsize=64)
def extent(size: int) -> tuple[int, int]:
    """Return how far letters reach above and below the baseline, pixels."""
    with _FREETYPE:
        _, top, _, bottom = _font(size).getbbox("Hg国", anchor="ls")
    return -int(top), int(bottom)


@lru_cache(maxsize=8)
def _font(size: int) -> "FreeTypeFont":
    from PIL import ImageFont

    data = (files("openlepton") / "assets" / "sans.ttf").read_bytes()
    return ImageFont.truetype(BytesIO(data), size, layout_engine=ImageFont.Layout.BASIC)
