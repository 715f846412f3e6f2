"""Where an object is beyond its box: polygons, and masks as the runs that COCO writes.

A mask is read column by column; `counts` are the lengths of its runs, background first. COCO stores them as a list or
as text: each count (from the third on as the difference to the one before the last) in groups of five bits, lowest
first, the sixth bit saying that more follow, plus 48.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from openlepton.arrays import Array, Bools, Ints
from openlepton.errors import DataInvalid

Doubles = NDArray[np.float64]
"""Double-precision numbers: a file that is read and written again says the same numbers."""

Polygons = tuple[Doubles, ...]
"""The parts of one outline, each `(K, 2)` x, y in pixels; `()` where there is none."""

MAX_PIXELS = 1 << 28
"""A mask larger than this is refused before memory is asked for."""


@dataclass(frozen=True, eq=False)
class Rle:
    """A mask as runs, column by column.

    Raises:
        DataInvalid: A run is negative, or the runs do not add up to the size.
    """

    size_hw: tuple[int, int]
    counts: Ints
    """`(K,)` int64 lengths of the runs of background, object, background and so on."""

    def __post_init__(self) -> None:
        height, width = self.size_hw
        if height <= 0 or width <= 0 or height * width > MAX_PIXELS:
            raise DataInvalid(f"mask of {width}x{height} pixels: expected 1 to {MAX_PIXELS:,}")
        counts = self.counts
        # The single counts are bounded first, so that their sum cannot overflow.
        if counts.size and (counts.min() < 0 or counts.max() > height * width):
            raise DataInvalid("mask: a run is negative or longer than the image")
        if counts.sum() != height * width:
            raise DataInvalid(f"mask: runs add up to {counts.sum():,} pixels, expected {height * width:,}")

    @property
    def area(self) -> int:
        """Pixels of the object."""
        return int(self.counts[1::2].sum())

    def box(self) -> tuple[float, float, float, float]:
        """Return x1, y1, x2, y2 around the object's pixels, zeros where there are none."""
        ends = self.counts.cumsum()
        starts, ends = ends[:-1:2], ends[1::2]
        starts, ends = starts[ends > starts], ends[ends > starts]
        if not starts.size:
            return (0.0, 0.0, 0.0, 0.0)
        height = self.size_hw[0]
        first, last = starts // height, (ends - 1) // height
        # A run that goes over into the next column touches both the bottom and the top.
        top = 0 if (first != last).any() else int((starts % height).min())
        bottom = height if (first != last).any() else int(((ends - 1) % height).max()) + 1
        return (float(first.min()), float(top), float(last.max()) + 1, float(bottom))

    def mask(self) -> Bools:
        """Return the mask, `(H, W)`."""
        values = np.arange(len(self.counts)) % 2 == 1
        return np.repeat(values, self.counts).reshape(self.size_hw[::-1]).T

    def text(self) -> str:
        """Return the counts as COCO's compressed text."""
        deltas = self.counts.copy()
        deltas[3:] -= self.counts[1:-2]
        letters = []
        for delta in deltas.tolist():
            more = True
            while more:
                group = delta & 0x1F
                delta >>= 5
                more = delta != (-1 if group & 0x10 else 0)
                letters.append(chr((group | 0x20 if more else group) + 48))
        return "".join(letters)


def rle_of_mask(mask: Bools) -> Rle:
    """Return the runs of a mask, `(H, W)`."""
    flat = mask.T.reshape(-1)
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    edges = np.concatenate([[0], changes, [flat.size]])
    counts = np.diff(edges)
    return Rle((mask.shape[0], mask.shape[1]), np.concatenate([[0], counts]) if flat[0] else counts)


def rle_of_text(text: str | bytes, size_hw: tuple[int, int]) -> Rle:
    """Return the mask that COCO's compressed text says.

    Raises:
        DataInvalid: The text is not of that form, or does not fit the size.
    """
    try:
        raw = text.encode("ascii") if isinstance(text, str) else text
    except UnicodeEncodeError:
        raise DataInvalid("mask: compressed counts are ASCII text") from None
    groups = np.frombuffer(raw, np.uint8).astype(np.int64) - 48
    if not groups.size or groups.min() < 0 or groups.max() > 0x3F or groups[-1] & 0x20:
        raise DataInvalid("mask: not COCO's compressed counts")
    ends = np.flatnonzero(groups & 0x20 == 0)
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - starts + 1
    if lengths.max() > 8:
        raise DataInvalid("mask: a run is longer than any image")
    place = np.arange(len(groups)) - np.repeat(starts, lengths)
    counts = np.add.reduceat((groups & 0x1F) << (5 * place), starts)
    counts -= np.where(groups[ends] & 0x10, 1 << (5 * lengths), 0)
    # From the third on a count is a difference to the one before the last: two interleaved running sums.
    counts[1::2] = counts[1::2].cumsum()
    counts[2::2] = counts[2::2].cumsum()
    return Rle(size_hw, counts)


def rles_of_ids(ids: Array) -> dict[int, Rle]:
    """Return one mask for each value above 0 of an image of instance ids, `(H, W)` integers, in ascending order."""
    height, width = ids.shape
    flat = ids.T.reshape(-1)
    where = np.flatnonzero(flat)
    if not where.size:
        return {}
    where = where[np.argsort(flat[where], kind="stable")]
    values, starts = np.unique(flat[where], return_index=True)
    masks = {}
    for value, at in zip(values.tolist(), np.split(where, starts[1:]), strict=True):
        breaks = np.flatnonzero(np.diff(at) > 1)
        begin = np.concatenate([at[:1], at[breaks + 1]])
        end = np.concatenate([at[breaks], at[-1:]]) + 1
        edges = np.stack([begin, end], 1).reshape(-1)
        masks[value] = Rle((height, width), np.diff(np.concatenate([[0], edges, [flat.size]])))
    return masks


def polygon_area(polygon: Doubles) -> float:
    """Return the area inside a `(K, 2)` polygon, in the square of its unit."""
    x, y = polygon.T
    return abs(float(x @ np.roll(y, -1) - y @ np.roll(x, -1))) / 2


def outline(mask: Bools) -> Polygons:
    """Return the outer outlines of a mask `(H, W)` along the edges of its pixels; holes are lost."""
    # Twice the size: the outline then runs half a pixel inside each edge and is moved out to it.
    big = np.repeat(np.repeat(np.pad(mask, 1).astype(np.uint8), 2, 0), 2, 1)
    contours, _ = cv2.findContours(big, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    return tuple(np.round((contour.reshape(-1, 2) - 1.5) / 2).astype(np.float64) for contour in contours)


def joined(parts: Sequence[Doubles]) -> Doubles:
    """Return one polygon `(K, 2)` of several, linked by bridges of no width between their nearest corners."""
    whole = parts[0]
    for part in parts[1:]:
        gaps = np.square(whole[:, None] - part[None]).sum(2)
        at, start = np.unravel_index(int(gaps.argmin()), gaps.shape)
        ring = np.roll(part, -int(start), axis=0)
        whole = np.concatenate([whole[: at + 1], ring, ring[:1], whole[at:]])
    return whole
