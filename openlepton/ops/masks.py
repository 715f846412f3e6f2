"""Masks as the runs that COCO writes: exact, small, and compared without being painted.

A mask is read column by column; `counts` are the lengths of its runs, background first. COCO stores them as a list or
as text: each count (from the third on as the difference to the one before the last) in groups of five bits, lowest
first, the sixth bit saying that more follow, plus 48 (Lin et al. 2014, and pycocotools' `mask`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openlepton.arrays import Array, Bools, Ints
from openlepton.errors import DataInvalid, ShapeError
from openlepton.ops.polygons import Doubles, Polygons, outline

MAX_PIXELS = 1 << 28
"""A mask larger than this is refused before memory is asked for."""

MAX_COORDINATE = 1e8
"""Corners of polygons farther out than this are refused: COCO's rule counts fifths of pixels in 32 bits."""

_FIFTHS = 5  # COCO's polygons are drawn on a grid of fifths of pixels


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
        starts, ends = self.runs()
        if not starts.size:
            return (0.0, 0.0, 0.0, 0.0)
        height = self.size_hw[0]
        first, last = starts // height, (ends - 1) // height
        # A run that goes over into the next column touches both the bottom and the top.
        top = 0 if (first != last).any() else int((starts % height).min())
        bottom = height if (first != last).any() else int(((ends - 1) % height).max()) + 1
        return (float(first.min()), float(top), float(last.max()) + 1, float(bottom))

    def runs(self) -> tuple[Ints, Ints]:
        """Return where each run of the object begins and ends, `(R,)` and `(R,)`, in pixels counted column by column."""
        ends = self.counts.cumsum()
        starts, ends = ends[:-1:2], ends[1::2]
        some = ends > starts
        return starts[some], ends[some]

    def mask(self) -> Bools:
        """Return the mask, `(H, W)`."""
        values = np.arange(len(self.counts)) % 2 == 1
        return np.repeat(values, self.counts).reshape(self.size_hw[::-1]).T

    def part(self) -> tuple[Bools, tuple[int, int]]:
        """Return the mask inside its box, `(h, w)`, and the x, y of the box's corner; `(0, 0)` where it is empty."""
        x1, y1, x2, y2 = (int(side) for side in self.box())
        height = self.size_hw[0]
        starts, ends = self.runs()
        edges = np.stack([starts, ends], 1).reshape(-1) - x1 * height
        lengths = np.diff(edges, prepend=0, append=(x2 - x1) * height)
        columns = np.repeat(np.arange(len(lengths)) % 2 == 1, lengths).reshape(x2 - x1, height)
        return columns.T[y1:y2], (x1, y1)

    def polygons(self) -> Polygons:
        """Return polygons along the edges of the object's pixels, which `rle_of_polygons` turns into this mask again."""
        part, corner_xy = self.part()
        return outline(part, corner_xy)

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

    def to_dict(self) -> dict[str, Any]:
        """Return COCO's compressed form, `{"size": [height, width], "counts": "..."}`."""
        return {"size": list(self.size_hw), "counts": self.text()}


def rle_of_mask(mask: Bools) -> Rle:
    """Return the runs of a mask, `(H, W)`."""
    flat = mask.T.reshape(-1)
    return _of_edges(np.flatnonzero(np.diff(flat, prepend=np.False_)), (mask.shape[0], mask.shape[1]))


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
        masks[value] = _of_edges(np.stack([begin, end], 1).reshape(-1), (height, width))
    return masks


