"""The lesson of classification: one class for each image, or any number of labels."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from openlepton.arrays import Bools, Floats, Ints
from openlepton.card import ClassifyFacts, ImageInput
from openlepton.data.augment import AugmentConfig
from openlepton.data.crops import CROPS, CropConfig
from openlepton.data.datasets import open_dataset
from openlepton.data.loader import Batch
from openlepton.data.reader import Reader
from openlepton.data.samples import Dataset, Split
from openlepton.data.survey import survey
from openlepton.drawing import draw
from openlepton.errors import DataEmpty, DataInvalid, ImageError, MissingExtra, UsageError
from openlepton.files import write_atomic
from openlepton.images import read_image, write_image
from openlepton.metrics import ClassificationReport, TagReport, Timing, classification_report, tag_report
from openlepton.nets.classifier_loss import ClassTargets
from openlepton.predictor import Runtime
from openlepton.results import Classification
from openlepton.train.config import LossConfig, TrainConfig
from openlepton.train.lesson import Measured
from openlepton.train.passes import Progress, Seen, run_over
from openlepton.train.report import SHOWN, mosaic
from openlepton.train.start import build
from openlepton.train.watch import Note, Watch
from openlepton.vision.classify import Classify

READ_LARGER = 2
"""How much larger than a training image its source is kept, for crops of it are enlarged."""

CROP_FRACTION = 0.875
"""What evaluation sees of the shorter side; the rest is the border, as customary for ImageNet."""


@dataclass(frozen=True, eq=False)
class Answers:
    """What a classifier said of a split."""

    images: tuple[Path, ...]
    scores: Floats
    """`(I, C)`."""
    truth: Ints | Bools
    """`(I,)` class ids, or `(I, C)` labels where any number may be right."""
    names: tuple[str, ...]
    report: ClassificationReport | TagReport
    unreadable: tuple[ImageError, ...] = ()


class Classifying:
    """How classifiers are trained; see `Lesson`."""

    defaults: Mapping[str, Any] = {
        "model": "efficientnet-lite0",
        "pretrained": "efficientnet-lite0",
        "epochs": 30,
        "batch": 64,
        "size": 224,
        "optimizer": "adamw",
        "schedule": "cosine",
        "lr": 1e-3,
        "momentum": 0.9,
        "warmup_momentum": 0.9,
        "warmup_bias_lr": 1e-3,
        "warmup_epochs": 1.0,
        "warmup_steps": 20,
        "weight_decay": 0.02,
        "ema_decay": 0.998,
        "ema_ramp": 200.0,
        "augment": CROPS["medium"],
        "loss": LossConfig(smoothing=0.1),
    }
    presets: Mapping[str, AugmentConfig | CropConfig] = CROPS

    def open(self, data: str | Path) -> Dataset:
        """Return the data set, which has classes of whole images.

        Raises:
            DataInvalid: It has something else.
        """
        dataset = open_dataset(data)
        if dataset.layout not in ("classes", "tags"):
            raise DataInvalid(
                f"{data}: a data set of the {dataset.layout} layout does not say what whole images show: expected a folder "
                "for each class, or labels.csv"
            )
        return dataset

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
                f"{config.data}: split {config.train_split} has no image of class {', '.join(missing[:5])}"
                f"{'...' if len(missing) > 5 else ''}: take it out of the class list, or allow empty classes"
            )
        usable = train.take(found.usable)
        if not config.multi_label:
            single(usable)
        return dataset, usable

    def network(self, config: TrainConfig, train: Split, tell: Watch) -> Any:
        """Return a fresh classifier."""
        return build(config.model, len(train.classes), multi_label=config.multi_label)

    def reader(self, config: TrainConfig, train: Split, tell: Watch) -> Reader:
        """Return what reads images and their classes."""
        return Reader(
            train,
            config.size * READ_LARGER,
            cache_bytes=config.cache_mb * 1_000_000,
            report=lambda error: tell(Note(f"left out: {error}")),
        )

    def augmentation(self, config: TrainConfig, *, closing: bool) -> CropConfig:
        """Return how images are cropped and varied."""
        crops = replace(cropping(config), size=config.size)
        return crops.closing() if closing else crops

    def targets(self, batch: Batch, device: torch.device, scale: float) -> ClassTargets:
        """Return which classes each image shows, and how much of each."""
        shares = np.ones(len(batch.rows), np.float32) if batch.shares is None else batch.shares
        columns = (batch.rows, batch.class_ids, shares)
        return ClassTargets(*(torch.from_numpy(column).to(device, non_blocking=True) for column in columns))

    def measure(self, config: TrainConfig, network: Any, runtime: Runtime, val: Split) -> Measured:
        """Return how often a network is right."""
        return measured_of(answers(task_of(config, val.classes), runtime, val, batch=32, workers=config.workers))

    def facts(self, config: TrainConfig, network: Any, classes: Sequence[str]) -> Mapping[str, Any]:
        """Return the card's `task`, `input`, and `classify` where any number of classes may be right."""
        return {
            "task": "classify",
            "input": image_input(config),
            "classify": ClassifyFacts() if config.multi_label else None,
        }

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
        """Return how often a model is right."""
        return measured_of(
            answers(
                predictor.task, predictor.runtime, split, batch=batch, workers=workers, limit=limit, progress=progress
            )
        )

    def draw_batch(self, path: Path, batch: Batch, names: Sequence[str]) -> None:
        """Write the images with their classes."""
        tiles = []
        for row, pixels in enumerate(batch.images[:SHOWN]):
            mine = batch.rows == row
            shares = np.zeros(len(names), np.float32)
            np.add.at(shares, batch.class_ids[mine], 1 if batch.shares is None else batch.shares[mine])
            tiles.append(draw(np.ascontiguousarray(pixels.transpose(1, 2, 0)), Classification(shares, names)))
        write_image(path, mosaic(tiles))

    def draw(self, folder: Path, measured: Measured) -> None:
        """Write a mosaic of predictions, wrong ones first, and the confusion matrix where matplotlib is installed."""
        done: Answers = measured.details
        write_image(folder / "predictions.png", _mosaic(done))
        if isinstance(done.report, ClassificationReport):
            try:
                from openlepton.metrics.plots import plot_confusion

                write_atomic(folder / "confusion.png", plot_confusion(done.report.confusion, done.names))
            except MissingExtra:
                return


