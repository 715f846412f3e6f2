"""YOLOv5 in Keras, with and without masks: the twin of `nets/yolov5.py`, `nets/yolov5_heads.py` and `nets/yolov5_seg.py`."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from openlepton.nets.yolov5 import Config
from openlepton.nets.yolov5_heads import MASKS
from openlepton.tf.blocks import Function, Maker, Tensor, channels_last, concat, linear, pool, sides, upsample
from openlepton.tf.imports import tf


def forward(config: Config, images: Tensor, *, normalized: bool = True, masks: bool = False) -> Any:
    """Return raw maps `(B, H / s, W / s, A * (5 + C))` for every stride s, finest first; with `masks`, also the prototypes.

    Args:
        config: The network's.
        images: `(B, 3, H, W)` RGB, 0 to 1.
        normalized: Whether convolutions are followed by batch norms.
        masks: Whether each anchor has 32 more channels, and there are prototypes `(B, H / 4, W / 4, 32)`.
    """
    make = Maker(config.activation, normalized=normalized)
    levels, head = _pyramid(config, make, channels_last(images))
    each = len(config.anchors[0]) * (5 + config.classes + MASKS * masks)
    maps = [linear(level, f"{head}.m.{index}", each) for index, level in enumerate(levels)]
    if not masks:
        return maps
    x = make.conv(levels[0], f"{head}.proto.cv1", _width(config, 256), 3)
    x = make.conv(upsample(x, f"{head}.proto"), f"{head}.proto.cv2", _width(config, 256), 3)
    return maps, make.conv(x, f"{head}.proto.cv3", MASKS)


def decode(config: Config, raw: Any, *, masks: bool = False) -> dict[str, Tensor]:
    """Return `boxes (B, N, 4)` in pixels and `scores (B, N, C)`; with `masks`, `coeffs (B, N, 32)` and `protos (B, 32, h, w)`.

    Rows come level by level, then by anchor, row and column of the cell. No tensor has more than four axes, for the sake of
    LiteRT.
    """
    maps, protos = raw if masks else (raw, None)
    boxes, scores, coeffs = [], [], []
    C, each = config.classes, 5 + config.classes + MASKS * masks
    for own, pixels, stride in zip(maps, config.anchors, config.strides, strict=True):
        H, W = sides(own)
        origin = cells(H, W) * stride - stride / 2  # (1, H, W, 2): the centres' origin, pixels
        for anchor, sizes in enumerate(pixels):
            part = own[..., anchor * each : (anchor + 1) * each]  # (B, H, W, 5 + C + E)
            shares = tf.sigmoid(part[..., : 5 + C])
            centre = shares[..., :2] * (2 * stride) + origin
            half = shares[..., 2:4] * shares[..., 2:4] * (2 * np.array(sizes, np.float32))
            box = tf.concat((centre - half, centre + half), -1)
            boxes.append(tf.reshape(box, (-1, H * W, 4)))
            scores.append(tf.reshape(shares[..., 5:] * shares[..., 4:5], (-1, H * W, C)))
            if masks:
                coeffs.append(tf.reshape(part[..., 5 + C :], (-1, H * W, MASKS)))
    found = {"boxes": tf.concat(boxes, 1), "scores": tf.concat(scores, 1)}
    if masks:
        found |= {"coeffs": tf.concat(coeffs, 1), "protos": tf.transpose(protos, (0, 3, 1, 2))}
    return found


def priors(config: Config, *, masks: bool = False) -> dict[str, np.ndarray]:
    """Return the biases of a fresh head, by layer: eight objects per 640-pixel image, classes alike."""
    deepest = _head(config)
    biases = {}
    for index, stride in enumerate(config.strides):
        bias = np.zeros((len(config.anchors[0]), 5 + config.classes + MASKS * masks), np.float32)
        bias[:, 4] = math.log(8 / (640 / stride) ** 2)
        bias[:, 5 : 5 + config.classes] = math.log(0.6 / (config.classes - 0.99999))
        biases[f"{deepest}.m.{index}"] = bias.ravel()
    return biases


def cells(height: Any, width: Any) -> Tensor:
    """Return column and row of every cell, `(1, H, W, 2)`; a constant where height and width are numbers."""
    if isinstance(height, int) and isinstance(width, int):
        rows, columns = np.mgrid[:height, :width].astype(np.float32)
        return tf.constant(np.stack((columns, rows), -1)[None])
    columns, rows = tf.meshgrid(tf.range(width), tf.range(height))
    return tf.cast(tf.stack((columns, rows), -1)[None], tf.float32)


def _width(config: Config, channels: int) -> int:
    return math.ceil(channels * config.width / 8) * 8


def _head(config: Config) -> str:
    return f"model.{24 if len(config.anchors) == 3 else 33}"


def _pyramid(config: Config, make: Maker, x: Tensor) -> tuple[list[Tensor], str]:
    """Return what the head reads, finest level first, and the head's path: backbone, way down the pyramid, way up."""
    maps: list[Tensor] = []

    def path() -> str:
        return f"model.{len(maps)}"

    def conv(x: Tensor, c: int, kernel: int, stride: int, pad: int | None = None) -> Tensor:
        maps.append(make.conv(x, path(), _width(config, c), kernel, stride, pad=pad))
        return maps[-1]

    def c3(x: Tensor, c: int, repeats: int, *, shortcut: bool = True) -> Tensor:
        repeats = max(round(repeats * config.depth), 1)
        maps.append(_c3(make, x, path(), _width(config, c), repeats, shortcut=shortcut))
        return maps[-1]

    def joined(x: Tensor, other: Tensor) -> Tensor:
        maps.append(concat([x, other], path()))
        return maps[-1]

    v5 = config.layout == "v5"
    deep = (512, 1024) if len(config.anchors) == 3 else (512, 768, 1024)
    if v5:
        maps.append(make.conv(Function(_squares, name="model.0.squares")(x), "model.0.conv", _width(config, 64), 3))
        x = maps[-1]
    else:
        x = conv(x, 64, 6, 2, pad=2)
    x = c3(conv(x, 128, 3, 2), 128, 3)
    taps = [x := c3(conv(x, 256, 3, 2), 256, 9 if v5 else 6)]  # P3, P4, ...
    for c in deep:
        x = conv(x, c, 3, 2)
        if v5 and c == 1024:
            maps.append(_spp(make, x, path(), _width(config, c), config.pools))
            x = c3(maps[-1], c, 3, shortcut=False)
        else:
            taps.append(x := c3(x, c, 9 if c == 512 else 3))
    if not v5:
        maps.append(x := _sppf(make, x, path(), _width(config, 1024)))

    laterals = []
    for c, tap in zip((*deep[-2::-1], 256), taps[len(deep) - 1 :: -1], strict=True):
        laterals.append(x := conv(x, c, 1, 1))
        maps.append(upsample(x, path()))
        x = c3(joined(maps[-1], tap), c, 3, shortcut=False)

    levels = [x]
    for finer, c, lateral in zip((256, *deep[:-1]), deep, laterals[::-1], strict=True):
        x = c3(joined(conv(x, finer, 3, 2), lateral), c, 3, shortcut=False)
        levels.append(x)
    return levels, path()


