"""What the trainer knows of a network and of its loss, whatever the architecture."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor, nn

from openlepton.errors import UsageError


@dataclass(frozen=True)
class LossConfig:
    """Weights of the parts of a loss, and in detectors who answers for an object; the published values of YOLOv5.

    Raises:
        UsageError: A value is out of range.
    """

    box: float = 0.05
    obj: float = 1.0
    """For images of 640 pixels."""
    cls: float = 0.5
    """For 80 classes."""
    max_ratio: float = 4.0
    """Anchors answer for objects less than so many times as wide and high, and no fewer than one in so many."""
    smoothing: float = 0.0
    """What the classes' targets are drawn towards 1/2 by (label smoothing), or towards all classes alike where one is right."""
    focus: float = 0.0
    """The exponent of focal loss (Lin et al. 2017, there 1.5 to 2); 0 is cross-entropy."""
    dice: float = 1.0
    """In semantic segmentation, of the overlap of areas beside the cross-entropy of pixels."""

    def __post_init__(self) -> None:
        weights = (self.box, self.obj, self.cls, self.focus, self.dice)
        if min(weights) < 0 or self.max_ratio <= 1 or not 0 <= self.smoothing < 1:
            raise UsageError(f"loss: expected weights of 0 or more, max_ratio above 1, smoothing 0 to 1, got {self}")


class Criterion(Protocol):
    """The loss of one network."""

    @property
    def parts(self) -> tuple[str, ...]:
        """Names of its terms, such as box, obj, cls."""

    def __call__(self, raw: Any, targets: Any, /) -> tuple[Tensor, Tensor]:
        """Return the loss summed over the images of the batch, and its terms for one image, `(P,)`.

        Args:
            raw: What the network's `forward` gave.
            targets: What the task's lesson made of a batch; for detectors `(N, 6)` row of the batch, class, centre x, y,
                width and height in pixels of the images.
        """


class Trainable(Protocol):
    """A network that can be trained: a `torch.nn.Module` with these as well."""

    @property
    def multiple(self) -> int:
        """What height and width of the images must be divisible by."""

    @property
    def stages(self) -> tuple[Sequence[nn.Module], int]:
        """Its parts from the image on, for freezing, and how many of them are the backbone."""

    def criterion(self, weights: LossConfig, size: int) -> Criterion:
        """Return the loss; `size` is the longest side of the images, pixels."""
