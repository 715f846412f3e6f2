"""What the trainer does not know: which data a task learns from, what its targets are, how good it is, what its card says.

One class for each task, in a file of its own; `run.py` and `loop.py` are the same for all of them.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

from openlepton.card import ModelFolder
from openlepton.data.augment import AugmentConfig
from openlepton.data.crops import CropConfig
from openlepton.data.loader import Batch
from openlepton.data.reader import Reader
from openlepton.data.samples import Dataset, Split
from openlepton.train.config import TrainConfig
from openlepton.train.watch import Watch


class Report(Protocol):
    """The numbers of an evaluation, as the command line prints them."""

    @property
    def header(self) -> tuple[str, ...]:
        """Names of the columns of `rows`."""

    def summary(self) -> Mapping[str, Any]:
        """Return the numbers of the whole split by name."""

    def rows(self) -> Iterable[Sequence[Any]]:
        """Yield one row for each class."""


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


class Lesson(Protocol):
    """Everything that one task knows and the trainer does not; pure functions, no state."""

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

    def measure(self, config: TrainConfig, network: Any, device: torch.device, val: Split) -> Measured:
        """Return how good a network in evaluation mode is."""

    def facts(self, config: TrainConfig, network: Any) -> Mapping[str, Any]:
        """Return the fields of the card that the task decides: `task`, `input`, and its own table."""

    def measure_folder(self, config: TrainConfig, folder: ModelFolder, val: Split) -> Measured:
        """Return how good the graph of a model folder is."""

    def draw_batch(self, path: Path, batch: Batch, names: Sequence[str]) -> None:
        """Write a picture of a training batch."""

    def draw(self, folder: Path, measured: Measured) -> None:
        """Write pictures of an evaluation."""
