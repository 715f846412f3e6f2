"""How good a classifier is: of one class for each image, and of any number of labels for each image."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from openlepton.arrays import Array, Bools, Floats, Ints
from openlepton.errors import ShapeError
from openlepton.metrics.shares import mean, plain, share
from openlepton.metrics.timing import Timing

TOP = 5
"""How many of the most probable classes `top5` looks at, where there are more."""


@dataclass(frozen=True, eq=False)
class ClassificationReport:
    """How often which class was taken for which."""

    confusion: Ints
    """`(C, C)` images by true class (row) and most probable class (column)."""
    top5: float
    """Share of the images whose true class is among the five most probable; NaN without images."""
    names: tuple[str, ...]
    timing: Timing | None = None
    unit: str = "images"
    """What was classified, in the plural, as tables and JSON call it."""

    @property
    def images(self) -> int:
        """How many images (or texts) were counted."""
        return int(self.confusion.sum())

    @property
    def top1(self) -> float:
        """Share of the images whose true class is the most probable."""
        return float(share(np.trace(self.confusion), self.confusion.sum()))

    @property
    def precision(self) -> Array:
        """`(C,)` share of the images taken for a class that show it."""
        return share(np.diagonal(self.confusion), self.confusion.sum(0))

    @property
    def recall(self) -> Array:
        """`(C,)` share of the images of a class that were taken for it."""
        return share(np.diagonal(self.confusion), self.confusion.sum(1))

    @property
    def f1(self) -> Array:
        """`(C,)` the harmonic mean of precision and recall."""
        return share(2 * np.diagonal(self.confusion), self.confusion.sum(0) + self.confusion.sum(1))

    @property
    def header(self) -> tuple[str, ...]:
        """Names of the columns of `rows`."""
        return ("class", self.unit, "precision", "recall", "F1")

    def rows(self) -> Iterator[tuple[Any, ...]]:
        """Yield one row for each class."""
        columns = (self.precision, self.recall, self.f1)
        for index, name in enumerate(self.names):
            count = int(self.confusion[index].sum())
            yield (name, count, *(float(column[index]) for column in columns))

    def summary(self) -> dict[str, Any]:
        """Return the numbers of the whole split by name; F1 is the mean over classes."""
        return {"top-1": self.top1, "top-5": self.top5, "F1": mean(self.f1), self.unit: self.images}

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as plain numbers and strings; what has no value is None."""
        return _to_dict(self) | {"confusion": self.confusion.tolist()}


