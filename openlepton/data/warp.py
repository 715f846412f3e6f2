"""Images with boxes and polygons, moved together: any number of tiles, one projective map, one interpolation.

Coordinates are continuous: 0 is the left edge of the first pixel, 0.5 its centre, and the width its right edge. So
boxes, polygons and pixels follow a scaling exactly, without the half-pixel drift of a matrix that maps pixel indices.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from openlepton.arrays import UNKNOWN, Array, Bools, Boxes, ClassMap, Floats, Image, Ints
from openlepton.errors import ShapeError
from openlepton.ops.boxes import area, clip

FILL = 114
"""The grey of what no image covers."""

MIN_SIDE_PX = 2.0
MAX_ASPECT = 100.0
MIN_AREA_LEFT = 0.10
MIN_AREA_LEFT_OUTLINED = 0.01

Matrix = NDArray[np.float64]
"""`(3, 3)` maps continuous x, y, 1 in the source to the same in the output."""

Outline = tuple[Floats, ...]
"""The parts of one object, each a polygon `(K, 2)` float32 x, y in pixels."""


@dataclass(frozen=True, eq=False)
class Labelled:
    """An image and what is to be seen in it.

    Raises:
        ShapeError: The arrays do not have the same number of rows.
    """

    image: Image
    """`(H, W, 3)` RGB uint8; may be shared with a cache, so nobody writes into it."""
    boxes: Boxes
    """`(N, 4)` float32 x1, y1, x2, y2 in pixels of `image`."""
    class_ids: Ints
    """`(N,)` int64."""
    outlines: tuple[Outline, ...] | None = None
    """`(N,)` where each object is, more exactly than its box, in at least one part; None where only boxes are known."""
    class_map: ClassMap | None = None
    """`(H, W)` the class of each pixel of `image`, 255 where it is not known; None where no pixel's class is known."""

    def __post_init__(self) -> None:
        count = len(self.class_ids)
        if self.boxes.shape != (count, 4):
            raise ShapeError(f"boxes: expected ({count}, 4), got {self.boxes.shape}")
        if self.outlines is not None and len(self.outlines) != count:
            raise ShapeError(f"outlines: expected one for each of {count} boxes, got {len(self.outlines)}")
        if self.outlines is not None and not all(self.outlines):
            raise ShapeError("outlines: expected at least one part for each object, got one without")
        if self.class_map is not None and self.class_map.shape != self.image.shape[:2]:
            raise ShapeError(f"class_map: expected {self.image.shape[:2]}, got {self.class_map.shape}")


class Tile(NamedTuple):
    """Where an image lies on a canvas."""

    item: Labelled
    x: int
    """The canvas column of the image's left edge; may be negative."""
    y: int
    """The canvas row of the image's top edge; may be negative."""


def compose(tiles: Sequence[Tile], canvas_hw: tuple[int, int], matrix: Matrix, size_hw: tuple[int, int]) -> Labelled:
    """Return what `matrix` makes of a canvas with `tiles` on it: a picture of `size_hw` pixels and the labels in it.

    The canvas is never built: each tile is interpolated once, straight into its place in the picture. Tiles are cut at
    the canvas; they should not overlap. A box stays if it is wider and higher than 2 px, less than 100 times as long as
    wide, and keeps more than 10 % of its area (1 % where outlines tell where the object is). Of class maps the nearest pixel
    counts, and where no tile is, the class is not known.
    """
    image = np.full((*size_hw, 3), FILL, np.uint8)
    for tile in tiles:
        _paint(image, tile.item.image, tile, canvas_hw, matrix)
    class_map = None
    if any(tile.item.class_map is not None for tile in tiles):
        class_map = np.full(size_hw, UNKNOWN, np.uint8)
        for tile in tiles:
            if tile.item.class_map is not None:
                _paint(class_map, tile.item.class_map, tile, canvas_hw, matrix, cv2.INTER_NEAREST)
    boxes = np.concatenate([tile.item.boxes + np.array([tile.x, tile.y] * 2, np.float32) for tile in tiles])
    class_ids = np.concatenate([tile.item.class_ids for tile in tiles])
    before = clip(boxes, canvas_hw)
    outlines = _outlines_of(tiles)
    if outlines is None:
        after, min_left = clip(_move_boxes(before, matrix), size_hw), MIN_AREA_LEFT
    else:
        outlines = _move_outlines(outlines, canvas_hw, matrix, size_hw)
        after, min_left = boxes_around(outlines), MIN_AREA_LEFT_OUTLINED
    zoom = abs(float(np.linalg.det(matrix)))  # how areas grow; shifts, turns, flips and perspective have determinant 1
    kept = _survivors(area(before) * zoom, after, min_left)
    left = None if outlines is None else tuple(outlines[row] for row in np.flatnonzero(kept))
    return Labelled(image, after[kept], class_ids[kept], left, class_map)


