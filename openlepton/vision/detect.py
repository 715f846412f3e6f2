"""Object detection: letterbox or stretch before the graph; threshold, suppression and original pixels after it."""

from dataclasses import dataclass

import numpy as np

from openlepton.arrays import Boxes, Floats, Ints, Tensors
from openlepton.card import ImageInput
from openlepton.errors import UsageError
from openlepton.images import LIMITS, Limits, Source, read_scaled
from openlepton.ops.boxes import nms
from openlepton.ops.geometry import Frame, letterbox, stretch, to_tensor
from openlepton.results import Detections


@dataclass(frozen=True)
class Detect:
    """What surrounds the graph of a detector.

    Raises:
        UsageError: A threshold is out of range, or the size is not a multiple of the network's stride.
    """

    input: ImageInput
    names: tuple[str, ...]
    min_score: float = 0.25
    """Detections score strictly more than this, 0..1."""
    max_iou: float = 0.45
    """Of two boxes of a class that overlap by more than this the lower score goes, 0..1."""
    max_detections: int = 300
    """The most detections in one image."""
    class_ids: Ints | None = None
    """The classes to report; None for all."""
    agnostic: bool = False
    """Whether boxes of different classes suppress each other."""
    multi_label: bool = False
    """Whether one box may be reported under several classes, as evaluation wants it."""
    limits: Limits = LIMITS

    def __post_init__(self) -> None:
        for name in ("min_score", "max_iou"):
            if not 0 <= getattr(self, name) <= 1:
                raise UsageError(f"{name}: expected 0 to 1, got {getattr(self, name)}")
        if self.max_detections < 1:
            raise UsageError(f"max_detections: expected 1 or more, got {self.max_detections}")
        if self.input.size % self.input.multiple:
            raise UsageError(f"size: expected a multiple of {self.input.multiple}, got {self.input.size}")
        if self.input.resize == "crop":
            raise UsageError("resize: a detector takes letterbox or stretch, got crop")

    def prepare(self, source: Source) -> tuple[Tensors, Frame]:
        """Return what the graph takes, `images (3,H,W)` float32 0..1, and the frame that undoes it.

        Args:
            source: Whatever `read_image` reads. A JPEG much larger than the network's input is decoded at a reduced size,
                which is faster; pass `read_image(path)` to have it decoded whole and made smaller afterwards.
        """
        facts, size = self.input, self.input.size
        if facts.resize == "stretch":  # twice: the shorter side has to have as many pixels as the longer one
            image, image_hw = read_scaled(source, long_side=2 * size, limits=self.limits)
            seen, frame = stretch(image, facts.size_hw or (size, size), image_hw=image_hw)
            return {"images": to_tensor(seen)}, frame
        image, image_hw = read_scaled(source, long_side=size, limits=self.limits)
        seen, frame = letterbox(
            image, size, multiple=facts.multiple, fill=facts.fill, size_hw=facts.size_hw, image_hw=image_hw
        )
        return {"images": to_tensor(seen)}, frame

    def finish(self, outputs: Tensors, frame: Frame) -> Detections:
        """Return the detections in original pixels, best first.

        Args:
            outputs: `boxes (N,4)` xyxy in input pixels and `scores (N,C)` in 0..1.
            frame: What `prepare` returned.
        """
        rows, class_ids = self.select(outputs["boxes"], outputs["scores"])
        boxes, scores = frame.undo(outputs["boxes"][rows]), outputs["scores"][rows, class_ids]
        return Detections(boxes, scores, class_ids, self.names, frame.image_hw)

    def select(self, boxes: Boxes, scores: Floats) -> tuple[Ints, Ints]:
        """Return the rows `(K,)` that are left after threshold and suppression, best first, and their class ids `(K,)`."""
        rows, class_ids = self._candidates(scores)
        kept = nms(
            boxes[rows],
            scores[rows, class_ids],
            None if self.agnostic else class_ids,
            max_iou=self.max_iou,
            max_detections=self.max_detections,
        )
        return rows[kept], class_ids[kept]

    def _candidates(self, scores: Floats) -> tuple[Ints, Ints]:
        """Return rows `(K,)` and class ids `(K,)` of what scores above the threshold."""
        flat = np.flatnonzero(scores > self.min_score)  # most rows have none: far faster than a maximum over classes
        rows, class_ids = np.divmod(flat, scores.shape[1])
        if not self.multi_label and len(rows):
            rows = rows[np.append(True, rows[1:] != rows[:-1])]
            class_ids = scores[rows].argmax(axis=1)
        if self.class_ids is not None:
            wanted = np.isin(class_ids, self.class_ids)
            rows, class_ids = rows[wanted], class_ids[wanted]
        return rows, class_ids
