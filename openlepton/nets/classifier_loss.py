"""The losses of classifiers: cross-entropy where one class is right, and for each label apart where any number may be."""

from typing import NamedTuple

from torch import Tensor
from torch.nn import functional as F

from openlepton.nets.losses import LossConfig


class ClassTargets(NamedTuple):
    """What the images of a batch show, label by label."""

    rows: Tensor
    """`(N,)` which image of the batch each label is of."""
    class_ids: Tensor
    """`(N,)`."""
    shares: Tensor
    """`(N,)` how much of its image each label stands for, 0..1; of an image where one class is right they sum to 1."""


class ClassifierLoss:
    """Cross-entropy with smoothed targets (Szegedy et al. 2016, section 7); see `Criterion`.

    Args:
        weights: Of which `smoothing` counts.
        multi_label: Whether labels do not exclude each other; the loss is then the mean over labels.
    """

    parts: tuple[str, ...] = ("cls",)

    def __init__(self, weights: LossConfig, *, multi_label: bool) -> None:
        self.smoothing, self.multi_label = weights.smoothing, multi_label

    def __call__(self, logits: Tensor, given: ClassTargets) -> tuple[Tensor, Tensor]:
        """Return the loss summed over the images, and its mean, `(1,)`, for logits `(B, C)`."""
        logits = logits.float()
        targets = logits.new_zeros(logits.shape).index_put_(
            (given.rows, given.class_ids), given.shares, accumulate=True
        )
        if self.multi_label:
            targets = targets * (1 - self.smoothing) + self.smoothing / 2
            each = F.binary_cross_entropy_with_logits(logits, targets, reduction="none").mean(1)  # (B,)
        else:
            targets = targets * (1 - self.smoothing) + self.smoothing / logits.shape[1]
            each = -(targets * logits.log_softmax(1)).sum(1)  # (B,)
        return each.sum(), each.mean().detach()[None]
