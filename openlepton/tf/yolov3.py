"""YOLOv3-tiny in Keras: the twin of what `nets/yolov3.py` calls tiny."""

import math
from typing import Any

import numpy as np

from openlepton.errors import UsageError
from openlepton.nets.yolov3 import EPSILON, LARGEST, PRIOR, Config
from openlepton.tf.blocks import Maker, Tensor, channels_last, concat, linear, pool, sides, upsample
from openlepton.tf.imports import tf
from openlepton.tf.yolov5 import cells


def forward(config: Config, images: Tensor, *, normalized: bool = True) -> list[Tensor]:
    """Return raw maps `(B, H / s, W / s, A * (5 + C))` for strides 16 and 32, of `images` `(B, 3, H, W)` RGB, 0 to 1."""
    if config.backbone != "tiny":
        raise UsageError(f"yolov3: only tiny has a twin in TensorFlow, not {config.backbone}")
    make = Maker("leaky_relu", EPSILON, normalized)
    outputs = len(config.anchors[0]) * (5 + config.classes)
    x = channels_last(images)
    for index in range(4):
        x = make.conv(x, f"backbone.convs.{index}", config.wide(16 << index), 3)
        x = pool(x, f"backbone.pool{index}", 2, 2)
    fine = make.conv(x, "backbone.convs.4", config.wide(256), 3)
    x = make.conv(pool(fine, "backbone.pool4", 2, 2), "backbone.convs.5", config.wide(512), 3)
    x = make.conv(pool(x, "backbone.pool5", 2), "backbone.convs.6", config.wide(1024), 3)
    neck = make.conv(x, "levels.0.neck", config.wide(256))
    coarse_map = linear(make.conv(neck, "levels.0.head.0", config.wide(512), 3), "levels.0.head.1", outputs)
    lateral = upsample(make.conv(neck, "levels.1.lateral", config.wide(128)), "levels.1")
    x = make.conv(concat([lateral, fine], "levels.1"), "levels.1.head.0", config.wide(256), 3)
    return [linear(x, "levels.1.head.1", outputs), coarse_map]


def decode(config: Config, maps: list[Tensor]) -> dict[str, Tensor]:
    """Return `boxes (B, N, 4)` x1, y1, x2, y2 in pixels and `scores (B, N, C)`; rows as in `nets`."""
    boxes, scores = [], []
    C, each = config.classes, 5 + config.classes
    for raw, pixels, stride in zip(maps, config.anchors, config.strides, strict=True):
        H, W = sides(raw)
        for anchor, sizes in enumerate(pixels):
            part = raw[..., anchor * each : (anchor + 1) * each]  # (B, H, W, 5 + C)
            centre = (tf.sigmoid(part[..., :2]) + cells(H, W)) * stride
            half = tf.exp(tf.minimum(part[..., 2:4], LARGEST)) * (np.array(sizes, np.float32) / 2)
            boxes.append(tf.reshape(tf.concat((centre - half, centre + half), -1), (-1, H * W, 4)))
            score = tf.sigmoid(part[..., 5:]) * tf.sigmoid(part[..., 4:5])
            scores.append(tf.reshape(score, (-1, H * W, C)))
    return {"boxes": tf.concat(boxes, 1), "scores": tf.concat(scores, 1)}


def priors(config: Config) -> dict[str, Any]:
    """Return the biases of fresh heads, by layer: an objectness of 0.01."""
    bias = np.zeros((len(config.anchors[0]), 5 + config.classes), np.float32)
    bias[:, 4] = -math.log(1 / PRIOR - 1)
    return {f"levels.{level}.head.1": bias.ravel() for level in (0, 1)}