def cropping(config: TrainConfig) -> CropConfig:
    """Return the augmentation of a classifier.

    Raises:
        UsageError: The config varies images as detectors want it.
    """
    if not isinstance(config.augment, CropConfig):
        raise UsageError(f"augment: {config.model} learns whole images: expected a CropConfig, got an AugmentConfig")
    return config.augment


def task_of(config: TrainConfig, classes: Sequence[str]) -> Classify:
    """Return what surrounds the network in evaluation."""
    return Classify(
        image_input(config), tuple(classes), min_score=ClassifyFacts().min_score if config.multi_label else None
    )


def image_input(config: TrainConfig) -> ImageInput:
    """Return how images come to the network in evaluation, as its card will say."""
    return ImageInput(size=config.size, resize="crop", multiple=1, crop_fraction=CROP_FRACTION)


def single(split: Split) -> Ints:
    """Return the class id of each image, `(I,)`.

    Raises:
        DataInvalid: An image has none, or several.
    """
    ids = []
    for index in range(len(split)):
        found = split.annotation(index)
        tags = (found.tags or ()) if found.class_id is None else (found.class_id,)
        if len(tags) != 1:
            raise DataInvalid(
                f"{found.image}: has {len(tags)} classes, expected one: train with multi_label (--multi-label) "
                "where any number may be right"
            )
        ids.append(tags[0])
    return np.array(ids, np.int64)


def labels_of(split: Split) -> Bools:
    """Return which labels each image has, `(I, C)`."""
    labels = np.zeros((len(split), len(split.classes)), np.bool_)
    for index in range(len(split)):
        found = split.annotation(index)
        labels[index, list(found.tags or ()) if found.class_id is None else [found.class_id]] = True
    return labels


