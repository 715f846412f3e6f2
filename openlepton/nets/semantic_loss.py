"""The loss of semantic segmentation: cross-entropy of pixels, and the overlap of areas, in which rare classes count as much."""

import torch
from torch import Tensor
from torch.nn import functional as F

from openlepton.arrays import UNKNOWN
from openlepton.nets.losses import LossConfig


class SemanticLoss:
    """Cross-entropy plus the soft Dice loss (Milletari et al. 2016) of the classes that the batch shows; see `Criterion`.

    Pixels whose class is not known (255) count in neither.

    Args:
        weights: Of which `smoothing` and `dice` count.
    """

    parts: tuple[str, ...] = ("cls", "dice")

    def __init__(self, weights: LossConfig) -> None:
        self.smoothing, self.dice = weights.smoothing, weights.dice

    def __call__(self, logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return the loss times the number of images, and its two terms, `(2,)`.

        Args:
            logits: `(B, C, h, w)`.
            targets: `(B, H, W)` class ids; logits are interpolated to that size.
        """
        targets = targets.long()
        logits = F.interpolate(logits.float(), targets.shape[1:], mode="bilinear", align_corners=False)  # (B, C, H, W)
        known = targets != UNKNOWN  # (B, H, W)
        # A batch of which nothing is known gives nothing to learn, not a division by zero.
        each = F.cross_entropy(logits, targets, ignore_index=UNKNOWN, reduction="sum", label_smoothing=self.smoothing)
        cross_entropy = each / known.sum().clamp(min=1)
        scores = logits.softmax(1) * known[:, None]
        truth = F.one_hot(targets.where(known, 0), logits.shape[1]).permute(0, 3, 1, 2) * known[:, None]  # (B, C, H, W)
        areas = truth.sum((0, 2, 3))  # (C,)
        overlap = 2 * (scores * truth).sum((0, 2, 3)) / (scores.sum((0, 2, 3)) + areas).clamp(min=1e-6)
        shown = areas > 0
        dice = (1 - overlap)[shown].sum() / shown.sum().clamp(min=1)
        total = (cross_entropy + self.dice * dice) * len(logits)
        return total, torch.stack((cross_entropy.detach(), dice.detach()))
