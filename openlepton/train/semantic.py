"""The lesson of semantic segmentation: a class for each pixel."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from openlepton.arrays import UNKNOWN, ClassMap, Ints
from openlepton.card import ImageInput, SemanticFacts
from openlepton.data.augment import PRESETS, AugmentConfig
from openlepton.data.crops import CropConfig
from openlepton.data.datasets import open_dataset
from openlepton.data.folders import UNNAMED
from openlepton.data.loader import Batch
from openlepton.data.reader import Reader
from openlepton.data.samples import Dataset, Split
from openlepton.data.semantic import BACKGROUND, BOUNDARY, as_semantic
from openlepton.data.survey import survey
from openlepton.drawing import draw
from openlepton.errors import DataEmpty, DataInvalid, MissingExtra, UsageError
from openlepton.files import write_atomic
from openlepton.images import read_image, write_image
from openlepton.metrics import SegmentationReport, Timing, pixel_confusion, segmentation_report
from openlepton.predictor import Runtime
from openlepton.results import Segmentation
from openlepton.train.config import TrainConfig
from openlepton.train.lesson import Measured, placing
from openlepton.train.passes import Progress, Seen, run_over
from openlepton.train.report import SHOWN, mosaic
from openlepton.train.start import build
from openlepton.train.watch import Note, Watch
from openlepton.vision.semantic import Semantic

_LOW = replace(PRESETS["low"], mosaic=0.0)

AUGMENTATIONS: Mapping[str, AugmentConfig] = {
    "none": AugmentConfig(),
    "low": _LOW,
    "medium": replace(_LOW, degrees=10.0),
    "high": replace(_LOW, degrees=45.0, flipud=0.5, mosaic=0.3),
}
"""Whole images keep what is around a pixel, so mosaics are rare; high is for what has no upside, such as cells."""


@dataclass(frozen=True, eq=False)
class Painted:
    """What a segmenter made of a split."""

    names: tuple[str, ...]
    background: int | None
    report: SegmentationReport
    shown: tuple[tuple[Path, ClassMap], ...]
    """Some of the images, spread over the split evenly, with what was found."""


class SemanticLesson:
    """How semantic segmenters are trained; see `Lesson`."""

    defaults: Mapping[str, Any] = {
        "model": "unet-lite0",
        "pretrained": "efficientnet-lite0",
        "epochs": 50,
        "batch": 16,
        "nominal_batch": 16,
        "size": 512,
        "optimizer": "adamw",
        "schedule": "cosine",
        "lr": 2e-3,
        "momentum": 0.9,
        "warmup_momentum": 0.9,
        "warmup_bias_lr": 2e-3,
        "warmup_epochs": 1.0,
        "warmup_steps": 20,
        "weight_decay": 0.01,
        "ema_decay": 0.998,
        "ema_ramp": 200.0,
        "augment": AUGMENTATIONS["low"],
    }
    presets: Mapping[str, AugmentConfig | CropConfig] = AUGMENTATIONS

    def open(self, data: str | Path) -> Dataset:
        """Return the data set with a class map for each image: of class ids, or made of instance ids."""
        return as_semantic(open_dataset(data))

    def data(self, config: TrainConfig, tell: Watch) -> tuple[Dataset, Split]:
        """Return the data set, and its training split without what cannot be used."""
        dataset = self.open(config.data)
        train = dataset[config.train_split]
        found = survey(train)
        found.require_usable()
        if problems := (*dataset.problems, *found.problems):
            tell(Note(f"{len(problems)} problems in the labels, such as {problems[0]}"))
        missing = [name for name, count in zip(found.classes, found.class_counts, strict=True) if not count]
        if missing and not config.allow_empty_classes:
            raise DataEmpty(
                f"{config.data}: split {config.train_split} has no pixel of class {', '.join(missing[:5])}"
                f"{'...' if len(missing) > 5 else ''}: take it out of the class list, or allow empty classes"
            )
        return dataset, train.take(found.usable)

    def network(self, config: TrainConfig, train: Split, tell: Watch) -> Any:
        """Return a fresh segmenter."""
        return build(config.model, len(train.classes))

    def reader(self, config: TrainConfig, train: Split, tell: Watch) -> Reader:
        """Return what reads images and class maps."""
        return Reader(
            train,
            config.size,
            cache_bytes=config.cache_mb * 1_000_000,
            report=lambda error: tell(Note(f"left out: {error}")),
        )

    def augmentation(self, config: TrainConfig, *, closing: bool) -> AugmentConfig:
        """Return how images are varied.

        Raises:
            UsageError: By mixup or copy-paste, which would give pixels two classes or the wrong one.
        """
        augment = placing(config)
        if augment.mixup or augment.copy_paste:
            raise UsageError("augment: mixup and copy_paste make no sense where each pixel has one class")
        return augment.closing() if closing else augment

    def targets(self, batch: Batch, device: torch.device, scale: float) -> Tensor:
        """Return `(B, H, W)` class ids; the loss brings what the network says to their size."""
        if batch.class_maps is None:
            raise DataInvalid("the data set does not say a class for each pixel")
        return torch.from_numpy(batch.class_maps).to(device, non_blocking=True)

    def measure(self, config: TrainConfig, network: Any, runtime: Runtime, val: Split) -> Measured:
        """Return the IoU of a network."""
        task = Semantic(image_input(config, network), val.classes, background_of(val.classes))
        return _measured(task, runtime, val, batch=8, workers=config.workers)

    def facts(self, config: TrainConfig, network: Any, classes: Sequence[str]) -> Mapping[str, Any]:
        """Return the card's `task`, `input` and `semantic`."""
        facts = SemanticFacts(background=background_of(classes))
        return {"task": "semantic", "input": image_input(config, network), "semantic": facts}

    def evaluate(
        self,
        predictor: Any,
        split: Split,
        *,
        batch: int = 1,
        workers: int = 0,
        limit: int | None = None,
        progress: Progress | None = None,
    ) -> Measured:
        """Return the IoU of a model."""
        return _measured(
            predictor.task, predictor.runtime, split, batch=batch, workers=workers, limit=limit, progress=progress
        )

    def draw_batch(self, path: Path, batch: Batch, names: Sequence[str]) -> None:
        """Write the images with their classes; what is not known stays as it is."""
        tiles = []
        assert batch.class_maps is not None
        for pixels, class_map in zip(batch.images[:SHOWN], batch.class_maps[:SHOWN], strict=True):
            known = np.where(class_map == UNKNOWN, len(names), class_map)
            labelled = Segmentation(known, (*names, "not known"), background=len(names))
            tiles.append(draw(np.ascontiguousarray(pixels.transpose(1, 2, 0)), labelled))
        write_image(path, mosaic(tiles))

    def draw(self, folder: Path, measured: Measured) -> None:
        """Write a mosaic of predictions, and the confusion of pixels where matplotlib is installed."""
        done: Painted = measured.details
        tiles = [
            draw(read_image(path), Segmentation(class_map, done.names, done.background))
            for path, class_map in done.shown
        ]
        if tiles:
            write_image(folder / "predictions.png", mosaic(tiles))
        try:
            from openlepton.metrics.plots import plot_confusion

            write_atomic(folder / "confusion.png", plot_confusion(done.report.confusion, done.names))
        except MissingExtra:
            return


