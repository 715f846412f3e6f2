"""What a training tells whoever watches it, as it happens."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Note:
    """Something worth knowing."""

    text: str


@dataclass(frozen=True)
class Step:
    """A batch is done."""

    epoch: int
    epochs: int
    batch: int
    """How many batches of the epoch are done."""
    batches: int
    losses: Mapping[str, float]
    """Means over the epoch so far."""
    images_per_s: float
    eta_s: float
    """Seconds until all epochs are done, at the present speed."""


@dataclass(frozen=True)
class Epoch:
    """An epoch is done, evaluated or not."""

    epoch: int
    epochs: int
    row: Mapping[str, float]
    """Its row of `results.csv`."""
    best: bool
    """Whether it is the best so far."""


Event = Note | Step | Epoch
Watch = Callable[[Event], None]


def nobody(event: Event) -> None:
    """Watch nothing."""
