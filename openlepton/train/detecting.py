"""The lesson of detection: boxes."""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from openlepton.card import DetectFacts, ImageInput
from openlepton.data.augment import PRESETS, AugmentConfig
from openlepton.data.crops import CropConfig
from openlepton.data.datasets import open_dataset
from openlepton.data.loader import Batch
from openlepton.data.reader import Reader
from openlepton.data.samples import Dataset, Split
from openlepton.data.survey import survey
from openlepton.errors import DataEmpty, ImageError, UsageError
from openlepton.metrics import DetectionReport
from openlepton.nets import NETS
from openlepton.nets.anchors import Anchors, suit_anchors
from openlepton.predictor import Runtime
from openlepton.train.config import TrainConfig
from openlepton.train.evaluate import Evaluation, Pair, evaluate
from openlepton.train.lesson import Measured, placing
from openlepton.train.report import draw_batch, draw_evaluation
from openlepton.train.start import anchors_of, build
from openlepton.train.watch import Note, Watch
from openlepton.vision.detect import Detect


class Detecting:
    """How detectors are trained; see `Lesson`."""

    defaults: Mapping[str, Any] = {"model": "yolov5n"}
    presets: Mapping[str, AugmentConfig | CropConfig] = PRESETS

    def open(self, data: str | Path) -> Dataset:
        """Return the data set of any layout that has boxes."""
        return open_dataset(data)

    def data(self, config: TrainConfig, tell: Watch) -> tuple[Dataset, Split]:
        """Return the data set, and its training split without what cannot be used."""
        dataset = self.open(config.data)
        found = survey(dataset[config.train_split])
        found.require_usable()
        if found.problems:
            tell(Note(f"{len(found.problems)} problems in the labels, such as {found.problems[0]}"))
        missing = [name for name, count in zip(found.classes, found.class_counts, strict=True) if not count]
        if missing and not config.allow_empty_classes:
            raise DataEmpty(
                f"{config.data}: split {config.train_split} has no box of class {', '.join(missing[:5])}"
                f"{'...' if len(missing) > 5 else ''}: take it out of the class list, or allow empty classes"
            )
        return dataset, dataset[config.train_split].take(found.usable)

    def network(self, config: TrainConfig, train: Split, tell: Watch) -> Any:
        """Return a fresh detector; where it has anchors, the published ones if they suit the boxes, else better ones."""
        if config.multi_scale and NETS[config.model].fixed_size:
            raise UsageError(f"multi_scale: {config.model} sees images of one size alone")
        network = build(config.model, len(train.classes), size=config.size)
        anchors = anchors_of(network)
        if config.anchors == "default" or not anchors:
            return network
        suited = _suited(anchors, config, train)
        if suited == anchors:
            return network
        tell(Note(f"anchors fitted to the boxes: {suited}"))
        return build(config.model, len(train.classes), suited)

    def reader(self, config: TrainConfig, train: Split, tell: Watch) -> Reader:
        """Return what reads images and boxes; outlines as well where augmentation wants them."""
        return Reader(
            train,
            config.size,
            outlines=placing(config).copy_paste > 0 or placing(config).degrees > 0,
            cache_bytes=config.cache_mb * 1_000_000,
            stretch=NETS[config.model].fixed_size,
            report=lambda error: tell(Note(f"left out: {error}")),
        )

    def augmentation(self, config: TrainConfig, *, closing: bool) -> AugmentConfig:
        """Return how images are varied."""
        return placing(config).closing() if closing else placing(config)

    def targets(self, batch: Batch, device: torch.device, scale: float) -> Any:
        """Return `(N, 6)`: row of the batch, class, centre x, y, width and height in pixels."""
        x1, y1, x2, y2 = batch.boxes.T * scale
        columns = (batch.rows, batch.class_ids, (x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1)
        return torch.from_numpy(np.stack(columns, 1).astype(np.float32)).to(device, non_blocking=True)

    def measure(self, config: TrainConfig, network: Any, runtime: Runtime, val: Split) -> Measured:
        """Return COCO's numbers of a network."""
        task = Detect(image_input(config, network), val.classes)
        return _measured(evaluate(Pair(task, runtime), val, batch=16, workers=config.workers))

    def facts(self, config: TrainConfig, network: Any, classes: Sequence[str]) -> Mapping[str, Any]:
        """Return the card's `task`, `input` and `detect`."""
        strides: tuple[int, ...] = getattr(network.config, "strides", ())
        detect = DetectFacts(strides=strides, anchors=anchors_of(network))
        return {"task": "detect", "input": image_input(config, network), "detect": detect}

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
        """Return COCO's numbers of a model."""
        return _measured(evaluate(predictor, split, batch=batch, workers=workers, limit=limit, progress=progress))

    def draw_batch(self, path: Path, batch: Batch, names: Sequence[str]) -> None:
        """Write the images with their boxes."""
        draw_batch(path, batch, names)

    def draw(self, folder: Path, measured: Measured) -> None:
        """Write curves, the confusion matrix and a mosaic of predictions."""
        draw_evaluation(folder, measured.details)


def image_input(config: TrainConfig, network: Any) -> ImageInput:
    """Return how images come to the network in evaluation, as its card will say."""
    size = -(-config.size // network.multiple) * network.multiple
    resize: Literal["stretch", "letterbox"] = "stretch" if NETS[config.model].fixed_size else "letterbox"
    return ImageInput(size=size, resize=resize, multiple=network.multiple)


def fitness(report: DetectionReport) -> float:
    """Return what epochs are compared by: mostly AP at all overlaps, a little that at 0.5."""
    ap, ap50 = (0.0 if math.isnan(value) else value for value in (report.ap, report.ap50))
    return 0.1 * ap50 + 0.9 * ap


def _measured(evaluation: Evaluation) -> Measured:
    report = evaluation.report
    numbers = {"AP50-95": report.ap, "AP50": report.ap50, "AP75": report.ap75}
    ap, ap50 = (0.0 if math.isnan(value) else value for value in (report.ap, report.ap50))
    return Measured(
        fitness=fitness(report),
        row={"ap50": ap50, "ap": ap},
        metrics={name: value for name, value in numbers.items() if not math.isnan(value)},
        images=report.images,
        report=report,
        details=evaluation,
        unreadable=evaluation.unreadable,
    )


def _suited(anchors: Anchors, config: TrainConfig, train: Split) -> Anchors:
    """Return anchors that suit the boxes as training will see them."""
    sizes = []
    for index in range(len(train)):
        try:
            sample = train[index]
        except ImageError:
            continue  # the reader reports it
        boxes = sample.objects.boxes[~sample.objects.crowd] * (config.size / max(sample.size_hw))
        sizes.append((boxes[:, 2:] - boxes[:, :2]).astype(np.float32))
    found = np.concatenate([*sizes, np.zeros((0, 2), np.float32)])
    return suit_anchors(found[(found > 0).all(1)], anchors, max_ratio=config.loss.max_ratio, seed=config.seed)
