"""What the trainer does not know: which data a task learns from, what its targets are, how good it is, what its card says.

One class for each task, in a file of its own; `run.py` and `loop.py` are the same for all of them.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

from openlepton.data.augment import AugmentConfig
from openlepton.data.crops import CropConfig
from openlepton.data.loader import Batch
from openlepton.data.reader import Reader
from openlepton.data.samples import Dataset, Split
from openlepton.errors import ImageError, UsageError
from openlepton.predictor import Runtime
from openlepton.train.config import TrainConfig
from openlepton.train.watch import Watch


def placing(config: TrainConfig) -> AugmentConfig:
    """Return the augmentation of a task that says where things are.

    Raises:
        UsageError: The config varies images as classifiers want it.
    """
    if not isinstance(config.augment, AugmentConfig):
        raise UsageError(f"augment: {config.model} learns places: expected an AugmentConfig, got a CropConfig")
    return config.augment


class Report(Protocol):
    """The numbers of an evaluation, as the command line prints them."""

    @property
    def header(self) -> tuple[str, ...]:
        """Names of the columns of `rows`."""

    def summary(self) -> Mapping[str, Any]:
        """Return the numbers of the whole split by name."""

    def rows(self) -> Iterable[Sequence[Any]]:
        """Yield one row for each class."""

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as plain numbers and strings."""


@dataclass(frozen=True, eq=False)
class Measured:
    """How good a model is on a split."""

    fitness: float
    """What epochs are compared by; more is better."""
    row: Mapping[str, float]
    """What `results.csv` gets, without the prefix `val/`."""
    metrics: Mapping[str, float]
    """What the card gets, by the metric's name."""
    images: int
    report: Report
    details: Any = None
    """What `draw` needs."""
    unreadable: tuple[ImageError, ...] = ()
    """Images that were left out."""


class Lesson(Protocol):
    """Everything that one task knows and the trainer does not; pure functions, no state."""

    @property
    def defaults(self) -> Mapping[str, Any]:
        """The fields of `TrainConfig` that suit the task better than its own defaults, `model` among them."""

    @property
    def presets(self) -> Mapping[str, AugmentConfig | CropConfig]:
        """How far images may be varied, by name: none, low, medium, high."""

    def open(self, data: str | Path) -> Dataset:
        """Return the data set as the task understands it.

        Raises:
            DataError: It cannot be read, or does not say what the task has to know.
        """

    def data(self, config: TrainConfig, tell: Watch) -> tuple[Dataset, Split]:
        """Return the data set, and of its training split the part that there is something to learn from.

        Raises:
            DataError: Nothing, or nothing of some class.
        """

    def network(self, config: TrainConfig, train: Split, tell: Watch) -> Any:
        """Return a fresh network, a `Trainable`, that suits the data."""

    def reader(self, config: TrainConfig, train: Split, tell: Watch) -> Reader:
        """Return what reads images and labels."""

    def augmentation(self, config: TrainConfig, *, closing: bool) -> AugmentConfig | CropConfig:
        """Return how images are varied; `closing` in the last epochs, which come closer to what prediction sees."""

    def targets(self, batch: Batch, device: torch.device, scale: float) -> Any:
        """Return what the network's criterion compares with; the images were resized by `scale` after the batch was made."""

    def measure(self, config: TrainConfig, network: Any, runtime: Runtime, val: Split) -> Measured:
        """Return how good a network is, which `runtime` runs."""

    def facts(self, config: TrainConfig, network: Any, classes: Sequence[str]) -> Mapping[str, Any]:
        """Return the fields of the card that the task decides: `task`, `input`, and its own table."""

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
        """Return how good a model is on a split.

        Args:
            predictor: What `openlepton.load` gave for a model of this task.
            split: Of a data set that `open` gave.
            batch: The most images that go through the graph together.
            workers: Threads that read images ahead.
            limit: Only the first so many images.
            progress: Called with how many images are done, and how many there are.
        """

    def draw_batch(self, path: Path, batch: Batch, names: Sequence[str]) -> None:
        """Write a picture of a training batch."""

    def draw(self, folder: Path, measured: Measured) -> None:
        """Write pictures of an evaluation."""
