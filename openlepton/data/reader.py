"""Labelled images of a split, scaled to the size of training, through a cache in memory."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Lock

import cv2
import numpy as np

from openlepton.arrays import UNKNOWN, Array, Boxes, ClassMap, Image
from openlepton.data.cache import ImageCache
from openlepton.data.samples import Split
from openlepton.data.warp import Labelled, clip_polygon
from openlepton.errors import DataEmpty, ImageError, ImageUnreadable, UsageError
from openlepton.images import LIMITS, Limits, read_scaled
from openlepton.ops.boxes import clip
from openlepton.ops.geometry import Frame, letterbox, stretch
from openlepton.ops.masks import Rle
from openlepton.ops.polygons import Polygons


class Reader:
    """Reads images of a split with the longer side scaled to `size`, or both if `stretch`, and their labels, through a cache.

    An image that cannot be read is reported once; whoever asks for it gets the next one that can be read, so batches keep
    their size and every run sees the same. Crowd regions are left out, and labels are cut at the image. In a data set of
    class folders the one object is the whole picture; where each pixel has a class there is a class map and no object.

    Args:
        split: The images and labels.
        size: The longer side, pixels; smaller images are enlarged.
        stretch: Whether the shorter side becomes as long, for networks that see images so.
        outlines: Whether outlines come along, for segmentation, copy-paste, and boxes that stay tight under rotation; an
            object that has none is outlined by its box.
        cache_bytes: The most memory for images that were read, bytes; `cache` says how much of it is in use.
        limits: The most bytes and pixels that an image may have.
        report: Called once with the error of each image that cannot be read; by default it becomes a warning.

    Raises:
        DataEmpty: The split has no image.
        UsageError: `size` is less than 2, or `cache_bytes` is negative.
    """

    def __init__(
        self,
        split: Split,
        size: int,
        *,
        stretch: bool = False,
        outlines: bool = False,
        cache_bytes: int = 0,
        limits: Limits = LIMITS,
        report: Callable[[ImageError], None] | None = None,
    ) -> None:
        if not len(split):
            raise DataEmpty(f"split {split.name}: there is no image in it")
        if size < 2:
            raise UsageError(f"size: expected 2 or more pixels, got {size}")
        self.split = split
        self.size = size
        self.cache = ImageCache(cache_bytes)
        self._stretch = stretch
        self._outlines = outlines
        self._limits = limits
        self._report = report or _warn
        self._bad: dict[int, ImageError] = {}
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self.split)

    @property
    def unreadable(self) -> dict[Path, ImageError]:
        """The images that could not be read so far, and why."""
        return {self.split.image(index): error for index, error in sorted(self._bad.items())}

    def __call__(self, index: int) -> Labelled:
        """Return an image and its labels; for an image that cannot be read, the next one that can.

        Raises:
            DataEmpty: No image of the split can be read.
        """
        for step in range(len(self)):
            at = (index + step) % len(self)
            if at in self._bad:
                continue
            try:
                return self.cache.get(at, self._read)
            except ImageError as error:
                self._set_aside(at, error)
        raise DataEmpty(f"split {self.split.name}: none of its {len(self)} images can be read")

    def letterboxed(self, index: int, *, multiple: int, square: bool) -> tuple[Labelled, Frame] | None:
        """Return an image and its labels as a predictor sees them, and the way back; None if it cannot be read."""
        try:
            image, image_hw = read_scaled(self.split.image(index), long_side=self.size, limits=self._limits)
        except ImageError as error:
            self._set_aside(index, error)
            return None
        with _naming(self.split.image(index)):
            image, frame = letterbox(image, self.size, multiple=multiple, square=square, image_hw=image_hw)
            return self._labelled(index, image, frame), frame

    def _read(self, index: int) -> Labelled:
        path = self.split.image(index)
        with _naming(path):
            # Twice where both sides have to have as many pixels.
            image, image_hw = read_scaled(path, long_side=self.size * (1 + self._stretch), limits=self._limits)
            if self._stretch:
                image, frame = stretch(image, (self.size, self.size), image_hw=image_hw)
            else:
                image, frame = letterbox(image, self.size, multiple=1, image_hw=image_hw)  # scaled, nothing added
            return self._labelled(index, image, frame)

    def _labelled(self, index: int, image: Image, frame: Frame) -> Labelled:
        sample = self.split.annotation(index).located(frame.image_hw)
        tags = sample.tags if sample.class_id is None else (sample.class_id,)
        if tags is not None:
            height, width = image.shape[:2]
            boxes = np.tile(np.array([[0, 0, width, height]], np.float32), (len(tags), 1))
            return Labelled(image, boxes, np.array(tags, np.int64))
        if sample.class_map is not None:
            seen = _seen(sample.class_map, image, frame, sample.image)
            return Labelled(image, np.zeros((0, 4), np.float32), np.zeros(0, np.int64), class_map=seen)
        objects = sample.objects[~sample.objects.crowd]
        boxes = clip(objects.boxes.astype(np.float32), frame.image_hw)
        outlines = None
        if self._outlines:
            shapes = objects.shapes or ((),) * len(objects)
            by, to = np.array(frame.scale_xy), np.array(frame.pad_xy)
            outlines = tuple(
                tuple((part * by + to).astype(np.float32) for part in _outline(shape, box, frame.image_hw))
                for shape, box in zip(shapes, boxes, strict=True)
            )
        return Labelled(image, frame.apply(boxes), objects.class_ids, outlines)

    def _set_aside(self, index: int, error: ImageError) -> None:
        with self._lock:
            known = index in self._bad
            self._bad[index] = error
        if not known:
            self._report(error)


def _seen(class_map: ClassMap, image: Image, frame: Frame, path: Path) -> ClassMap:
    """Return a class map as `image` shows it, not known where the frame has added something."""
    if class_map.shape != frame.image_hw:
        (height, width), (h, w) = frame.image_hw, class_map.shape
        raise ImageUnreadable(f"{path}: has {width}x{height} pixels, its class map {w}x{h}")
    inner_h, inner_w = (round(side * by) for side, by in zip(frame.image_hw, frame.scale_xy[::-1], strict=True))
    left, top = frame.pad_xy
    seen = np.full(image.shape[:2], UNKNOWN, np.uint8)
    seen[top : top + inner_h, left : left + inner_w] = cv2.resize(
        class_map, (inner_w, inner_h), interpolation=cv2.INTER_NEAREST_EXACT
    )
    return seen


def _outline(shape: Polygons | Rle, box: Boxes, image_hw: tuple[int, int]) -> Sequence[Array]:
    """Return the parts of an object inside the image, in its pixels; its box where there are none."""
    if isinstance(shape, Rle):
        by = np.array(image_hw[::-1]) / shape.size_hw[::-1]
        shape = tuple(part * by for part in shape.polygons())
    parts = [
        part for part in (clip_polygon(polygon.astype(np.float32), image_hw) for polygon in shape) if len(part) > 2
    ]
    x1, y1, x2, y2 = box
    return parts or [np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2]])]


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Add to whatever goes wrong the file that was being prepared: its traceback ends in a worker thread."""
    try:
        yield
    except Exception as error:
        error.add_note(f"while preparing {path}")
        raise


def _warn(error: ImageError) -> None:
    warnings.warn(f"left out: {error}", stacklevel=2)
