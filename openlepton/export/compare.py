"""How near a form comes to the model it was made of: on real images, and in COCO's or accuracy's numbers where there are labels."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from openlepton.arrays import Array
from openlepton.card import Compared, Precision
from openlepton.errors import UsageError
from openlepton.ops.boxes import iou
from openlepton.predictor import Predictor
from openlepton.results import Classification, Detections, Segmentation


@dataclass(frozen=True)
class Tolerance:
    """How far a form may be from the original; None where the numbers say nothing."""

    boxes_px: float | None
    scores: float | None
    matched: float
    """Least share of results that both have."""
    lost: float = 0.01
    """How much of the metric may be lost, where there is one: one point."""

    def allows(self, found: Compared) -> bool:
        """Return whether a comparison stays within it."""
        near = self.boxes_px is None or found.boxes_px is None or found.boxes_px <= self.boxes_px
        near = near and (self.scores is None or found.scores <= self.scores)
        if found.original is not None and found.value is not None:
            near = near and found.value >= found.original - self.lost
        return near and found.matched >= self.matched


TOLERANCES: Mapping[Precision, Tolerance] = {
    "float32": Tolerance(0.05, 1e-4, 0.999, 0.001),
    "float16": Tolerance(2.0, 0.01, 0.98),
    "bfloat16": Tolerance(None, None, 0.9),
    "int8": Tolerance(None, None, 0.9),
}
"""Boxes and scores of reduced precision may move; what counts is what is found, and what a metric says where one was measured."""


def compared(
    original: Predictor[Any],
    form: Predictor[Any],
    images: Sequence[Any],
    tolerance: Tolerance,
    *,
    what: str,
    measured: tuple[str, float, float, str] | None = None,
) -> Compared:
    """Return the differences of two predictors of one model on the same images.

    Args:
        original: Of which the graph runs in float32.
        form: The other one; both get the inputs that its task prepares.
        images: Paths or arrays.
        tolerance: What `keeps` is decided by.
        what: The images, in words.
        measured: Name of a metric, its value for either, and the data.

    Raises:
        UsageError: There is no image.
    """
    if not images:
        raise UsageError("there is no image to compare on")
    largest: dict[str, float] = {}
    both, all_ = 0.0, 0.0
    least = original.card.detect.min_score if original.card.detect is not None else 0.0
    for image in images:
        inputs, frame = form.task.prepare(image)
        given = {name: value[None] for name, value in inputs.items()}
        first, second = original.runtime(given), form.runtime(given)
        for name, value in differences(first, second, least).items():
            largest[name] = max(largest.get(name, 0.0), value)
        pair = [form.task.finish({name: value[0] for name, value in one.items()}, frame) for one in (first, second)]
        same, count = agreement(*pair)
        both, all_ = both + same, all_ + count
    found = Compared(
        images=what,
        boxes_px=largest.get("boxes"),
        scores=largest.get("scores", largest.get("classes", 0.0)),
        coeffs=largest.get("coeffs"),
        protos=largest.get("protos"),
        matched=both / all_ if all_ else 1.0,
        keeps=False,
    )
    if measured is not None:
        metric, before, after, data = measured
        found = found.model_copy(update={"metric": metric, "original": before, "value": after, "data": data})
    return found.model_copy(update={"keeps": tolerance.allows(found)})


def differences(first: Mapping[str, Array], second: Mapping[str, Array], least: float) -> dict[str, float]:
    """Return the largest differences of two graphs' outputs by name; of boxes those that score more than `least`."""
    found = {}
    for name, value in first.items():
        apart = np.abs(value.astype(np.float64) - second[name])
        if name == "boxes":
            apart = apart[first["scores"].max(-1) > least]
        found[name] = float(apart.max(initial=0))
    return found


def agreement(first: Any, second: Any) -> tuple[float, float]:
    """Return how many results two answers have in common, counted in both, and how many there are in both."""
    match first, second:
        case Detections(), Detections():
            overlaps = iou(first.boxes, second.boxes) * (first.class_ids[:, None] == second.class_ids)
            pairs = 0
            while overlaps.size and overlaps.max() > 0.5:
                row, column = np.unravel_index(overlaps.argmax(), overlaps.shape)
                overlaps[row], overlaps[:, column] = 0, 0
                pairs += 1
            return 2.0 * pairs, float(len(first) + len(second))
        case Classification(), Classification():
            return float(first.label == second.label), 1.0
        case Segmentation(), Segmentation():
            return float((first.class_map == second.class_map).mean()), 1.0
    raise UsageError(f"compare: results of one kind, not {type(first).__name__} and {type(second).__name__}")
