"""The twin of `nets/yolov5_seg_loss.py`: the loss of the detectors, and cross-entropy of each mask inside its box."""

from collections.abc import Sequence
from typing import Any

from openlepton.nets.losses import LossConfig
from openlepton.nets.yolov5 import Config
from openlepton.tf.blocks import Tensor
from openlepton.tf.imports import tf
from openlepton.tf.losses import Yolov5Loss


class Yolov5SegLoss:
    """The loss of raw maps and prototypes against boxes and masks.

    Args:
        config: The network's.
        weights: Of the parts; masks weigh as boxes do.
        size: Longest side of the images of the training, pixels.
    """

    parts = ("box", "obj", "cls", "mask")

    def __init__(self, config: Config, weights: LossConfig, size: int = 640) -> None:
        self.detection = Yolov5Loss(config, weights, size)
        self.classes, self.gain = config.classes, weights.box

    def __call__(self, raw: tuple[Sequence[Tensor], Tensor], targets: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Return the loss summed over the batch's images, and its parts for one image, `(4,)` box, objectness, classes, mask.

        Args:
            raw: For each level `(B, H, W, A * (5 + C + 32))` logits, and the prototypes `(B, h, w, 32)`.
            targets: Boxes `(N, 6)` and owners `(B, h, w)`, as `nets.yolov5_seg_loss.MaskTargets` has them.
        """
        (maps, protos), (boxes, owners) = raw, targets
        B = tf.shape(protos)[0]
        parts, answers = self.detection.terms(maps, boxes)
        stride = tf.cast(tf.shape(maps[0])[2] * 8 / tf.shape(protos)[2], tf.float32)  # pixels of a prototype's cell
        mask = tf.constant(0.0)
        for found, own in answers:
            image = found.cell[:, 0]
            outlines = tf.gather(boxes[:, 2:], found.target) / stride
            each = mask_loss(own[:, 5 + self.classes :], protos, image, outlines, owners, found.target + 1)
            # The mean over the cells that answer in an image, then over all the images of the batch.
            count = tf.math.unsorted_segment_sum(tf.ones_like(each), image, B)
            mask += tf.reduce_sum(each / tf.gather(count, image)) / tf.cast(B, tf.float32)
        parts = tf.concat((parts, mask[None] * self.gain), 0)
        return tf.reduce_sum(parts) * tf.cast(B, tf.float32), parts


def mask_loss(coeffs: Tensor, protos: Tensor, image: Tensor, boxes: Tensor, owners: Tensor, owner: Tensor) -> Any:
    """Return the cross-entropy of each mask, `(P,)`: the sum over the cells whose centre its box holds, for the box's area.

    Args:
        coeffs: `(P, 32)` what each mask takes of the prototypes.
        protos: `(B, h, w, 32)`.
        image: `(P,)` row of the batch.
        boxes: `(P, 4)` centre and size in cells.
        owners: `(B, h, w)` what each cell shows.
        owner: `(P,)` what of it each mask should be.
    """
    h, w = tf.unstack(tf.shape(protos)[1:3])
    ends = tf.stack((w, h))
    near = tf.maximum(tf.math.ceil(boxes[:, :2] - boxes[:, 2:] / 2 - 0.5), 0)
    first = tf.minimum(tf.cast(near, tf.int32), ends - 1)  # a box between two centres has the next one
    last = tf.cast(tf.math.ceil(boxes[:, :2] + boxes[:, 2:] / 2 - 0.5), tf.int32) - 1
    sides = tf.maximum(tf.minimum(last, ends - 1) - first + 1, 1)  # (P, 2) columns and rows of cells
    sizes = tf.reduce_prod(sides, 1)
    mask = tf.repeat(tf.range(tf.shape(coeffs)[0]), sizes)  # (T,) T cells, all masks together
    place = tf.range(tf.shape(mask)[0]) - tf.gather(tf.cumsum(sizes) - sizes, mask)
    columns = tf.gather(sides[:, 0], mask)
    row = tf.gather(first[:, 1], mask) + place // columns
    column = tf.gather(first[:, 0], mask) + place % columns
    cell = tf.stack((tf.gather(image, mask), row, column), 1)  # (T, 3)
    truth = tf.gather_nd(tf.cast(owners, tf.int32), cell) == tf.gather(owner, mask)
    logits = tf.reduce_sum(tf.gather_nd(protos, cell) * tf.gather(coeffs, mask), 1)
    each = tf.nn.sigmoid_cross_entropy_with_logits(tf.cast(truth, tf.float32), logits)
    area = tf.maximum(tf.reduce_prod(boxes[:, 2:], 1), 1)
    return tf.math.unsorted_segment_sum(each, mask, tf.shape(coeffs)[0]) / area
