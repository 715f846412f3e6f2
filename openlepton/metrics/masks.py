"""COCO's numbers for a segmenter: those of its masks, and those of its boxes beside them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from openlepton.metrics.detection import DetectionReport, evaluate_detections
from openlepton.metrics.timing import Timing
from openlepton.metrics.truth import GroundTruth
from openlepton.results import Detections

HEADER = ("class", "objects", "precision", "recall", "f1", "score", "mask_ap50", "mask_ap", "box_ap50", "box_ap")
"""The columns of `MaskReport.rows`; precision, recall, F1 and score are those of masks."""


@dataclass(frozen=True)
class MaskReport:
    """How a segmenter does on a set of annotated images, in COCO's terms."""

    masks: DetectionReport
    """With overlaps of masks (COCO's `segm`)."""
    boxes: DetectionReport
    """With overlaps of boxes (COCO's `bbox`)."""

    @property
    def images(self) -> int:
        """How many there are."""
        return self.masks.images

    @property
    def timing(self) -> Timing | None:
        """How long one image took, where that was measured."""
        return self.masks.timing

    @property
    def header(self) -> tuple[str, ...]:
        """The columns of `rows`."""
        return HEADER

    def summary(self) -> dict[str, float]:
        """Return the headline numbers by name: COCO's twelve for masks, AP for boxes, and the best confidence for masks."""
        *numbers, best = self.masks.summary().items()
        boxes = {"box_ap": self.boxes.ap, "box_ap50": self.boxes.ap50, "box_ap75": self.boxes.ap75}
        return {f"mask_{name}": value for name, value in numbers} | boxes | dict([best])

    def rows(self) -> Iterator[tuple[Any, ...]]:
        """Yield a table under `HEADER`: first the mean over the classes that have objects, then each class."""
        for masks, boxes in zip(self.masks.rows(), self.boxes.rows(), strict=True):
            yield *masks, *boxes[-2:]

    def to_dict(self) -> dict[str, Any]:
        """Return plain numbers and strings that JSON can hold; None for what is not defined."""
        masks, boxes = self.masks.to_dict(), self.boxes.to_dict()
        for one in (masks, boxes):
            del one["images"], one["timing"]
        timing = None if self.timing is None else self.timing.to_dict()
        return {"images": self.images, "masks": masks, "boxes": boxes, "timing": timing}


def evaluate_masks(
    truth: Sequence[GroundTruth],
    found: Sequence[Detections],
    names: Sequence[str],
    *,
    timing: Timing | None = None,
) -> MaskReport:
    """Return COCO's numbers for masks and for boxes, equal to pycocotools'.

    Args:
        truth: What is annotated in each image, with masks.
        found: What was found in each image, with masks: everything above a very low score (0.001), or recall is cut off.
        names: The class names, all of them, by class id.
        timing: How long one image took, to be kept with the numbers.

    Raises:
        UsageError: The sets or their class names do not belong together, or there are no masks.
        MissingExtra: hotcoco is not installed.
    """
    boxes = evaluate_detections(truth, found, names)
    return MaskReport(evaluate_detections(truth, found, names, masks=True, timing=timing), boxes)
