"""Instance segmentation: what surrounds a detector, and for each object kept the mask at the size of the original image.

A mask is the sigmoid of the object's coefficients times the prototypes, enlarged bilinearly to the original image, above one
half, inside the box. No mask is ever painted: along a column of pixels the enlarged prototypes are straight lines between
their samples, so where a mask begins and ends there is known from the two samples that it lies between, and the runs are
written down at once.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from openlepton.arrays import Boxes, Floats, Ints, Tensors
from openlepton.errors import ShapeError
from openlepton.ops.geometry import Frame
from openlepton.ops.masks import Rle
from openlepton.results import Detections
from openlepton.vision.detect import Detect


@dataclass(frozen=True)
class Segment(Detect):
    """What surrounds the graph of a segmenter."""

    def finish(self, outputs: Tensors, frame: Frame) -> Detections:
        """Return the detections with their masks in original pixels, best first.

        Args:
            outputs: `boxes (N,4)` xyxy in input pixels, `scores (N,C)` in 0..1, `coeffs (N,32)` and `protos (32,h,w)`.
            frame: What `prepare` returned.
        """
        rows, class_ids = self.select(outputs["boxes"], outputs["scores"])
        boxes, scores = frame.undo(outputs["boxes"][rows]), outputs["scores"][rows, class_ids]
        masks = masks_in_boxes(outputs["coeffs"][rows], outputs["protos"], boxes, frame)
        return Detections(boxes, scores, class_ids, self.names, frame.image_hw, masks)


class _Axis(NamedTuple):
    """How pixels of the original image along one axis lie among the samples of the prototypes: at `pixel * step + start`."""

    step: float
    start: float
    samples: int

    def window(self, first: Ints, last: Ints) -> tuple[Ints, Ints]:
        """Return the samples, `(K,)` the first and `(K,)` the end, between which pixels `first` to `last` (exclusive) lie."""
        low = np.floor(first * self.step + self.start)
        high = np.ceil((last - 1) * self.step + self.start) + 1
        most = self.samples
        return np.clip(low, 0, most - 1).astype(np.int64), np.clip(high, 1, most).astype(np.int64)

    def weights(self, pixels: int) -> Floats:
        """Return what pixels 0 to `pixels` take of each sample, `(pixels, samples)`, bilinearly; borders go on beyond the last."""
        places = np.clip(np.arange(pixels) * self.step + self.start, 0, self.samples - 1)
        low = np.minimum(places.astype(np.int64), max(self.samples - 2, 0))
        rows, share = np.arange(pixels), (places - low).astype(np.float32)
        weights = np.zeros((pixels, self.samples), np.float32)
        weights[rows, np.minimum(low + 1, self.samples - 1)] = share
        weights[rows, low] = 1 - share
        return weights


def masks_in_boxes(coeffs: Floats, protos: Floats, boxes: Boxes, frame: Frame) -> list[Rle]:
    """Return the mask of each object at the size of the original image; its pixels have their centres inside the box.

    Args:
        coeffs: `(K, 32)` what each object takes of the prototypes.
        protos: `(32, h, w)`, cells of one size that cover what the network sees.
        boxes: `(K, 4)` in pixels of the original image, inside it.
        frame: Where the original image lies in what the network sees.
    """
    if frame.seen_hw is None:
        raise ShapeError("frame: expected one that says how large the image is that the network sees")
    first, last = np.ceil(boxes.reshape(-1, 2, 2) - 0.5).astype(np.int64).transpose(1, 2, 0)  # (2, K) x, y
    across, down = (
        _Axis(scale * cells / seen, (0.5 * scale + pad) * cells / seen - 0.5, cells)
        for scale, pad, cells, seen in zip(
            frame.scale_xy, frame.pad_xy, protos.shape[:0:-1], frame.seen_hw[::-1], strict=True
        )
    )
    left, right = across.window(first[0], last[0])
    top, bottom = down.window(first[1], last[1])
    widths = np.where((last > first).all(0), last[0] - first[0], 0)  # columns of pixels
    heights = bottom - top  # samples in each
    starts = np.cumsum([0, *widths * (heights + 1)])
    values = np.full(starts[-1] + 1, -1.0, np.float32)  # columns of samples, one that is outside between each two
    weights = across.weights(int(last[0].max(initial=0)))
    for row in np.flatnonzero(widths).tolist():
        i, j = slice(top[row], bottom[row]), slice(left[row], right[row])
        mixed = coeffs[row] @ protos[:, i, j].reshape(len(protos), -1)
        halves = np.tanh(mixed / 2).reshape(
            heights[row], -1
        )  # twice the sigmoid, less one: above zero where it is above 1/2
        columns = values[1 + starts[row] : 1 + starts[row + 1]].reshape(widths[row], heights[row] + 1)
        columns[:, :-1] = weights[first[0, row] : last[0, row], j] @ halves.T
    inside = values > 0
    crossings = np.flatnonzero(inside[1:] != inside[:-1])
    owner = np.repeat(np.arange(len(boxes)), np.diff(np.searchsorted(crossings, starts)))
    column, sample = np.divmod(crossings - starts[owner], heights[owner] + 1)  # the sample after the crossing
    before, after = values[crossings], values[crossings + 1]
    place = top[owner] + sample - 1 + before / (before - after)
    pixel = np.floor((place - down.start) / down.step).astype(np.int64) + 1  # the first one after the crossing
    pixel = np.clip(pixel, first[1, owner], last[1, owner])
    pixel = np.where(sample == 0, first[1, owner], np.where(sample == heights[owner], last[1, owner], pixel))
    return _rles((first[0, owner] + column) * frame.image_hw[0] + pixel, owner, len(boxes), frame.image_hw)


def _rles(edges: Ints, owner: Ints, count: int, size_hw: tuple[int, int]) -> list[Rle]:
    """Return `count` masks whose pixels change at `edges`, `(E,)`, ascending for each owner; two changes at a place are none."""
    total = size_hw[0] * size_hw[1]
    new = np.flatnonzero(np.diff(edges, prepend=-1) | np.diff(owner, prepend=-1))
    times = np.diff(new, append=len(edges))
    kept = new[(times % 2 == 1) & (edges[new] < total)]
    ends = np.searchsorted(owner[kept], np.arange(count), side="right") + 2 * np.arange(1, count + 1)
    places: NDArray[np.int64] = np.empty(len(kept) + 2 * count, np.int64)  # each mask's edges between 0 and the total
    places[np.arange(len(kept)) + 2 * owner[kept] + 1] = edges[kept]
    places[ends - 1] = total
    starts = np.append(0, ends)[:-1]
    places[starts] = 0
    counts = np.diff(places)
    bounds = zip(starts.tolist(), ends.tolist(), strict=True)
    return [Rle(size_hw, counts[start : end - 1]) for start, end in bounds]
