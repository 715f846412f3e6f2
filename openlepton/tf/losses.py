"""What the networks learn from: twins of `nets/yolov5_loss.py` and `nets/classifier_loss.py`, equal to them on the same tensors."""

from collections.abc import Sequence
from math import pi
from typing import Any, NamedTuple, Protocol

import numpy as np

from openlepton.nets.losses import LossConfig
from openlepton.nets.yolov5 import Config
from openlepton.nets.yolov5_loss import BALANCE, NEIGHBOUR
from openlepton.tf.blocks import Tensor
from openlepton.tf.imports import tf


class Criterion(Protocol):
    """The loss of one network, as in `nets.losses`; maps are `(B, H, W, ...)` here."""

    @property
    def parts(self) -> tuple[str, ...]:
        """Names of its terms."""

    def __call__(self, raw: Any, targets: Any, /) -> tuple[Tensor, Tensor]:
        """Return the loss summed over the images of the batch, and its terms for one image, `(P,)`."""


class Assigned(NamedTuple):
    """The cells of one level that answer for an object: P of them."""

    target: Tensor
    """`(P,)` row of the object among the targets."""
    cell: Tensor
    """`(P, 4)` row of the batch, row and column of the map, anchor."""
    boxes: Tensor
    """`(P, 4)` centre, relative to the cell's corner, and size, in cells."""
    classes: Tensor
    """`(P,)`"""


class Yolov5Loss:
    """The loss of raw maps against boxes.

    Args:
        config: The network's.
        weights: Of the parts.
        size: Longest side of the images of the training, pixels.
    """

    parts = ("box", "obj", "cls")

    def __init__(self, config: Config, weights: LossConfig, size: int = 640) -> None:
        levels = len(config.anchors)
        self.config, self.max_ratio, self.focus = config, weights.max_ratio, weights.focus
        self.high, self.low = 1 - weights.smoothing / 2, weights.smoothing / 2
        even = 3 / levels
        self.gains = (
            weights.box * even,
            weights.obj * (size / 640) ** 2 * even,
            weights.cls * config.classes / 80 * even,
        )

    def __call__(self, maps: Sequence[Tensor], targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return the loss summed over the batch's images, and its parts for one image, `(3,)` box, objectness, classes.

        Args:
            maps: For each level `(B, H, W, A * (5 + C))` logits.
            targets: `(N, 6)` row of the batch, class, centre x, y, width and height in pixels of the images.
        """
        parts, _ = self.terms(maps, targets)
        return tf.reduce_sum(parts) * tf.cast(tf.shape(maps[0])[0], tf.float32), parts

    def terms(self, maps: Sequence[Tensor], targets: Tensor) -> tuple[Tensor, list[tuple[Assigned, Tensor]]]:
        """Return the parts for one image, `(3,)`, and for each level the cells that answer and their `(P, 5 + C + E)` logits."""
        C, answers = self.config.classes, []
        box = obj = cls = tf.constant(0.0)
        levels = zip(maps, self.config.anchors, self.config.strides, BALANCE[len(maps)], strict=True)
        for raw, pixels, stride, weight in levels:
            B, H, W = tf.unstack(tf.shape(raw)[:3])
            anchors = tf.constant(np.array(pixels, np.float32) / np.float32(stride))  # (A, 2)
            shape = tf.stack((B, H, W, len(pixels), raw.shape[-1] // len(pixels)))
            logits = tf.reshape(tf.cast(raw, tf.float32), shape)  # (B, H, W, A, 5 + C + E)
            found = assign(targets, anchors, stride, (H, W), self.max_ratio)
            own = tf.gather_nd(logits, found.cell)  # (P, 5 + C + E)
            answers.append((found, own))
            centre = tf.sigmoid(own[:, :2]) * 2 - 0.5
            lengths = (tf.sigmoid(own[:, 2:4]) * 2) ** 2 * tf.gather(anchors, found.cell[:, 3])
            overlap = ciou(tf.concat((centre, lengths), 1), found.boxes)  # (P,)
            box += _mean(1 - overlap)
            # Where several objects want one cell, the best overlap counts: the same on every device and in any order.
            wanted = tf.tensor_scatter_nd_max(tf.zeros(shape[:4]), found.cell, tf.maximum(tf.stop_gradient(overlap), 0))
            if C > 1:
                truth = tf.one_hot(found.classes, C, on_value=self.high, off_value=self.low)
                cls += self._cross_entropy(own[:, 5 : 5 + C], truth)
            obj += self._cross_entropy(logits[..., 4], wanted) * weight
        return tf.stack((box * self.gains[0], obj * self.gains[1], cls * self.gains[2])), answers

    def _cross_entropy(self, logits: Tensor, truth: Tensor) -> Tensor:
        each = tf.nn.sigmoid_cross_entropy_with_logits(truth, logits)
        if self.focus:
            share = tf.sigmoid(logits)
            right = truth * share + (1 - truth) * (1 - share)
            balance = truth * 0.25 + (1 - truth) * 0.75
            each = each * balance * (1 - right) ** self.focus
        return _mean(each)


class ClassifierLoss:
    """Cross-entropy with smoothed targets; of each label apart where labels do not exclude each other.

    Args:
        weights: Of which `smoothing` counts.
        multi_label: Whether labels do not exclude each other; the loss is then the mean over labels.
    """

    parts = ("cls",)

    def __init__(self, weights: LossConfig, *, multi_label: bool) -> None:
        self.smoothing, self.multi_label = weights.smoothing, multi_label

    def __call__(self, logits: Tensor, given: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Return the loss summed over the images, and its mean, `(1,)`.

        Args:
            logits: `(B, C)`.
            given: `(N,)` three times: row of the batch, class, and how much of the image the label stands for.
        """
        rows, class_ids, shares = given
        C = logits.shape[1]
        truth = tf.scatter_nd(tf.stack((rows, class_ids), 1), shares, tf.shape(logits, rows.dtype))
        if self.multi_label:
            truth = truth * (1 - self.smoothing) + self.smoothing / 2
            each = tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(truth, logits), 1)  # (B,)
        else:
            truth = truth * (1 - self.smoothing) + self.smoothing / C
            each = -tf.reduce_sum(truth * tf.nn.log_softmax(logits), 1)  # (B,)
        return tf.reduce_sum(each), tf.reduce_mean(each)[None]


