"""COCO's numbers for a detector: average precision and recall, for all classes and for each."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from openlepton.arrays import Array
from openlepton.errors import UsageError, missing_extra
from openlepton.metrics.curves import score_curves
from openlepton.metrics.matching import Matches, match_stacks
from openlepton.metrics.timing import Timing
from openlepton.metrics.truth import GroundTruth, Stack, stack
from openlepton.results import Detections

ALL, SMALL, MEDIUM, LARGE = range(4)
"""COCO's area ranges: any, below 32 x 32 pixels, below 96 x 96, and above."""

HEADER = ("class", "objects", "precision", "recall", "f1", "score", "ap50", "ap")
"""The columns of `DetectionReport.rows`."""

_NOWHERE = -1.0
"""An area outside every range: COCO's rule then ignores the object, missed or found, without making it a crowd."""


@dataclass(frozen=True)
class ClassReport:
    """How one class is detected; NaN where it has no objects, or no detection to take a precision of."""

    name: str
    objects: int
    """How many there are to find."""
    found: int
    """How many detections of the class count at IoU 0.5, at any confidence."""
    ap: float
    """Average precision, mean over IoU 0.50 to 0.95."""
    ap50: float
    """Average precision at IoU 0.50."""
    precision: float
    """At IoU 0.50 and the report's `best_score`; so are `recall` and `f1`."""
    recall: float
    f1: float
    best_score: float
    """The confidence at which the F1 of this class alone is highest; NaN where it never hits."""