def rle_of_polygon(polygon: Array, size_hw: tuple[int, int]) -> Rle:
    """Return the pixels inside a `(K, 2)` polygon by COCO's rule, equal to pycocotools' `frPyObjects` to the last pixel.

    Corners are rounded to fifths of a pixel. A column of pixels is cut where the sides, drawn as lines of fifths, cross
    its middle, and pixels between an odd and an even cut are inside.

    Raises:
        ShapeError: The polygon is not of that shape.
        DataInvalid: A corner is not finite, or too far out.
    """
    if polygon.ndim != 2 or polygon.shape[1] != 2:
        raise ShapeError(f"polygon: expected (K, 2), got {polygon.shape}")
    if not (np.abs(polygon) <= MAX_COORDINATE).all():
        raise DataInvalid(f"polygon: a corner is not a number of at most {MAX_COORDINATE:g}")
    height, width = size_hw
    columns, cuts = _crossings(np.trunc(_FIFTHS * np.asarray(polygon, np.float64) + 0.5), width)
    rows = np.ceil(np.clip((cuts + 0.5) / _FIFTHS - 0.5, 0, height)).astype(np.int64)
    return _of_edges(np.sort(columns * height + rows), size_hw)


def rle_of_polygons(parts: Sequence[Array], size_hw: tuple[int, int]) -> Rle:
    """Return the pixels inside any of the polygons, as COCO merges them."""
    return union([rle_of_polygon(part, size_hw) for part in parts], size_hw)


def union(masks: Sequence[Rle], size_hw: tuple[int, int]) -> Rle:
    """Return the pixels of any of the masks, which are all of the size `size_hw`."""
    if len(masks) == 1:
        return masks[0]
    runs = [mask.runs() for mask in masks]
    starts = np.concatenate([np.zeros(0, np.int64), *(start for start, _ in runs)])
    ends = np.concatenate([np.zeros(0, np.int64), *(end for _, end in runs)])
    places = np.concatenate([starts, ends])
    order = np.argsort(places, kind="stable")  # where one run ends and the next begins, the beginning comes first
    depth = np.repeat([1, -1], [len(starts), len(ends)])[order].cumsum()
    return _of_edges(places[order][(depth > 0) != (np.append(0, depth[:-1]) > 0)], size_hw)


def moved(mask: Rle, size_hw: tuple[int, int], *, offset_xy: tuple[int, int] = (0, 0), mirrored: bool = False) -> Rle:
    """Return the mask, mirrored from left to right if asked to, as a part of an image of `size_hw` that begins at `offset_xy`.

    Raises:
        ShapeError: It does not lie inside that image.
    """
    height, width = mask.size_hw
    x, y = offset_xy
    if not (0 <= x <= size_hw[1] - width and 0 <= y <= size_hw[0] - height):
        raise ShapeError(f"mask of {width}x{height} pixels at {offset_xy}: reaches out of {size_hw[1]}x{size_hw[0]}")
    starts, ends = mask.runs()
    first, last = starts // height, (ends - 1) // height
    counts = last - first + 1  # a run that goes over into the next column becomes one run a column
    run = np.repeat(np.arange(len(starts)), counts)
    columns = first[run] + np.arange(len(run)) - np.repeat(counts.cumsum() - counts, counts)
    top = np.where(columns == first[run], starts[run] - columns * height, 0)
    bottom = np.where(columns == last[run], ends[run] - columns * height, height)
    if mirrored:
        columns = width - 1 - columns
    before = (columns + x) * size_hw[0] + y
    return _of_edges(np.sort(np.concatenate([before + top, before + bottom])), size_hw)


def iou(a: Sequence[Rle], b: Sequence[Rle], crowd: Bools | None = None) -> NDArray[np.float64]:
    """Return intersection over union of every pair, N and M masks of one size to `(N, M)`, equal to pycocotools'.

    Args:
        a: Such as detections.
        b: Such as annotated objects.
        crowd: `(M,)` which of `b` are regions of many objects: for them it is the share of `a` that lies in `b`.
    """
    shared = _shared(a, b)
    areas = np.array([mask.area for mask in a], np.float64)[:, None]
    whole = areas + np.array([mask.area for mask in b], np.float64)[None] - shared
    if crowd is not None:
        whole = np.where(crowd[None], areas, whole)
    return np.divide(shared, whole, out=np.zeros_like(shared), where=whole > 0)


