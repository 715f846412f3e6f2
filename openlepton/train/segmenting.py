"""The lesson of instance segmentation: boxes, and what each of them holds."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from openlepton.data.loader import Batch
from openlepton.data.reader import Reader
from openlepton.data.samples import Split
from openlepton.metrics import MaskReport, evaluate_detections
from openlepton.nets.yolov5_seg_loss import MaskTargets
from openlepton.ops.polygons import paint
from openlepton.predictor import Runtime
from openlepton.train.config import TrainConfig
from openlepton.train.detecting import Detecting, fitness, image_input
from openlepton.train.evaluate import Evaluation, Pair, evaluate
from openlepton.train.lesson import Measured
from openlepton.train.report import draw_evaluation
from openlepton.train.watch import Note, Watch
from openlepton.vision.segment import Segment

CELL_PX = 4
"""Pixels of the image that a cell of the prototypes covers, each way."""

_COLUMNS = {
    "mask AP50-95": "mask_ap",
    "mask AP50": "mask_ap50",
    "mask AP75": "mask_ap75",
    "box AP50-95": "box_ap",
    "box AP50": "box_ap50",
}
"""What the card's metrics are called in `results.csv`."""


class Segmenting(Detecting):
    """How segmenters are trained; see `Lesson`."""

    defaults: Mapping[str, Any] = {"model": "yolov5n-seg"}

    def reader(self, config: TrainConfig, train: Split, tell: Watch) -> Reader:
        """Return what reads images and outlines; an object that has only a box is outlined by it."""
        return Reader(
            train,
            config.size,
            outlines=True,
            cache_bytes=config.cache_mb * 1_000_000,
            report=lambda error: tell(Note(f"left out: {error}")),
        )

    def targets(self, batch: Batch, device: torch.device, scale: float) -> MaskTargets:
        """Return boxes, and which object each cell of the prototypes shows."""
        boxes = super().targets(batch, device, scale)
        count, _, height, width = batch.images.shape
        grid_hw = round(height * scale) // CELL_PX, round(width * scale) // CELL_PX
        outlines = [[part * (scale / CELL_PX) for part in outline] for outline in batch.outlines or ()]
        owners = torch.from_numpy(paint(outlines, batch.rows, (count, *grid_hw)))
        return MaskTargets(boxes, owners.to(device, non_blocking=True))

    def measure(self, config: TrainConfig, network: Any, runtime: Runtime, val: Split) -> Measured:
        """Return COCO's numbers of a network, for masks and boxes."""
        pair = Pair(Segment(image_input(config, network), val.classes), runtime)
        return _measured(evaluate(pair, val, batch=16, workers=config.workers))

    def facts(self, config: TrainConfig, network: Any, classes: Sequence[str]) -> Mapping[str, Any]:
        """Return the card's `task`, `input` and `detect`."""
        return {**super().facts(config, network, classes), "task": "segment"}

    def evaluate(
        self,
        predictor: Any,
        split: Split,
        *,
        batch: int = 1,
        workers: int = 0,
        limit: int | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> Measured:
        """Return COCO's numbers of a model, for masks and boxes."""
        return _measured(evaluate(predictor, split, batch=batch, workers=workers, limit=limit, progress=progress))

    def draw(self, folder: Path, measured: Measured) -> None:
        """Write curves of the masks, the confusion matrix and a mosaic of predictions."""
        draw_evaluation(folder, measured.details)


def _measured(evaluation: Evaluation) -> Measured:
    """Return the numbers; epochs are compared by masks and boxes alike."""
    boxes = evaluation.report
    masks = evaluate_detections(evaluation.truth, evaluation.found, evaluation.names, masks=True, timing=boxes.timing)
    report = MaskReport(masks, boxes)
    values = (masks.ap, masks.ap50, masks.ap75, boxes.ap, boxes.ap50)
    numbers = dict(zip(_COLUMNS, values, strict=True))
    defined = {name: value for name, value in numbers.items() if not math.isnan(value)}
    return Measured(
        fitness=fitness(masks) + fitness(boxes),
        row={_COLUMNS[name]: value for name, value in defined.items()},
        metrics=defined,
        images=report.images,
        report=report,
        details=replace(evaluation, report=masks),
        unreadable=evaluation.unreadable,
    )