def _c3(make: Maker, x: Tensor, path: str, cout: int, repeats: int, *, shortcut: bool) -> Tensor:
    """Return `(B, H, W, cout)`: bottlenecks on half the channels."""
    c = cout // 2
    y = make.conv(x, f"{path}.cv1", c)
    for index in range(repeats):
        inner = f"{path}.m.{index}"
        z = make.conv(make.conv(y, f"{inner}.cv1", c), f"{inner}.cv2", c, 3)
        y = y + z if shortcut else z
    return make.conv(concat([y, make.conv(x, f"{path}.cv2", c)], path), f"{path}.cv3", cout)


def _spp(make: Maker, x: Tensor, path: str, cout: int, pools: Sequence[int]) -> Tensor:
    x = make.conv(x, f"{path}.cv1", x.shape[-1] // 2)
    return make.conv(concat([x, *(pool(x, f"{path}.pool{k}", k) for k in pools)], path), f"{path}.cv2", cout)


def _sppf(make: Maker, x: Tensor, path: str, cout: int) -> Tensor:
    maps = [make.conv(x, f"{path}.cv1", x.shape[-1] // 2)]
    for number in range(3):
        maps.append(pool(maps[-1], f"{path}.pool{number}", 5))
    return make.conv(concat(maps, path), f"{path}.cv2", cout)


def _squares(x: Tensor) -> Tensor:
    """Return the four pixels of every 2x2 square side by side, `(B, H / 2, W / 2, 4 * C)`."""
    return tf.concat((x[:, ::2, ::2], x[:, 1::2, ::2], x[:, ::2, 1::2], x[:, 1::2, 1::2]), -1)