def image_input(config: TrainConfig, network: Any) -> ImageInput:
    """Return how images come to the network in evaluation, as its card will say."""
    size = -(-config.size // network.multiple) * network.multiple
    return ImageInput(size=size, resize="letterbox", multiple=network.multiple)


def background_of(classes: Sequence[str]) -> int | None:
    """Return the class that is called background, if there is one: the card says which it is, for it is not drawn."""
    return next((index for index, name in enumerate(classes) if name.casefold() == BACKGROUND), None)


def _measured(
    task: Any,
    runtime: Any,
    split: Split,
    *,
    batch: int,
    workers: int,
    limit: int | None = None,
    progress: Progress | None = None,
) -> Measured:
    """Return the numbers; epochs are compared by mean IoU. Of each image a table is kept, and of a few what was found.

    Raises:
        UsageError: The model is no semantic segmenter, or its classes are not those of the data set.
    """
    if not isinstance(task, Semantic):
        raise UsageError(f"evaluate: expected a semantic segmenter, got a model for {type(task).__name__.lower()}")
    names = _named(split.classes, task.names)
    ids = _matched(task.names, names)
    count = len(split) if limit is None else min(limit, len(split))
    shown = set(np.linspace(0, count - 1, SHOWN).astype(int).tolist())

    def keep(seen: Seen) -> Seen:
        found = ids[seen.result.class_map]
        truth = split.annotation(seen.index).class_map
        if truth is None or truth.shape != found.shape:
            raise DataInvalid(f"{split.image(seen.index)}: there is no class map of its size")
        table = pixel_confusion(truth, found, len(names))
        return replace(seen, result=(table, found if seen.index in shown else None))

    seen, unreadable = run_over(
        task, runtime, split, batch=batch, workers=workers, limit=limit, progress=progress, keep=keep
    )
    tables: list[Ints] = [one.result[0] for one in seen]
    report = segmentation_report(tables, names, timing=Timing.of([one.timing for one in seen]))
    pictures = tuple((split.image(one.index), one.result[1]) for one in seen if one.result[1] is not None)
    background = background_of(names)
    miou = 0.0 if math.isnan(report.miou) else report.miou
    metrics = {"mIoU": report.miou, "pixel accuracy": report.accuracy}
    each = {f"IoU {name}": float(value) for name, value in zip(names, report.iou, strict=True)}
    metrics |= each if len(each) <= 12 else {}
    return Measured(
        fitness=miou,
        row={"miou": miou, "accuracy": report.accuracy},
        metrics={name: value for name, value in metrics.items() if not math.isnan(value)},
        images=len(seen),
        report=report,
        details=Painted(names, background, report, pictures),
        unreadable=unreadable,
    )


def _named(classes: Sequence[str], known: Sequence[str]) -> tuple[str, ...]:
    """Return the data set's classes; objects without a name are what the model calls what lies inside boundaries."""
    ends = (BACKGROUND, BOUNDARY)
    if tuple(classes) == (ends[0], *UNNAMED, ends[1]) and len(known) == 3 and (known[0], known[2]) == ends:
        return tuple(known)
    return tuple(classes)


def _matched(names: Sequence[str], classes: Sequence[str]) -> ClassMap:
    """Return the data set's id of each of the model's classes."""
    known = {name.casefold(): index for index, name in enumerate(classes)}
    unknown = [name for name in names if name.casefold() not in known]
    if unknown:
        raise UsageError(
            f"the model finds {', '.join(unknown[:5])}, which the data set does not know: it shows {', '.join(classes[:5])}"
        )
    return np.array([known[name.casefold()] for name in names], np.uint8)