def _shared(a: Sequence[Rle], b: Sequence[Rle]) -> NDArray[np.float64]:
    """Return the pixels that every pair has in common, `(N, M)`."""
    shared = np.zeros((len(a), len(b)))
    runs = [mask.runs() for mask in b]
    boxes = np.array([mask.box() for mask in b]).reshape(-1, 4)
    for row, mask in enumerate(a):
        x1, y1, x2, y2 = mask.box()
        near = (boxes[:, 0] < x2) & (boxes[:, 2] > x1) & (boxes[:, 1] < y2) & (boxes[:, 3] > y1)
        rows = np.flatnonzero(near)
        if not len(rows):
            continue
        starts, ends = mask.runs()
        # How many pixels of the mask come before a place: it grows by one a pixel inside a run, and rests outside.
        places = np.stack([starts, ends], 1).reshape(-1)
        before = np.repeat((ends - starts).cumsum(), 2)
        before[::2] -= ends - starts
        begin = np.concatenate([runs[other][0] for other in rows])
        end = np.concatenate([runs[other][1] for other in rows])
        common = np.interp(end, places, before) - np.interp(begin, places, before)
        first = np.cumsum([0, *(len(runs[other][0]) for other in rows[:-1])])
        shared[row, rows] = np.add.reduceat(common, first)
    return shared


def _of_edges(edges: Ints, size_hw: tuple[int, int]) -> Rle:
    """Return the mask whose pixels change at `edges`, `(E,)` ascending; two changes at one place are none."""
    places, times = np.unique(edges, return_counts=True)
    total = size_hw[0] * size_hw[1]
    places = places[(times % 2 == 1) & (places < total)]
    return Rle(size_hw, np.diff(places, prepend=0, append=total))


def _crossings(corners: Doubles, width: int) -> tuple[Ints, Doubles]:
    """Return where sides cross the middle of columns of pixels: the columns `(E,)`, and the height, in fifths `(E,)`.

    A side is drawn point by point along its longer axis, from its lesser end; it crosses between two of its points, of
    which the lower height counts.
    """
    xs, ys = corners.T
    xe, ye = np.roll(corners, -1, 0).T
    dx, dy = np.abs(xe - xs), np.abs(ye - ys)
    flat = dx >= dy
    swap = np.where(flat, xs > xe, ys > ye)
    xs, xe, ys, ye = np.where(swap, xe, xs), np.where(swap, xs, xe), np.where(swap, ye, ys), np.where(swap, ys, ye)
    with np.errstate(invalid="ignore", divide="ignore"):
        slope = np.where(flat, (ye - ys) / dx, (xe - xs) / dy)
    # The middle of column c lies between the fifths 5c + 2 and 5c + 3.
    first = np.maximum(np.ceil((np.minimum(xs, xe) - 2) / _FIFTHS), 0).astype(np.int64)
    last = np.minimum(np.ceil((np.maximum(xs, xe) - 2) / _FIFTHS) - 1, width - 1).astype(np.int64)
    counts = np.maximum(last - first + 1, 0)
    side = np.repeat(np.arange(len(corners)), counts)
    columns = np.arange(len(side)) - np.repeat(counts.cumsum() - counts - first, counts)
    at = _FIFTHS * columns + 2.0
    heights = np.empty(len(side))
    wide = flat[side]
    one, x = side[wide], at[wide]
    steps = x - xs[one]
    heights[wide] = np.minimum(
        np.trunc(ys[one] + slope[one] * steps + 0.5), np.trunc(ys[one] + slope[one] * (steps + 1) + 0.5)
    )
    one, x = side[~wide], at[~wide]
    heights[~wide] = ys[one] + _steps_before(xs[one], slope[one], x)
    return columns, heights


def _steps_before(start: Doubles, slope: Doubles, x: Doubles) -> Doubles:
    """Return how many steps a steep side, with `slope` fifths to the right a step, takes before it crosses from or to `x`."""
    rising = slope > 0
    guess = np.ceil((x + 0.5 - start) / slope)
    steps = guess - 2
    for ahead in (-1, 0):  # rounding may put the guess one step off
        there = np.trunc(start + slope * (guess + ahead) + 0.5)
        steps = np.where(np.where(rising, there <= x, there > x), guess + ahead, steps)
    return steps
