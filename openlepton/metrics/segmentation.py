"""How good a semantic segmentation is: intersection over union of each class over all pixels of a split, and their mean."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from openlepton.arrays import UNKNOWN, Array, ClassMap, Ints
from openlepton.errors import ShapeError
from openlepton.metrics.shares import mean, plain, share
from openlepton.metrics.timing import Timing


@dataclass(frozen=True, eq=False)
class SegmentationReport:
    """The numbers of a split; all of them follow from one table of pixels.

    A class that neither is there nor was found has no IoU (NaN) and is left out of the mean.
    """

    confusion: Ints
    """`(C, C)` pixels by true class (row) and found class (column)."""
    names: tuple[str, ...]
    images: int
    timing: Timing | None = None

    @property
    def iou(self) -> Array:
        """`(C,)` intersection over union of each class (the Jaccard index)."""
        hits, truth, found = self._counts()
        return share(hits, truth + found - hits)

    @property
    def dice(self) -> Array:
        """`(C,)` twice the intersection over the sum of both areas, which is F1 of pixels."""
        hits, truth, found = self._counts()
        return share(2 * hits, truth + found)

    @property
    def precision(self) -> Array:
        """`(C,)` share of the pixels found to be of a class that are."""
        hits, _, found = self._counts()
        return share(hits, found)

    @property
    def recall(self) -> Array:
        """`(C,)` share of the pixels of a class that were found to be of it."""
        hits, truth, _ = self._counts()
        return share(hits, truth)

    @property
    def miou(self) -> float:
        """Mean IoU of the classes that have one."""
        return mean(self.iou)

    @property
    def accuracy(self) -> float:
        """Share of all pixels whose class was found."""
        return float(share(np.trace(self.confusion), self.confusion.sum()))

    @property
    def header(self) -> tuple[str, ...]:
        """Names of the columns of `rows`."""
        return ("class", "share", "IoU", "Dice", "precision", "recall")

    def rows(self) -> Iterator[tuple[Any, ...]]:
        """Yield one row for each class: its name, its share of the true pixels, and how well it was found."""
        shares = share(self.confusion.sum(1), self.confusion.sum())
        columns = (shares, self.iou, self.dice, self.precision, self.recall)
        for index, name in enumerate(self.names):
            yield (name, *(float(column[index]) for column in columns))

    def summary(self) -> dict[str, Any]:
        """Return the numbers of the whole split by name."""
        return {"mIoU": self.miou, "Dice": mean(self.dice), "accuracy": self.accuracy, "images": self.images}

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as plain numbers and strings; what has no value is None."""
        keys = [name.lower() for name in self.header]
        classes = [dict(zip(keys, map(plain, row), strict=True)) for row in self.rows()]
        summary = {name.lower(): plain(value) for name, value in self.summary().items()}
        timing = {} if self.timing is None else {"timing": self.timing.to_dict()}
        return {**summary, "classes": classes, "confusion": self.confusion.tolist(), **timing}

    def _counts(self) -> tuple[Ints, Ints, Ints]:
        """Return `(C,)` hits, true pixels and found pixels of each class."""
        return np.diagonal(self.confusion), self.confusion.sum(1), self.confusion.sum(0)


def pixel_confusion(truth: ClassMap, found: ClassMap, classes: int) -> Ints:
    """Return `(C, C)` pixels by true class (row) and found class (column); where the truth is not known (255) none count.

    Raises:
        ShapeError: The two are not of one size, or hold other ids.
    """
    if truth.shape != found.shape:
        raise ShapeError(f"found: expected {truth.shape}, got {found.shape}")
    pairs = np.bincount(truth.astype(np.int32).ravel() * (UNKNOWN + 1) + found.ravel(), minlength=(UNKNOWN + 1) ** 2)
    table = pairs.reshape(UNKNOWN + 1, UNKNOWN + 1)
    if table[classes:UNKNOWN].any() or table[:UNKNOWN, classes:].any():
        raise ShapeError(f"class ids: expected 0..{classes - 1}, or {UNKNOWN} in the truth")
    return table[:classes, :classes].astype(np.int64)


def segmentation_report(
    confusions: Sequence[Ints], names: Sequence[str], *, timing: Timing | None = None
) -> SegmentationReport:
    """Return the numbers of a split from the table of each of its images."""
    total = np.sum([np.zeros((len(names), len(names)), np.int64), *confusions], axis=0)
    return SegmentationReport(total, tuple(names), len(confusions), timing)