def warp(item: Labelled, matrix: Matrix, size_hw: tuple[int, int]) -> Labelled:
    """Return `item` moved by `matrix` into a picture of `size_hw` pixels; what leaves the picture is cut or dropped."""
    height, width = item.image.shape[:2]
    return compose([Tile(item, 0, 0)], (height, width), matrix, size_hw)


def move_points(points: Array, matrix: Matrix) -> Floats:
    """Return `(N, 2)` float32 points x, y moved by `matrix`."""
    return _project(points, matrix).astype(np.float32)


def clip_polygon(polygon: Floats, image_hw: tuple[int, int]) -> Floats:
    """Return the part of a `(K, 2)` polygon that lies in an image, `(L, 2)` (Sutherland and Hodgman 1974)."""
    height, width = image_hw
    for axis, limit, sign in ((0, 0, 1), (0, width, -1), (1, 0, 1), (1, height, -1)):
        inside = sign * (polygon[:, axis] - limit)  # (K,), >= 0 within
        if inside.min(initial=0) >= 0:
            continue
        after, inside_after = np.roll(polygon, -1, 0), np.roll(inside, -1)
        crosses = (inside >= 0) != (inside_after >= 0)
        share = np.divide(inside, inside - inside_after, out=np.zeros_like(inside), where=crosses)[:, None]
        both = np.stack(
            [polygon, polygon + share * (after - polygon)], 1
        )  # (K, 2, 2): a corner, and where its side crosses
        both[crosses, 1, axis] = limit
        polygon = both[np.stack([inside >= 0, crosses], 1)]
    return polygon


def boxes_around(outlines: Sequence[Outline]) -> Boxes:
    """Return the `(N, 4)` boxes around outlines; zeros around an empty one."""
    boxes = np.zeros((len(outlines), 4), np.float32)
    rows = [row for row, outline in enumerate(outlines) for _ in outline]
    if rows:
        low, high = _extents([part for outline in outlines for part in outline])
        boxes[rows, :2] = np.inf
        np.minimum.at(boxes[:, :2], rows, low)
        np.maximum.at(boxes[:, 2:], rows, high)
    return boxes


def draw_outline(mask: NDArray[np.uint8], outline: Outline, value: int) -> None:
    """Set the pixels of `mask` `(H, W)` that an outline covers to `value`, in place."""
    for part in outline:
        sixteenths = np.rint((part - 0.5) * 16).astype(np.int32)  # of a pixel, from the centre of the first
        cv2.fillPoly(mask, [sixteenths], (value,), shift=4)


def _paint(
    out: NDArray[np.uint8],
    pixels: NDArray[np.uint8],
    tile: Tile,
    canvas_hw: tuple[int, int],
    matrix: Matrix,
    interpolation: int = cv2.INTER_LINEAR,
) -> None:
    """Interpolate into `out` what `tile` covers by their centres: its `pixels`, `(H, W)` or `(H, W, 3)`."""
    height, width = pixels.shape[:2]
    x1, y1 = max(tile.x, 0), max(tile.y, 0)
    x2, y2 = min(tile.x + width, canvas_hw[1]), min(tile.y + height, canvas_hw[0])
    if x1 >= x2 or y1 >= y2:
        return
    source = pixels[y1 - tile.y : y2 - tile.y, x1 - tile.x : x2 - tile.x]
    corners = _project(np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2]], np.float64), matrix)
    # A pixel belongs to the tile that its centre falls on: neighbours share a rounded edge and leave no seam.
    left, top = (max(math.ceil(edge - 0.5), 0) for edge in corners.min(0).tolist())
    right, bottom = (max(math.ceil(edge - 0.5), 0) for edge in corners.max(0).tolist())
    view = out[top:bottom, left:right]
    if not view.size:
        return
    place = _shift(-0.5 - left, -0.5 - top) @ matrix @ _shift(x1 + 0.5, y1 + 0.5)  # between pixel indices
    size = (view.shape[1], view.shape[0])
    if not matrix[2, :2].any() and not matrix[0, 1] and not matrix[1, 0]:
        cv2.warpAffine(source, place[:2], size, view, flags=interpolation, borderMode=cv2.BORDER_REPLICATE)
        return
    moved = cv2.warpPerspective(source, place, size, flags=interpolation, borderMode=cv2.BORDER_REPLICATE)
    solid = np.full(source.shape[:2], 255, np.uint8)
    cover = cv2.warpPerspective(solid, place, size, flags=cv2.INTER_NEAREST)
    cv2.copyTo(moved, cover, view)


