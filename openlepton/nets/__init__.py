"""Networks in torch: one architecture a file, and the table that says which names build which.

Importing this package needs the extra `train`.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from openlepton.card import Task
from openlepton.errors import missing_extra

try:
    from torch import nn
except ModuleNotFoundError as error:
    raise missing_extra(error.name, "train") from None

from openlepton.nets import efficientnet, unet, yolov1, yolov3, yolov5, yolov5_cls, yolov5_seg, yolox


class Build(Protocol):
    """Builds a network with fresh weights for so many classes."""

    def __call__(self, *, classes: int, **changes: Any) -> nn.Module:
        """Return the network; `changes` are fields of its config, such as `anchors` in pixels where it has any."""


@dataclass(frozen=True)
class Net:
    """An architecture: what it is for, and what builds it."""

    task: Task
    """As cards say it."""
    build: Build
    fixed_size: bool = False
    """Whether the network sees squares of one size alone, which is the field `size` of its config."""


NETS: dict[str, Net] = {
    "efficientnet-lite0": Net("classify", partial(efficientnet.build, "lite0")),
    "efficientnet-lite1": Net("classify", partial(efficientnet.build, "lite1")),
    "efficientnet-lite2": Net("classify", partial(efficientnet.build, "lite2")),
    "unet-lite0": Net("semantic", partial(unet.build, "lite0")),
    "unet-lite1": Net("semantic", partial(unet.build, "lite1")),
    "unet-lite2": Net("semantic", partial(unet.build, "lite2")),
    "yolov1": Net("detect", partial(yolov1.build, "paper"), fixed_size=True),
    "yolov1-local": Net("detect", partial(yolov1.build, "local"), fixed_size=True),
    "yolov1-tiny": Net("detect", partial(yolov1.build, "tiny"), fixed_size=True),
    "yolov3": Net("detect", partial(yolov3.build, "darknet53")),
    "yolov3-spp": Net("detect", partial(yolov3.build, "spp")),
    "yolov3-tiny": Net("detect", partial(yolov3.build, "tiny")),
    "yolov5n": Net("detect", partial(yolov5.build, "n")),
    "yolov5s": Net("detect", partial(yolov5.build, "s")),
    "yolov5m": Net("detect", partial(yolov5.build, "m")),
    "yolov5l": Net("detect", partial(yolov5.build, "l")),
    "yolov5x": Net("detect", partial(yolov5.build, "x")),
    "yolov5n6": Net("detect", partial(yolov5.build, "n6")),
    "yolov5s6": Net("detect", partial(yolov5.build, "s6")),
    "yolov5m6": Net("detect", partial(yolov5.build, "m6")),
    "yolov5l6": Net("detect", partial(yolov5.build, "l6")),
    "yolov5x6": Net("detect", partial(yolov5.build, "x6")),
    "yolov5n-cls": Net("classify", partial(yolov5_cls.build, "n")),
    "yolov5s-cls": Net("classify", partial(yolov5_cls.build, "s")),
    "yolov5m-cls": Net("classify", partial(yolov5_cls.build, "m")),
    "yolov5l-cls": Net("classify", partial(yolov5_cls.build, "l")),
    "yolov5x-cls": Net("classify", partial(yolov5_cls.build, "x")),
    "yolov5n-seg": Net("segment", partial(yolov5_seg.build, "n")),
    "yolov5s-seg": Net("segment", partial(yolov5_seg.build, "s")),
    "yolov5m-seg": Net("segment", partial(yolov5_seg.build, "m")),
    "yolov5l-seg": Net("segment", partial(yolov5_seg.build, "l")),
    "yolov5x-seg": Net("segment", partial(yolov5_seg.build, "x")),
    "yolox-nano": Net("detect", partial(yolox.build, "nano")),
    "yolox-tiny": Net("detect", partial(yolox.build, "tiny")),
    "yolox-s": Net("detect", partial(yolox.build, "s")),
    "yolox-m": Net("detect", partial(yolox.build, "m")),
    "yolox-l": Net("detect", partial(yolox.build, "l")),
    "yolox-x": Net("detect", partial(yolox.build, "x")),
}
"""Every network that can be built, by the name that cards give as `architecture`."""