def assign(targets: Tensor, anchors: Tensor, stride: int, size_hw: tuple[Any, Any], max_ratio: float) -> Assigned:
    """Return the cells of a level that answer for `targets`: the centre's and up to two neighbours, for anchors of like size.

    Args:
        targets: `(N, 6)` as the loss takes them.
        anchors: `(A, 2)` width and height in cells.
        stride: Pixels of a cell.
        size_hw: Rows and columns of the level.
        max_ratio: How many times an object may be larger or smaller than an anchor, in width and in height.
    """
    places = targets[:, 2:] / stride  # (N, 4) in cells
    ratio = places[None, :, 2:] / anchors[:, None]  # (A, N, 2)
    fits = tf.reduce_max(tf.maximum(ratio, 1 / ratio), 2) < max_ratio
    anchor, target = tf.unstack(tf.cast(tf.where(fits), tf.int32), axis=1)  # (K,)
    centre = tf.gather(places[:, :2], target)  # (K, 2)
    ends = tf.cast(tf.stack(size_hw[::-1]), tf.float32)
    from_end = ends - centre
    before = (centre % 1 < NEIGHBOUR) & (centre > 1)  # (K, 2): left, above
    after = (from_end % 1 < NEIGHBOUR) & (from_end > 1)  # right, below
    chosen = tf.stack((tf.ones_like(before[:, 0]), before[:, 0], before[:, 1], after[:, 0], after[:, 1]))  # (5, K)
    steps = tf.constant([[0, 0], [-1, 0], [0, -1], [1, 0], [0, 1]], tf.float32) * NEIGHBOUR
    which, pair = tf.unstack(tf.where(chosen), axis=1)  # (P,)
    corner = tf.floor(tf.gather(centre, pair) + tf.gather(steps, which))
    corner = tf.minimum(tf.maximum(corner, 0), ends - 1)
    row_of = tf.gather(target, pair)
    boxes = tf.concat((tf.gather(centre, pair) - corner, tf.gather(places[:, 2:], row_of)), 1)
    column, row = tf.unstack(tf.cast(corner, tf.int32), axis=1)
    image, classes = tf.unstack(tf.cast(tf.gather(targets[:, :2], row_of), tf.int32), axis=1)
    return Assigned(row_of, tf.stack((image, row, column, tf.gather(anchor, pair)), 1), boxes, classes)


def ciou(a: Tensor, b: Tensor, epsilon: float = 1e-7) -> Tensor:
    """Return complete IoU (Zheng et al. 2020, arXiv:1911.08287) row by row, two `(P, 4)` of centre and size to `(P,)`."""
    (ax, ay, aw, ah), (bx, by, bw, bh) = tf.unstack(a, axis=1), tf.unstack(b, axis=1)
    left, right = tf.maximum(ax - aw / 2, bx - bw / 2), tf.minimum(ax + aw / 2, bx + bw / 2)
    top, bottom = tf.maximum(ay - ah / 2, by - bh / 2), tf.minimum(ay + ah / 2, by + bh / 2)
    shared = tf.maximum(right - left, 0) * tf.maximum(bottom - top, 0)
    iou = shared / (aw * ah + bw * bh - shared + epsilon)
    around_w = tf.maximum(ax + aw / 2, bx + bw / 2) - tf.minimum(ax - aw / 2, bx - bw / 2)
    around_h = tf.maximum(ay + ah / 2, by + bh / 2) - tf.minimum(ay - ah / 2, by - bh / 2)
    apart = ((ax - bx) ** 2 + (ay - by) ** 2) / (around_w**2 + around_h**2 + epsilon)
    shape = (tf.atan(bw / (bh + epsilon)) - tf.atan(aw / (ah + epsilon))) ** 2 * (4 / pi**2)
    weight = tf.stop_gradient(shape / (1 - iou + shape + epsilon))
    return iou - apart - weight * shape


def _mean(values: Tensor) -> Tensor:
    """Return the mean, and 0 of nothing."""
    return tf.math.divide_no_nan(tf.reduce_sum(values), tf.cast(tf.size(values), tf.float32))
