"""One picture looked at more than once: in tiles, mirrored and at other sizes, by several models; one result comes out."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np

from openlepton.arrays import Bools, Image, Ints
from openlepton.card import ModelCard
from openlepton.errors import OpenLeptonError, UsageError
from openlepton.images import read_image
from openlepton.ops.boxes import nms
from openlepton.ops.fusion import join_cut, tile_starts, weighted_fusion
from openlepton.ops.masks import Rle, moved, union
from openlepton.predictor import MAX_BATCH, Predictor, ordered_map
from openlepton.results import Detections
from openlepton.vision.detect import Detect

Merge = Literal["nms", "wbf"]

VARIANTS: tuple[tuple[float, bool], ...] = ((1.0, False), (0.83, True), (0.67, False))
"""Size and mirroring of what test-time augmentation looks at, as YOLOv5 publishes them."""

_BORDER_PX = 2.0


@dataclass(frozen=True)
class Combined:
    """A predictor made of others; immutable, and safe from any number of threads like they are. Made by `combine`."""

    predictors: tuple[Predictor[Detections], ...]
    names: tuple[str, ...]
    """Class names of all models; models that call a class the same mean the same."""
    tile: int | None
    """Side of a tile, pixels of the original image; None looks at the image whole."""
    overlap: float
    augment: bool
    merge: Merge
    max_iou: float

    @property
    def card(self) -> ModelCard:
        """The card of the first model, under the names of all."""
        first = self.predictors[0].card
        if len(self.predictors) == 1:
            return first
        return first.model_copy(update={"name": "+".join(one.card.name for one in self.predictors)})

    def __call__(self, item: Any) -> Detections:
        """Return the detections in one image: a path, bytes, a file object, a PIL image or an `(H,W,3)` RGB array."""
        image = read_image(item, limits=_task(self.predictors[0]).limits)
        variants = VARIANTS if self.augment else VARIANTS[:1]
        found = [
            self._seen(predictor, image, scale, mirrored)
            for predictor in self.predictors
            for scale, mirrored in variants
        ]
        return self._merged(found)

    def batch(self, items: Sequence[Any]) -> list[Detections]:
        """Return one result for each item, in order."""
        return [self(item) for item in items]

    def stream(self, items: Iterable[Any], *, workers: int | None = None) -> Iterator[Detections | OpenLeptonError]:
        """Yield a result for each item, in order, or the error that it ended in."""
        return ordered_map(self._attempt, items, workers=workers)

    def _attempt(self, item: Any) -> Detections | OpenLeptonError:
        try:
            return self(item)
        except OpenLeptonError as error:
            return error

    def _seen(self, predictor: Predictor[Detections], image: Image, scale: float, mirrored: bool) -> Detections:
        """Return what one model finds in one variant of the image, in its pixels and with the common class ids."""
        sized = predictor if scale == 1 else _resized(predictor, scale)
        image_hw = (image.shape[0], image.shape[1])
        view = np.ascontiguousarray(image[:, ::-1]) if mirrored else image
        found = _whole(sized, view) if self.tile is None else _tiled(sized, view, self.tile, self.overlap)
        ids = np.array([self.names.index(_first_like(self.names, name)) for name in found.names], np.int64)
        boxes, masks = found.boxes, found.masks
        if mirrored:
            boxes = boxes[:, [2, 1, 0, 3]] * np.array([-1, 1, -1, 1], np.float32)
            boxes = boxes + np.array([image_hw[1], 0, image_hw[1], 0], np.float32)
            masks = None if masks is None else [moved(mask, image_hw, mirrored=True) for mask in masks]
        return Detections(boxes, found.scores, ids[found.class_ids], self.names, image_hw, masks)

    def _merged(self, found: Sequence[Detections]) -> Detections:
        if len(found) == 1:
            return found[0]
        together = _concatenated(found)
        boxes, scores, ids = together.boxes, together.scores, together.class_ids
        most = _task(self.predictors[0]).max_detections
        if self.merge == "nms":
            return together[nms(boxes, scores, ids, max_iou=self.max_iou, max_detections=most)]
        boxes, scores, rows = weighted_fusion(boxes, scores, ids, max_iou=self.max_iou, sets=len(found))
        merged = _made_of(together, boxes, rows, scores, all_masks=False)
        threshold = min(_task(one).min_score for one in self.predictors)
        return merged[merged.scores > threshold][:most]


def combine(
    *predictors: Predictor[Detections],
    tile: int | None = None,
    overlap: float = 0.2,
    augment: bool = False,
    merge: Merge = "nms",
    max_iou: float | None = None,
) -> Combined:
    """Return a predictor that looks at each image in tiles, in several variants, or with several models, and merges.

    Args:
        predictors: Detectors or segmenters, of any classes; classes of one name (in any case) are one class.
        tile: Side of square tiles, pixels of the original image, for objects that are small in large pictures; the whole
            image is looked at as well. Memory does not grow with the number of tiles.
        overlap: How much neighbouring tiles overlap, as a share of `tile`, 0 to less than 1; better more than the objects.
        augment: Look at the image mirrored at 0.83 of the size and upright at 0.67 too (test-time augmentation).
        merge: How the finds of models and variants become one: `nms` keeps the best of those that overlap, `wbf` averages
            them (weighted-box fusion), which takes from the score of what not all of them found.
        max_iou: Finds of one class that overlap by more are one, 0..1; by default the first model's for `nms`, 0.55 for `wbf`.

    Raises:
        UsageError: A model does not detect, or an option is out of range.
    """
    if not predictors:
        raise UsageError("combine: expected at least one predictor")
    for predictor in predictors:
        if not isinstance(predictor.task, Detect):
            raise UsageError(f"combine: {predictor.card.name} is for {predictor.card.task}: expected detect or segment")
    if len({predictor.card.task for predictor in predictors}) > 1:
        raise UsageError("combine: some of the models have masks and some have not")
    if tile is not None and tile < 32:
        raise UsageError(f"tile: expected 32 pixels or more, got {tile}")
    if not 0 <= overlap < 1:
        raise UsageError(f"overlap: expected 0 to less than 1, got {overlap}")
    if merge not in get_args(Merge):
        raise UsageError(f"merge: expected {' or '.join(get_args(Merge))}, got {merge!r}")
    if augment:
        for predictor in predictors:
            if predictor.card.image_input.resize == "stretch" or predictor.card.image_input.size_hw:
                raise UsageError(f"augment: {predictor.card.name} sees images of one size only")
    if max_iou is None:
        max_iou = _task(predictors[0]).max_iou if merge == "nms" else 0.55
    if not 0 <= max_iou <= 1:
        raise UsageError(f"max_iou: expected 0 to 1, got {max_iou}")
    names: list[str] = []
    for predictor in predictors:
        names += [name for name in _task(predictor).names if name.casefold() not in {one.casefold() for one in names}]
    return Combined(predictors, tuple(names), tile, overlap, augment, merge, max_iou)


def _task(predictor: Predictor[Detections]) -> Detect:
    assert isinstance(predictor.task, Detect)
    return predictor.task


def _first_like(names: Sequence[str], name: str) -> str:
    return next(one for one in names if one.casefold() == name.casefold())


def _resized(predictor: Predictor[Detections], scale: float) -> Predictor[Detections]:
    task = _task(predictor)
    step = task.input.multiple
    size = max(round(task.input.size * scale / step), 1) * step
    return replace(predictor, task=replace(task, input=task.input.model_copy(update={"size": size})))


def _whole(predictor: Predictor[Detections], image: Image) -> Detections:
    return predictor(image)


def _tiled(predictor: Predictor[Detections], image: Image, tile: int, overlap: float) -> Detections:
    """Return what is found in the whole image and in its tiles; what a border cut comes out once."""
    height, width = image.shape[:2]
    corners = [(x, y) for y in tile_starts(height, tile, overlap) for x in tile_starts(width, tile, overlap)]
    found = [predictor(image)]
    cuts: list[Bools] = [np.zeros((len(found[0]), 4), bool)]
    if len(corners) > 1:
        for start in range(0, len(corners), MAX_BATCH):  # few tiles are tensors at a time, however many there are
            some = corners[start : start + MAX_BATCH]
            tiles = [image[y : y + tile, x : x + tile] for x, y in some]
            for (x, y), part, one in zip(some, tiles, predictor.batch(tiles), strict=True):
                cuts.append(_cut(one, (x, y), (height, width)))
                boxes = one.boxes + np.array([x, y, x, y], np.float32)
                masks = one.masks
                if masks is not None:
                    masks = [moved(mask, (height, width), offset_xy=(x, y)) for mask in masks]
                found.append(replace(one, boxes=boxes, masks=masks, image_hw=(height, width)))
                assert one.image_hw == part.shape[:2]
    together = _concatenated(found)
    boxes, rows = join_cut(together.boxes, together.scores, together.class_ids, np.concatenate(cuts))
    merged = _made_of(together, boxes, rows)
    task = _task(predictor)
    ids = None if task.agnostic else merged.class_ids
    return merged[nms(merged.boxes, merged.scores, ids, max_iou=task.max_iou, max_detections=task.max_detections)]


def _cut(found: Detections, corner_xy: tuple[int, int], image_hw: tuple[int, int]) -> Bools:
    """Return which sides of the boxes of a tile lie on its border, where that is not the border of the image, `(N, 4)`."""
    height, width = found.image_hw
    x, y = corner_xy
    inner = np.array([x > 0, y > 0, x + width < image_hw[1], y + height < image_hw[0]])
    ends = np.array([width, height], np.float32)
    near = np.concatenate([found.boxes[:, :2] <= _BORDER_PX, found.boxes[:, 2:] >= ends - _BORDER_PX], 1)
    cut: Bools = near & inner
    return cut


def _concatenated(found: Sequence[Detections]) -> Detections:
    first = found[0]
    masks = None if first.masks is None else [mask for one in found for mask in one.masks or ()]
    return Detections(
        np.concatenate([one.boxes for one in found]),
        np.concatenate([one.scores for one in found]),
        np.concatenate([one.class_ids for one in found]),
        first.names,
        first.image_hw,
        masks,
    )


def _made_of(
    found: Detections, boxes: Any, rows: Sequence[Ints], scores: Any = None, *, all_masks: bool = True
) -> Detections:
    """Return detections with these boxes, each made of some rows: the best one's score and class, and the masks of all."""
    best = np.array([int(mine[found.scores[mine].argmax()]) for mine in rows], np.int64)
    chosen = found[best]
    masks: Sequence[Rle] | None = chosen.masks
    if found.masks is not None and all_masks:
        masks = [union([found.masks[row] for row in mine], found.image_hw) for mine in rows]
    return replace(chosen, boxes=boxes, scores=chosen.scores if scores is None else scores, masks=masks)
