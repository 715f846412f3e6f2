"""Polygons, `(K, 2)` x, y in pixels: their area, several joined, those along the edges of a mask, and what they cover."""

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from openlepton.arrays import Array, Bools, Ints

Doubles = NDArray[np.float64]
"""Double-precision numbers: a file that is read and written again says the same numbers."""

Polygons = tuple[Doubles, ...]
"""The parts of one outline, each `(K, 2)` x, y in pixels; `()` where there is none."""


def polygon_area(polygon: Doubles) -> float:
    """Return the area inside a `(K, 2)` polygon, in the square of its unit."""
    x, y = polygon.T
    return abs(float(x @ np.roll(y, -1) - y @ np.roll(x, -1))) / 2


def outline(mask: Bools, corner_xy: tuple[int, int] = (0, 0)) -> Polygons:
    """Return polygons along the edges of the pixels of a mask `(H, W)`, one for each region that hangs together.

    A hole is part of the polygon around it, linked by a bridge of no width, so that filling by the even-odd rule gives
    exactly the mask.

    Args:
        mask: What is inside.
        corner_xy: Where the upper left corner of the mask lies.
    """
    # Twice the size: the outline then runs half a pixel inside each edge and is moved out to it.
    big = np.repeat(np.repeat(np.pad(mask, 1).astype(np.uint8), 2, 0), 2, 1)
    rings, tree = cv2.findContours(big, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    regions: dict[int, list[Doubles]] = {}
    for index, ring in enumerate(rings):  # a region comes before or after its holes
        outer = int(tree[0, index, 3])
        whole = _plain(np.round((ring.reshape(-1, 2) - 1.5) / 2) + corner_xy)
        regions.setdefault(index if outer < 0 else outer, []).insert(0 if outer < 0 else len(rings), whole)
    return tuple(joined(parts) for parts in regions.values())


def joined(parts: Sequence[Doubles]) -> Doubles:
    """Return one polygon `(K, 2)` of several, linked by bridges of no width between their nearest corners."""
    whole = parts[0]
    for part in parts[1:]:
        gaps = np.square(whole[:, None] - part[None]).sum(2)
        at, start = np.unravel_index(int(gaps.argmin()), gaps.shape)
        ring = np.roll(part, -int(start), axis=0)
        whole = np.concatenate([whole[: at + 1], ring, ring[:1], whole[at:]])
    return whole


def paint(outlines: Sequence[Sequence[Array]], images: Ints, shape: tuple[int, int, int]) -> NDArray[np.int32]:
    """Return which outline each pixel of some images shows, `(B, H, W)`: 1 for the first, 2 for the second, 0 for none.

    An outline shows where it holds the centre of a pixel, or where its middle is if it holds none; smaller ones lie on top.

    Args:
        outlines: `(N,)` the parts of each, polygons `(K, 2)` in pixels.
        images: `(N,)` which of the images each is in.
        shape: How many images there are, their height and width.
    """
    B, H, W = shape
    parts = [np.asarray(part, np.float64) for outline in outlines for part in outline]
    if not parts:
        return np.zeros(shape, np.int32)
    owner = np.repeat(np.arange(len(outlines)), [len(outline) for outline in outlines])  # (P,) P polygons
    polygon, column, first, last = _runs(parts, (H, W))
    lengths, owners = last - first, owner[polygon]
    sizes = np.bincount(owners, lengths, len(outlines))
    order = np.argsort(-sizes[owners], kind="stable")  # what is written last stays
    column, first, lengths, owners = column[order], first[order], lengths[order], owners[order]
    row = np.arange(lengths.sum()) - np.repeat(lengths.cumsum() - lengths - first, lengths)
    flat = (np.repeat(images[owners], lengths) * H + row) * W + np.repeat(column, lengths)
    painted = np.zeros(B * H * W, np.int32)
    painted[flat] = np.repeat(owners + 1, lengths)
    for tiny in np.flatnonzero(sizes == 0).tolist():
        corners = np.concatenate([*outlines[tiny], np.zeros((0, 2))])
        if len(corners):
            x, y = np.clip((corners.min(0) + corners.max(0)) / 2, 0, [W - 1, H - 1]).astype(np.int64)
            painted[(images[tiny] * H + y) * W + x] = tiny + 1
    return painted.reshape(shape)


def _runs(parts: Sequence[Doubles], size_hw: tuple[int, int]) -> tuple[Ints, Ints, Ints, Ints]:
    """Return the pixels whose centres polygons hold by the even-odd rule, as runs along columns.

    The runs are `(R,)` the polygon, the column, and the first and the end of the rows.
    """
    H, W = size_hw
    counts = np.array([len(part) for part in parts])
    ends = counts.cumsum()
    after = np.arange(1, ends[-1] + 1)
    after[ends - 1] = ends - counts  # the corner after the last is the first
    corners, which = np.concatenate(parts), np.repeat(np.arange(len(parts)), counts)
    a, b = corners, corners[after]
    swap = a[:, :1] > b[:, :1]
    a, b = np.where(swap, b, a), np.where(swap, a, b)
    first, last = (np.clip(np.ceil(each[:, 0] - 0.5), 0, W).astype(np.int64) for each in (a, b))
    crossed = last - first  # columns of pixels whose centre each side crosses
    side = np.repeat(np.arange(len(corners)), crossed)
    column = np.arange(len(side)) - np.repeat(crossed.cumsum() - crossed - first, crossed)
    slope = (b[side, 1] - a[side, 1]) / (b[side, 0] - a[side, 0])
    row = np.clip(np.ceil(a[side, 1] + (column + 0.5 - a[side, 0]) * slope - 0.5), 0, H).astype(np.int64)
    polygon = which[side]
    order = np.lexsort((row, column, polygon))
    polygon, column, row = polygon[order], column[order], row[order]
    return polygon[::2], column[::2], row[::2], row[1::2]


def _plain(ring: Doubles) -> Doubles:
    """Return a ring without corners that repeat the one before."""
    plain: Doubles = ring[(ring != np.roll(ring, 1, 0)).any(1)]
    return plain
