"""The twin of the loss in `nets/yolov3.py`: squared error for the box, cross-entropy for objectness and classes."""

from collections.abc import Sequence

import numpy as np

from openlepton.nets.losses import LossConfig
from openlepton.nets.yolov3 import GAINS, LARGEST, Config
from openlepton.tf.blocks import Tensor
from openlepton.tf.imports import tf
from openlepton.tf.yolov5 import cells


class Yolov3Loss:
    """The loss of raw maps against boxes, as `nets.yolov3.Yolov3Loss` describes it.

    Args:
        config: The network's.
        weights: Of the parts, in proportion to their defaults.
        ignore: What overlaps an object by more than this IoU, and was not asked for, is not told that nothing was there.
    """

    parts = ("box", "obj", "cls")

    def __init__(self, config: Config, weights: LossConfig, *, ignore: float = 0.7) -> None:
        self.config, self.ignore = config, ignore
        self.gains = [gain * own for gain, own in zip(GAINS, (weights.box, weights.obj, weights.cls), strict=True)]
        self.high, self.low = 1 - weights.smoothing / 2, weights.smoothing / 2

    def __call__(self, maps: Sequence[Tensor], targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return the loss summed over the batch's images, and its parts for one image, `(3,)` box, objectness, classes.

        Args:
            maps: For each level `(B, H, W, A * (5 + C))` logits.
            targets: `(N, 6)` row of the batch, class, centre x, y, width and height in pixels of the images.
        """
        pixels = np.array(self.config.anchors, np.float32)  # (L, A, 2)
        best = tf.argmax(shape_iou(targets[:, 4:], tf.constant(pixels.reshape(-1, 2))), 1)  # (N,)
        box = obj = cls = tf.constant(0.0)
        for level, (raw, anchors, stride) in enumerate(zip(maps, pixels, self.config.strides, strict=True)):
            A = len(anchors)
            B, H, W = tf.unstack(tf.shape(raw)[:3])
            logits = tf.reshape(raw, tf.stack((B, H, W, A, 5 + self.config.classes)))
            mine = best // A == level
            asked, anchor = tf.boolean_mask(targets, mine), tf.cast(tf.boolean_mask(best, mine) % A, tf.int32)
            answering, places, kinds = self._asked(logits, asked, anchor, tf.constant(anchors), stride)
            box, cls = box + places, cls + kinds
            wanted = tf.tensor_scatter_nd_max(
                tf.zeros((B, H, W, A)), answering, tf.ones_like(answering[:, 0], tf.float32)
            )
            spared = self._found(tf.stop_gradient(logits), targets, anchors, stride) & (wanted == 0)
            each = tf.nn.sigmoid_cross_entropy_with_logits(wanted, logits[..., 4])
            obj += tf.reduce_sum(tf.where(spared, 0.0, each))
        terms = tf.stack((box, obj, cls)) * tf.constant(self.gains)
        return tf.reduce_sum(terms), terms / tf.cast(tf.shape(maps[0])[0], tf.float32)

    def _asked(
        self, logits: Tensor, targets: Tensor, anchor: Tensor, anchors: Tensor, stride: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the cells `(U, 4)` of a level that answer for an object, and their loss of boxes and of classes."""
        _, H, W, A = tf.unstack(tf.shape(logits)[:4])
        image, kind = tf.unstack(tf.cast(targets[:, :2], tf.int32), axis=1)
        centre = targets[:, 2:4] / stride
        corner = tf.minimum(tf.maximum(tf.floor(centre), 0), tf.cast(tf.stack((W - 1, H - 1)), tf.float32))
        column, row = tf.unstack(tf.cast(corner, tf.int32), axis=1)
        place = tf.stack((image, row, column, anchor), 1)  # (M, 4)
        # One cell answers for one box, the last that asks, and for the classes of all: so every order of sums is the same.
        numbers, which = tf.unique(((image * A + anchor) * H + row) * W + column)
        last = tf.math.unsorted_segment_max(tf.range(tf.size(which)), which, tf.size(numbers))  # (U,)
        answering, sides = tf.gather(place, last), tf.gather(targets[:, 4:], last)
        own = tf.gather_nd(logits, answering)  # (U, 5 + C)
        shift = tf.gather(centre - corner, last)
        truth = tf.concat((shift, tf.math.log(sides / tf.gather(anchors, tf.gather(anchor, last)))), 1)
        area = tf.cast(H * W * stride**2, tf.float32)
        scale = 2 - tf.reduce_prod(sides, 1, keepdims=True) / area
        given = tf.concat((straight_sigmoid(own[:, :2]), own[:, 2:4]), 1)
        box = tf.reduce_sum(scale * (given - truth) ** 2) / 2
        kinds = tf.fill(tf.shape(own[:, 5:]), self.low)
        pairs = tf.stack((which, kind), 1)
        kinds = tf.tensor_scatter_nd_max(kinds, pairs, tf.fill(tf.shape(kind), self.high))
        return answering, box, tf.reduce_sum(tf.nn.sigmoid_cross_entropy_with_logits(kinds, own[:, 5:]))

    def _found(self, logits: Tensor, targets: Tensor, anchors: np.ndarray, stride: int) -> Tensor:
        """Return which boxes of a level lie well on some object, `(B, H, W, A)`."""
        _, H, W = tf.unstack(tf.shape(logits)[:3])
        centre = (tf.sigmoid(logits[..., :2]) + cells(H, W)[..., None, :]) * stride  # (B, H, W, A, 2)
        half = tf.exp(tf.minimum(logits[..., 2:4], LARGEST)) * tf.constant(anchors / 2)
        boxes = tf.concat((centre - half, centre + half), -1)  # (B, H, W, A, 4)
        reach = targets[:, 4:] / 2
        truth = tf.concat((targets[:, 2:4] - reach, targets[:, 2:4] + reach), 1)  # (N, 4)
        rows = tf.cast(targets[:, 0], tf.int32)

        def found(given: tuple[Tensor, Tensor]) -> Tensor:
            image, own = given
            overlap = iou(tf.reshape(own, (-1, 4)), tf.boolean_mask(truth, rows == image))
            return tf.reshape(tf.reduce_any(overlap > self.ignore, 1), tf.shape(own)[:3])

        images = tf.range(tf.shape(logits)[0])
        return tf.map_fn(found, (images, boxes), fn_output_signature=tf.TensorSpec((None, None, len(anchors)), tf.bool))


def straight_sigmoid(logits: Tensor) -> Tensor:
    """Return the sigmoid with a derivative of one everywhere, as Darknet has it."""
    return logits + tf.stop_gradient(tf.sigmoid(logits) - logits)


def shape_iou(a: Tensor, b: Tensor) -> Tensor:
    """Return the IoU of sides laid corner on corner, `(N, 2)` and `(M, 2)` to `(N, M)`."""
    shared = tf.reduce_prod(tf.minimum(a[:, None], b), 2)
    return shared / (tf.reduce_prod(a, 1)[:, None] + tf.reduce_prod(b, 1) - shared)


def iou(a: Tensor, b: Tensor) -> Tensor:
    """Return intersection over union of every pair, `(N, 4)` and `(M, 4)` of corners to `(N, M)`."""
    sides = tf.minimum(a[:, None, 2:], b[:, 2:]) - tf.maximum(a[:, None, :2], b[:, :2])
    shared = tf.reduce_prod(tf.maximum(sides, 0), 2)
    areas = [tf.reduce_prod(boxes[:, 2:] - boxes[:, :2], 1) for boxes in (a, b)]
    return shared / (areas[0][:, None] + areas[1] - shared)
