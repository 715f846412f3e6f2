"""Semantic segmentation: letterbox before the graph; the most probable class of each original pixel after it."""

from dataclasses import dataclass

import cv2
import numpy as np

from openlepton.arrays import ClassMap, Floats, Tensors
from openlepton.card import ImageInput
from openlepton.errors import UsageError
from openlepton.images import LIMITS, Limits, Source, read_scaled
from openlepton.ops.geometry import Frame, letterbox, to_tensor
from openlepton.results import Segmentation


@dataclass(frozen=True)
class Semantic:
    """What surrounds the graph of a semantic segmenter.

    Raises:
        UsageError: The size is not a multiple of the network's stride.
    """

    input: ImageInput
    names: tuple[str, ...]
    background: int | None = None
    """The class of pixels that show nothing."""
    limits: Limits = LIMITS

    def __post_init__(self) -> None:
        if self.input.size % self.input.multiple:
            raise UsageError(f"size: expected a multiple of {self.input.multiple}, got {self.input.size}")

    def prepare(self, source: Source) -> tuple[Tensors, Frame]:
        """Return what the graph takes, `images (3,H,W)` float32 0..1, and the frame that undoes it.

        Args:
            source: Whatever `read_image` reads.
        """
        image, image_hw = read_scaled(source, long_side=self.input.size, limits=self.limits)
        facts = self.input
        seen, frame = letterbox(image, facts.size, multiple=facts.multiple, fill=facts.fill, image_hw=image_hw)
        return {"images": to_tensor(seen)}, frame

    def finish(self, outputs: Tensors, frame: Frame) -> Segmentation:
        """Return the most probable class of each original pixel, from `scores (C,h,w)`."""
        return Segmentation(self._class_map(outputs["scores"], frame), self.names, self.background)

    def _class_map(self, scores: Floats, frame: Frame) -> ClassMap:
        """Return `(H, W)`: probabilities are interpolated between cells, class by class, so that memory does not grow with them."""
        (height, width), multiple = frame.image_hw, self.input.multiple
        inner_h, inner_w = (round(side * by) for side, by in zip(frame.image_hw, frame.scale_xy[::-1], strict=True))
        seen_wh = tuple(-(-side // multiple) * multiple for side in (inner_w, inner_h))  # with what was added
        left, top = frame.pad_xy
        class_map, best = np.zeros((height, width), np.uint8), np.zeros((height, width), np.float32)
        plane, better = np.empty_like(best), np.empty((height, width), np.bool_)  # memory is asked for once
        # The most probable class of a pixel has at least its fair share there, and so in some cell; 0.999 for rounding.
        for index in np.flatnonzero(scores.max((1, 2)) >= 0.999 / len(scores)).tolist():
            seen = cv2.resize(scores[index], seen_wh, interpolation=cv2.INTER_LINEAR)
            seen = seen[top : top + inner_h, left : left + inner_w]
            cv2.resize(seen, (width, height), dst=plane, interpolation=cv2.INTER_LINEAR)
            class_map[np.greater(plane, best, out=better)] = index
            np.maximum(plane, best, out=best)
        return class_map