@dataclass(frozen=True)
class DetectionReport:
    """How a detector does on a set of annotated images, in COCO's terms; NaN where there are no such objects."""

    ap: float
    """Average precision: mean over IoU 0.50 to 0.95, recalls, and the classes that have objects."""
    ap50: float
    ap75: float
    ap_small: float
    """Of objects below 32 x 32 pixels."""
    ap_medium: float
    ap_large: float
    """Of objects above 96 x 96 pixels."""
    ar: Mapping[int, float]
    """Average recall with so many detections in each image and class: by `max_detections`."""
    ar_small: float
    ar_medium: float
    ar_large: float
    best_score: float
    """The confidence at which the mean F1 of all classes at IoU 0.50 is highest: where to set the threshold."""
    classes: tuple[ClassReport, ...]
    images: int
    matches: Matches = field(repr=False, compare=False)
    """What became of each detection at IoU 0.50: what `curves` and `calibration` are functions of."""
    timing: Timing | None = None
    """How long one image took, where that was measured."""

    @property
    def header(self) -> tuple[str, ...]:
        """The columns of `rows`."""
        return HEADER

    def summary(self) -> dict[str, float]:
        """Return the headline numbers by name, COCO's twelve in its order, then the best confidence."""
        ap = {name: getattr(self, name) for name in ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large")}
        ar = {f"ar{limit}": value for limit, value in self.ar.items()}
        sizes = {name: getattr(self, name) for name in ("ar_small", "ar_medium", "ar_large")}
        return ap | ar | sizes | {"best_score": self.best_score}

    def rows(self) -> Iterator[tuple[str, int, float, float, float, float, float, float]]:
        """Yield a table under `HEADER`: first the mean over the classes that have objects, then each class."""
        present = [one for one in self.classes if one.objects]
        total = sum(one.objects for one in self.classes)
        precision, recall, f1 = (_mean_of(present, name) for name in ("precision", "recall", "f1"))
        yield "all", total, precision, recall, f1, self.best_score, self.ap50, self.ap
        for one in self.classes:
            yield one.name, one.objects, one.precision, one.recall, one.f1, one.best_score, one.ap50, one.ap

    def to_dict(self) -> dict[str, Any]:
        """Return plain numbers and strings that JSON can hold; None for what is not defined."""
        table = {name: _plain(value) for name, value in self.summary().items()}
        classes = [{name: _plain(value) for name, value in asdict(one).items()} for one in self.classes]
        timing = None if self.timing is None else self.timing.to_dict()
        return {"images": self.images, **table, "classes": classes, "timing": timing}


def evaluate_detections(
    truth: Sequence[GroundTruth],
    found: Sequence[Detections],
    names: Sequence[str],
    *,
    masks: bool = False,
    max_detections: Sequence[int] = (1, 10, 100),
    timing: Timing | None = None,
) -> DetectionReport:
    """Return COCO's numbers (Lin et al. 2014), equal to pycocotools', and the table of classes.

    Args:
        truth: What is annotated in each image.
        found: What was found in each image: everything above a very low score (0.001), or recall is cut off.
        names: The class names, all of them, by class id.
        masks: Whether overlaps are those of masks (COCO's `segm`), not of boxes.
        max_detections: How many detections of each class count in one image, ascending; precision takes the last.
        timing: How long one image took, to be kept with the numbers.

    Raises:
        UsageError: The sets or their class names do not belong together, there are no masks to measure, or
            `max_detections` is not ascending.
        MissingExtra: hotcoco is not installed.
    """
    limits = [int(limit) for limit in max_detections]
    if not limits or limits[0] < 1 or limits != sorted(set(limits)):
        raise UsageError(f"max_detections: expected ascending whole numbers from 1, got {list(max_detections)}")
    objects, detections = stack(truth, found, names, masks=masks)
    precision, recall = _accumulated(objects, detections, len(truth), names, limits)
    matches = match_stacks(objects, detections, len(names), min_iou=0.5, max_detections=limits[-1])
    best_score, classes = _classes(matches, precision[..., ALL, -1], names)
    return DetectionReport(
        ap=_mean(precision[..., ALL, -1]),
        ap50=_mean(precision[0, ..., ALL, -1]),
        ap75=_mean(precision[5, ..., ALL, -1]),
        ap_small=_mean(precision[..., SMALL, -1]),
        ap_medium=_mean(precision[..., MEDIUM, -1]),
        ap_large=_mean(precision[..., LARGE, -1]),
        ar={limit: _mean(recall[..., ALL, index]) for index, limit in enumerate(limits)},
        ar_small=_mean(recall[..., SMALL, -1]),
        ar_medium=_mean(recall[..., MEDIUM, -1]),
        ar_large=_mean(recall[..., LARGE, -1]),
        best_score=best_score,
        classes=classes,
        images=len(truth),
        matches=matches,
        timing=timing,
    )


def _accumulated(
    objects: Stack, detections: Stack, images: int, names: Sequence[str], limits: list[int]
) -> tuple[Array, Array]:
    """Return precision `(T, R, C, A, M)` and recall `(T, C, A, M)`: IoUs, recalls, classes, areas, limits; or -1."""
    engine = _hotcoco()
    truth = engine.COCO.from_arrays(
        [{"id": index, "width": 0, "height": 0} for index in range(1, images + 1)],
        [{"id": index, "name": name} for index, name in enumerate(names, 1)],
        objects.image_ids + 1,
        objects.class_ids + 1,
        _xywh(objects.boxes),
        area=np.where(objects.ignored & ~objects.crowd, _NOWHERE, objects.areas),
        iscrowd=objects.crowd,
        segmentation=_segmentation(objects),
    )
    table = [detections.image_ids + 1, _xywh(detections.boxes), detections.scores, detections.class_ids + 1]
    results = truth.load_res(np.column_stack(table), segmentation=_segmentation(detections))
    if detections.masks is not None:  # it takes the boxes' areas otherwise
        results.update_anns(ids=np.arange(1, len(detections) + 1), area=detections.areas)
    evaluation = engine.COCOeval(truth, results, "bbox" if objects.masks is None else "segm")
    evaluation.params.max_dets = limits
    evaluation.evaluate()
    evaluation.accumulate()
    arrays = evaluation.eval
    assert arrays is not None
    return arrays["precision"], arrays["recall"]


def _segmentation(found: Stack) -> list[dict[str, Any]] | None:
    return None if found.masks is None else [mask.to_dict() for mask in found.masks]


def _hotcoco() -> Any:
    try:
        import hotcoco
    except ImportError:
        raise missing_extra("hotcoco", "train") from None
    return hotcoco


def _classes(matches: Matches, precision: Array, names: Sequence[str]) -> tuple[float, tuple[ClassReport, ...]]:
    """Return the best confidence for all classes and the report of each; precision is `(T, R, C)`."""
    curves = score_curves(matches)
    best = int(curves.mean_f1.argmax())
    f1 = np.nan_to_num(curves.f1)
    own = np.where(f1.max(axis=1) > 0, curves.thresholds[f1.argmax(axis=1)], np.nan)
    counted = np.bincount(matches.class_ids[matches.counted], minlength=len(names))
    reports = tuple(
        ClassReport(
            name=name,
            objects=int(matches.positives[index]),
            found=int(counted[index]),
            ap=_mean(precision[..., index]),
            ap50=_mean(precision[0, :, index]),
            precision=float(curves.precision[index, best]),
            recall=float(curves.recall[index, best]),
            f1=float(curves.f1[index, best]),
            best_score=round(float(own[index]), 3),
        )
        for index, name in enumerate(names)
    )
    return curves.best_score, reports


def _xywh(boxes: Array) -> Array:
    return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)


def _mean(values: Array) -> float:
    """Return the mean of what is defined: COCO marks the rest with -1."""
    defined = values[values > -1]
    return float(defined.mean()) if defined.size else math.nan


def _mean_of(classes: Sequence[ClassReport], name: str) -> float:
    defined = [value for one in classes if not math.isnan(value := getattr(one, name))]
    return sum(defined) / len(defined) if defined else math.nan


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and math.isnan(value) else value
