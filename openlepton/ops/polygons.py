"""Polygons, `(K, 2)` x, y in pixels: their area, several joined into one, and those along the edges of a mask."""

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from openlepton.arrays import Bools

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


def _plain(ring: Doubles) -> Doubles:
    """Return a ring without corners that repeat the one before."""
    plain: Doubles = ring[(ring != np.roll(ring, 1, 0)).any(1)]
    return plain
