"""Networks in torch: one architecture a file, and the table that says which names build which.

Importing this package needs the extra `train`.
"""

from functools import partial
from typing import Protocol

from openlepton.errors import missing_extra

try:
    from torch import nn
except ModuleNotFoundError as error:
    raise missing_extra(error.name, "train") from None

from openlepton.nets import efficientnet, yolov5


class Build(Protocol):
    """Builds a network with fresh weights for so many classes."""

    def __call__(self, *, classes: int) -> nn.Module:
        """Return the network."""


NETS: dict[str, Build] = {
    "efficientnet-lite0": partial(efficientnet.build, "lite0"),
    "efficientnet-lite1": partial(efficientnet.build, "lite1"),
    "efficientnet-lite2": partial(efficientnet.build, "lite2"),
    "yolov5n": partial(yolov5.build, "n"),
    "yolov5s": partial(yolov5.build, "s"),
    "yolov5m": partial(yolov5.build, "m"),
    "yolov5l": partial(yolov5.build, "l"),
    "yolov5x": partial(yolov5.build, "x"),
    "yolov5n6": partial(yolov5.build, "n6"),
    "yolov5s6": partial(yolov5.build, "s6"),
    "yolov5m6": partial(yolov5.build, "m6"),
    "yolov5l6": partial(yolov5.build, "l6"),
    "yolov5x6": partial(yolov5.build, "x6"),
}
"""Every network that can be built, by the name that cards give as `architecture`."""
