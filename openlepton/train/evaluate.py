"""How good a detector is on a split: any runtime, through the same steps that prediction takes, by COCO's rules."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from openlepton.arrays import Ints, Tensors
from openlepton.card import ModelFolder
from openlepton.data.folders import UNNAMED
from openlepton.data.samples import Split
from openlepton.errors import ImageError, UsageError
from openlepton.metrics import DetectionReport, GroundTruth, Timing, evaluate_detections
from openlepton.nets.export import Exportable
from openlepton.ops.geometry import Frame
from openlepton.predictor import Runtime
from openlepton.results import Detections
from openlepton.train.config import Precision
from openlepton.train.passes import run_over
from openlepton.train.precision import autocast
from openlepton.vision.detect import Detect
from openlepton.vision.segment import Segment

MIN_SCORE = 0.001
MAX_IOU = 0.6
MAX_DETECTIONS = 300
"""Kept for each image; of them COCO counts the best 100 of each class."""


class Detector(Protocol):
    """What can be evaluated: a `Predictor`, or anything else with these two."""

    @property
    def task(self) -> Any:
        """A `Detect`."""

    @property
    def runtime(self) -> Runtime:
        """What runs the graph."""


@dataclass(frozen=True)
class Pair:
    """A task and what runs it, where there is no card yet."""

    task: Detect
    runtime: Runtime


@dataclass(frozen=True, eq=False)
class Evaluation:
    """The numbers, and what they were taken from."""

    report: DetectionReport
    names: tuple[str, ...]
    """Of the classes, as the data set has them."""
    images: tuple[Path, ...]
    truth: tuple[GroundTruth, ...]
    """`(I,)` what is annotated in each image."""
    found: tuple[Detections, ...]
    """`(I,)` what was found in it, with the data set's class ids."""
    unreadable: tuple[ImageError, ...]
    """Images that were left out."""


class NetworkRuntime:
    """A network of `nets/` run by torch as a runtime runs a graph.

    Args:
        network: In evaluation mode.
        device: Where its weights are.
        precision: Of the arithmetic; float32 is what exported graphs compute in.
    """

    def __init__(
        self, network: Exportable, device: torch.device | str = "cpu", precision: Precision = "float32"
    ) -> None:
        if network.training:
            raise UsageError("network: expected one in evaluation mode (network.eval())")
        self._network, self._device, self._precision = network, torch.device(device), precision

    def __call__(self, inputs: Any) -> Tensors:
        """Return the outputs by name, for `images (B,3,H,W)` float32 0..1 RGB."""
        images = torch.from_numpy(inputs["images"]).to(self._device)
        with torch.inference_mode(), autocast(self._precision, self._device):
            outputs = self._network.decode(self._network.forward(images))
        values = (outputs,) if isinstance(outputs, torch.Tensor) else outputs
        return {name: value.float().cpu().numpy() for name, value in zip(self._network.outputs, values, strict=True)}


def network_factory(network: Exportable) -> Callable[[ModelFolder], Runtime]:
    """Return a factory for `openlepton.load(..., runtime=...)` that runs `network` in place of the folder's graph."""
    return lambda folder: NetworkRuntime(network)


def evaluate(
    detector: Detector,
    split: Split,
    *,
    batch: int = 1,
    workers: int = 0,
    limit: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Return COCO's numbers for a detector's boxes on a split; those of a segmenter's masks are found from what comes back.

    Every detection above a score of 0.001 counts, boxes of one class overlap by at most 0.6, one box may have several
    classes. Classes are matched by name; a class that the detector does not know is never found, and one that the data set
    does not know is not counted. Timings are the median for one image; those of single images (`batch=1`, `workers=0`) are
    what prediction takes, but for the lower threshold.

    Args:
        detector: A predictor for detection, with any runtime.
        split: Images and what is to be found in them.
        batch: The most images that go through the graph together; only those of the same shape do.
        workers: Threads that read images ahead.
        limit: Only the first so many images.
        progress: Called with how many images are done, and how many there are.

    Raises:
        UsageError: The detector is none, or knows no class of the data set.
        DataEmpty: No image can be read.
    """
    if not isinstance(detector.task, Detect):
        raise UsageError(f"evaluate: expected a detector, got a model for {type(detector.task).__name__.lower()}")
    ids = _matched(detector.task.names, split.classes)
    task = replace(
        detector.task,
        min_score=MIN_SCORE,
        max_iou=MAX_IOU,
        max_detections=MAX_DETECTIONS,
        multi_label=len(split.classes) > 1,
        class_ids=np.flatnonzero(ids >= 0),
        agnostic=False,
    )
    seen, unreadable = run_over(
        task, detector.runtime, split, batch=batch, workers=workers, limit=limit, progress=progress
    )
    truth = tuple(_truth(split, one.index, one.frame, masks=isinstance(task, Segment)) for one in seen)
    found: tuple[Detections, ...] = tuple(
        replace(one.result, class_ids=ids[one.result.class_ids], names=split.classes) for one in seen
    )
    timing = Timing.of([one.timing for one in seen])
    report = evaluate_detections(truth, found, split.classes, timing=timing)
    images = tuple(split.image(one.index) for one in seen)
    return Evaluation(report, split.classes, images, truth, found, unreadable)


def _matched(names: Sequence[str], classes: Sequence[str]) -> Ints:
    """Return the data set's id of each of the detector's classes, -1 where it has none; one class without a name is any."""
    if tuple(classes) == UNNAMED and len(names) == 1:
        return np.zeros(1, np.int64)
    known = {name.casefold(): index for index, name in enumerate(classes)}
    ids = np.array([known.get(name.casefold(), -1) for name in names], np.int64)
    if (ids < 0).all():
        raise UsageError(
            f"the detector finds {', '.join(names[:5])}..., the data set shows {', '.join(classes[:5])}...: no class in common"
        )
    return ids


def _truth(split: Split, index: int, frame: Frame, *, masks: bool) -> GroundTruth:
    objects = split.annotation(index).located(frame.image_hw).objects
    drawn = objects.masks(frame.image_hw) if masks else None
    return GroundTruth(objects.boxes, objects.class_ids, objects.crowd, objects.difficult, objects.areas, drawn)