@dataclass(frozen=True, eq=False)
class TagReport:
    """How good the scores of labels are that do not exclude each other."""

    ap: Array
    """`(C,)` average precision of each label; NaN where no image has it."""
    hits: Ints
    """`(C,)` images that have the label and score more than the threshold."""
    truth: Ints
    """`(C,)` images that have the label."""
    found: Ints
    """`(C,)` images that score more than the threshold."""
    exact: float
    """Share of the images of which all labels are right; NaN without images."""
    names: tuple[str, ...]
    images: int
    timing: Timing | None = None
    unit: str = "images"
    """What was classified, in the plural, as tables and JSON call it."""

    @property
    def map(self) -> float:
        """Mean average precision of the labels that some image has."""
        return mean(self.ap)

    @property
    def precision(self) -> Array:
        """`(C,)` share of the images above the threshold that have the label."""
        return share(self.hits, self.found)

    @property
    def recall(self) -> Array:
        """`(C,)` share of the images with the label that are above the threshold."""
        return share(self.hits, self.truth)

    @property
    def f1(self) -> Array:
        """`(C,)` the harmonic mean of precision and recall."""
        return share(2 * self.hits, self.found + self.truth)

    @property
    def micro_f1(self) -> float:
        """F1 of all labels of all images together."""
        return float(share(2 * self.hits.sum(), self.found.sum() + self.truth.sum()))

    @property
    def header(self) -> tuple[str, ...]:
        """Names of the columns of `rows`."""
        return ("class", self.unit, "AP", "precision", "recall", "F1")

    def rows(self) -> Iterator[tuple[Any, ...]]:
        """Yield one row for each label."""
        columns = (self.ap, self.precision, self.recall, self.f1)
        for index, name in enumerate(self.names):
            yield (name, int(self.truth[index]), *(float(column[index]) for column in columns))

    def summary(self) -> dict[str, Any]:
        """Return the numbers of the whole split by name; F1 is that of all labels together."""
        return {"mAP": self.map, "F1": self.micro_f1, "all right": self.exact, self.unit: self.images}

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as plain numbers and strings; what has no value is None."""
        return _to_dict(self)


def classification_report(
    scores: Floats, truth: Ints, names: Sequence[str], *, timing: Timing | None = None, unit: str = "images"
) -> ClassificationReport:
    """Return the numbers for `scores (N, C)` of images whose classes are `truth (N,)`; of equal scores the first class counts.

    Raises:
        ShapeError: The arrays do not belong together, or a class has no name.
    """
    _check(scores, (len(truth), len(names)))
    if len(truth) and not 0 <= truth.min() <= truth.max() < len(names):
        raise ShapeError(f"truth: expected 0..{len(names) - 1}, got up to {truth.max()}")
    order = np.argsort(-scores, axis=1, kind="stable")  # (N, C)
    best = order[:, 0] if len(names) else order[:, :0]
    table = np.zeros((len(names), len(names)), np.int64)
    np.add.at(table, (truth, best), 1)
    among = (order[:, :TOP] == truth[:, None]).any(1)
    return ClassificationReport(table, float(among.mean()) if len(among) else float("nan"), tuple(names), timing, unit)


def tag_report(
    scores: Floats,
    truth: Bools,
    names: Sequence[str],
    *,
    min_score: float = 0.5,
    timing: Timing | None = None,
    unit: str = "images",
) -> TagReport:
    """Return the numbers for `scores (N, C)` of images that have the labels `truth (N, C)`.

    Raises:
        ShapeError: The arrays do not belong together.
    """
    _check(scores, (len(truth), len(names)))
    _check(truth, (len(truth), len(names)))
    found = scores > min_score
    right = (found == truth).all(1)
    return TagReport(
        ap=np.array([average_precision(column, has) for column, has in zip(scores.T, truth.T, strict=True)]),
        hits=(found & truth).sum(0),
        truth=truth.sum(0),
        found=found.sum(0),
        exact=float(right.mean()) if len(right) else float("nan"),
        names=tuple(names),
        images=len(truth),
        timing=timing,
        unit=unit,
    )


def average_precision(scores: Floats, truth: Bools) -> float:
    """Return the area under the steps of precision over recall for `scores (N,)`, NaN where nothing is true.

    Equal scores are one step: precision is taken behind the last of them.
    """
    if not truth.any():
        return float("nan")
    order = np.argsort(-scores, kind="stable")
    ranked, hits = scores[order], truth[order].cumsum()
    ends = np.append(np.flatnonzero(np.diff(ranked)), len(ranked) - 1)
    precision, gained = hits[ends] / (ends + 1), np.diff(hits[ends], prepend=0)
    return float((precision * gained).sum() / hits[-1])


def _check(values: Array, shape: tuple[int, int]) -> None:
    if values.shape != shape:
        raise ShapeError(f"scores and truth: expected {shape}, got {values.shape}")


def _to_dict(report: ClassificationReport | TagReport) -> dict[str, Any]:
    keys = [name.lower() for name in report.header]
    classes = [dict(zip(keys, map(plain, row), strict=True)) for row in report.rows()]
    summary = {name.lower().replace(" ", "_"): plain(value) for name, value in report.summary().items()}
    timing = {} if report.timing is None else {"timing": report.timing.to_dict()}
    return {**summary, "classes": classes, **timing}