def _project(points: Array, matrix: Matrix) -> NDArray[np.float64]:
    moved = points @ matrix[:, :2].T + matrix[:, 2]  # (N, 3)
    projected: NDArray[np.float64] = moved[:, :2] / moved[:, 2:]
    return projected


def _shift(x: float, y: float) -> Matrix:
    return np.array([[1.0, 0.0, x], [0.0, 1.0, y], [0.0, 0.0, 1.0]])


def _outlines_of(tiles: Sequence[Tile]) -> list[Outline] | None:
    """Return the outlines of all tiles on the canvas; None when a tile shows objects and does not know theirs."""
    known = [tile.item.outlines is not None for tile in tiles if len(tile.item.class_ids)]
    if not all(known) or not (known or any(tile.item.outlines is not None for tile in tiles)):
        return None
    shifts = [np.array([tile.x, tile.y], np.float32) for tile in tiles]
    return [
        tuple(part + shift for part in outline)
        for tile, shift in zip(tiles, shifts, strict=True)
        for outline in tile.item.outlines or ()
    ]


def _move_boxes(boxes: Boxes, matrix: Matrix) -> Boxes:
    """Return the upright boxes around the moved corners of `(N, 4)` boxes."""
    corners = boxes[:, [0, 1, 2, 1, 2, 3, 0, 3]].reshape(-1, 2)  # (4N, 2)
    moved = move_points(corners, matrix).reshape(-1, 4, 2)
    return np.concatenate([moved.min(1), moved.max(1)], axis=1)


def _move_outlines(
    outlines: Sequence[Outline], canvas_hw: tuple[int, int], matrix: Matrix, size_hw: tuple[int, int]
) -> list[Outline]:
    """Return outlines cut at the canvas, moved, and cut at the picture; straight sides stay straight."""
    rows = [row for row, outline in enumerate(outlines) for _ in outline]
    parts = _clip_polygons([part for outline in outlines for part in outline], canvas_hw)
    if parts:
        moved = move_points(np.concatenate(parts), matrix)
        parts = _clip_polygons(np.split(moved, np.cumsum([len(part) for part in parts])[:-1]), size_hw)
    made: list[list[Floats]] = [[] for _ in outlines]
    for row, part in zip(rows, parts, strict=True):
        if len(part):
            made[row].append(part)
    return [tuple(outline) for outline in made]


def _clip_polygons(parts: list[Floats], image_hw: tuple[int, int]) -> list[Floats]:
    """Return polygons cut at the image; only those that cross its border cost more than a look at all of them together."""
    filled = [row for row, part in enumerate(parts) if len(part)]
    if filled:
        low, high = _extents([parts[row] for row in filled])
        limit = np.array(image_hw[::-1], np.float32)
        apart = np.any((high <= 0) | (low >= limit), axis=1)
        for place in np.flatnonzero(((low < 0) | (high > limit)).any(1)):
            part = parts[filled[place]]
            parts[filled[place]] = part[:0] if apart[place] else clip_polygon(part, image_hw)
    return parts


def _extents(parts: Sequence[Floats]) -> tuple[Floats, Floats]:
    """Return the least and the greatest x, y of each polygon, `(P, 2)` each; none may be empty."""
    points = np.concatenate(parts)
    starts = np.cumsum([0, *(len(part) for part in parts[:-1])])
    return np.minimum.reduceat(points, starts), np.maximum.reduceat(points, starts)


def _survivors(area_before: Floats, after: Boxes, min_left: float) -> Bools:
    """Return `(N,)` which moved boxes still show enough of their object to learn from."""
    width, height = after[:, 2] - after[:, 0], after[:, 3] - after[:, 1]
    big = (width > MIN_SIDE_PX) & (height > MIN_SIDE_PX)
    longer, shorter = np.maximum(width, height), np.maximum(np.minimum(width, height), 1e-9)
    kept: Bools = big & (longer < MAX_ASPECT * shorter) & (width * height > min_left * area_before)
    return kept