def answers(
    task: Classify,
    runtime: Any,
    split: Split,
    *,
    batch: int = 1,
    workers: int = 0,
    limit: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Answers:
    """Return what a classifier says of a split; classes are matched by name, and those that the data set has not are left out.

    Raises:
        UsageError: The model is no classifier, or knows no class of the data set.
        DataEmpty: No image can be read.
    """
    if not isinstance(task, Classify):
        raise UsageError(f"evaluate: expected a classifier, got a model for {type(task).__name__.lower()}")
    columns = _columns(task.names, split.classes)
    seen, unreadable = run_over(
        task, runtime, split, batch=batch, workers=workers, limit=limit, progress=progress, keep=_scores_alone
    )
    known = np.array([one.result for one in seen], np.float32)  # (I, classes of the model)
    scores = np.zeros((len(seen), len(split.classes)), np.float32)
    scores[:, columns >= 0] = known[:, columns[columns >= 0]]
    images, timing = split.take([one.index for one in seen]), Timing.of([one.timing for one in seen])
    done = answered(images, truth_of(images, task.min_score), scores, min_score=task.min_score, timing=timing)
    return replace(done, unreadable=unreadable)


def truth_of(split: Split, min_score: float | None) -> Ints | Bools:
    """Return the class of each image, `(I,)`, or where a threshold says that any number may be right its labels, `(I, C)`."""
    return single(split) if min_score is None else labels_of(split)


def answered(
    split: Split, truth: Ints | Bools, scores: Floats, *, min_score: float | None, timing: Timing | None = None
) -> Answers:
    """Return the numbers for `scores (I, C)` of the images of a split."""
    report: ClassificationReport | TagReport
    if min_score is None:
        report = classification_report(scores, truth.astype(np.int64), split.classes, timing=timing)
    else:
        report = tag_report(scores, truth.astype(np.bool_), split.classes, min_score=min_score, timing=timing)
    images = tuple(split.image(index) for index in range(len(split)))
    return Answers(images, scores, truth, split.classes, report)


def _scores_alone(seen: Seen) -> Seen:
    return replace(seen, result=seen.result.scores)


def _columns(names: Sequence[str], classes: Sequence[str]) -> Ints:
    """Return which of the model's outputs is each class of the data set, -1 where there is none."""
    known = {name.casefold(): index for index, name in enumerate(names)}
    columns = np.array([known.get(name.casefold(), -1) for name in classes], np.int64)
    if (columns < 0).all():
        raise UsageError(
            f"the model knows {', '.join(names[:5])}..., the data set shows {', '.join(classes[:5])}...: no class in common"
        )
    return columns


def measured_of(done: Answers) -> Measured:
    """Return the numbers; epochs are compared by top-1, or by mean average precision."""
    report = done.report
    if isinstance(report, ClassificationReport):
        fitness, row = report.top1, {"top1": report.top1, "top5": report.top5}
        metrics = {"top-1 accuracy": report.top1}
        if len(done.names) > 5:
            metrics["top-5 accuracy"] = report.top5
    else:
        fitness, row, metrics = report.map, {"map": report.map, "f1": report.micro_f1}, {"mAP": report.map}
        metrics["F1"] = report.micro_f1
    known = {name: value for name, value in metrics.items() if not math.isnan(value)}
    return Measured(0.0 if math.isnan(fitness) else fitness, row, known, report.images, report, done, done.unreadable)


def _mosaic(done: Answers) -> Any:
    """Return pictures of the split with what was said of them: wrong answers first, then spread evenly."""
    right = done.scores.argmax(1) == done.truth if done.truth.ndim == 1 else np.ones(len(done.images), np.bool_)
    wrong, rest = np.flatnonzero(~right)[: SHOWN // 2], np.flatnonzero(right)
    left = SHOWN - len(wrong)
    spread = rest[np.unique(np.linspace(0, len(rest) - 1, left).astype(int))] if len(rest) else rest
    tiles = [
        draw(read_image(done.images[row]), Classification(done.scores[row], done.names)) for row in (*wrong, *spread)
    ]
    return mosaic(tiles)
