"""From a split to batches: images read, scaled, cached, augmented and stacked in worker threads, the same for any number.

Workers are threads, not processes: decoding, warping and colour run in OpenCV, which releases the interpreter, so threads
share the cache, start at once on every system, and hand over batches without copying them between processes.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from openlepton.arrays import Boxes, Floats, Ints
from openlepton.data.augment import AugmentConfig, training_image
from openlepton.data.crops import CropConfig, blend, classified_image
from openlepton.data.reader import Reader
from openlepton.data.warp import Labelled, Outline
from openlepton.errors import DataEmpty, ShapeError, UsageError
from openlepton.ops.geometry import Frame

Item = TypeVar("Item")
Out = TypeVar("Out")


@dataclass(frozen=True, eq=False)
class Batch:
    """Images of one shape, and the labels of all of them in parallel arrays."""

    images: NDArray[np.uint8]
    """`(B, 3, H, W)` RGB."""
    boxes: Boxes
    """`(N, 4)` float32 x1, y1, x2, y2 in pixels of `images`."""
    class_ids: Ints
    """`(N,)` int64."""
    rows: Ints
    """`(N,)` int64, which of the B images each box is in."""
    indices: Ints
    """`(B,)` int64, which image of the split each was made from (the first, for a mosaic)."""
    outlines: tuple[Outline, ...] | None = None
    """`(N,)` outlines in pixels of `images`; None where only boxes are known."""
    frames: tuple[Frame, ...] | None = None
    """`(B,)` what brings boxes back to the original images; None for augmented images, which have none."""
    class_maps: NDArray[np.uint8] | None = None
    """`(B, H, W)` the class of each pixel, 255 where it is not known; None where some image has no class map."""
    shares: Floats | None = None
    """`(N,)` how much of its image each label stands for, where images were blended; None where each stands for all."""


def training_batches(
    reader: Reader,
    epoch: int,
    *,
    batch_size: int,
    config: AugmentConfig | CropConfig,
    seed: int = 0,
    first: int = 0,
    share: tuple[int, int] = (0, 1),
    workers: int = 1,
    ahead: int = 2,
) -> Generator[Batch, None, None]:
    """Yield the batches of one epoch: every image once, in random order, augmented.

    What a batch holds depends on the split, `seed` and `epoch`, and neither on `workers` nor on the cache.

    Args:
        reader: Where images come from.
        epoch: Which epoch, from 0.
        batch_size: Images in a batch; the last batch has what is left.
        config: For detection and segmentation an `AugmentConfig` such as `PRESETS["low"]`, in the last epochs its
            `closing()`; images are as large as the reader's. For classification a `CropConfig`, which says how large.
        seed: The seed of the whole training, 0 or more.
        first: The batch to begin with, from 0: an epoch that was interrupted goes on as if it had not been.
        share: Which of how many parts, for processes that train together; all have the same number of images, for which
            some images come twice where they do not divide evenly.
        workers: Threads that prepare images; 0 prepares them when they are asked for.
        ahead: Batches prepared ahead of the consumer.

    Raises:
        UsageError: An argument is out of range.
        DataEmpty: No image of the split can be read.
    """
    _check(batch_size=(batch_size, 1), workers=(workers, 0), ahead=(ahead, 1), seed=(seed, 0), epoch=(epoch, 0))
    _check(first=(first, 0))
    part, parts = share
    if not 0 <= part < parts:
        raise UsageError(f"share: expected one of 0 to {parts - 1} and how many, got {share}")
    order = _generator(seed, epoch).permutation(len(reader))
    order = np.resize(order, -(-len(order) // parts) * parts)[part::parts][first * batch_size :]

    def make(index: int) -> Labelled:
        rng = _generator(seed, epoch, index)
        if isinstance(config, CropConfig):
            return classified_image(reader, index, config, rng)
        return training_image(reader, len(reader), index, reader.size, config, rng)

    with closing(in_order(make, order.tolist(), workers=workers, ahead=ahead * batch_size)) as made:
        for start in range(0, len(order), batch_size):
            indices = order[start : start + batch_size]
            batch = stack([next(made) for _ in indices], indices)
            if isinstance(config, CropConfig) and (config.mixup or config.cutmix):
                batch = _blended(batch, config, _generator(seed, epoch, 1, first + start // batch_size, part))
            yield batch


def validation_batches(
    reader: Reader,
    *,
    batch_size: int,
    multiple: int = 32,
    square: bool = False,
    workers: int = 1,
    ahead: int = 2,
) -> Generator[Batch, None, None]:
    """Yield every image once as a predictor sees it: images that are letterboxed to the same rectangle share a batch.

    No image is padded for the sake of another, so what is measured is what prediction gives. Images that cannot be read
    are left out; `reader.unreadable` names them.

    Args:
        reader: Where images come from.
        batch_size: The most images in a batch.
        multiple: What height and width are divisible by.
        square: Whether every image is padded to `size` x `size`.
        workers: Threads that prepare images; 0 prepares them when they are asked for.
        ahead: Batches prepared ahead of the consumer.

    Raises:
        UsageError: An argument is out of range.
        DataEmpty: No image of the split can be read.
    """
    _check(batch_size=(batch_size, 1), workers=(workers, 0), ahead=(ahead, 1), multiple=(multiple, 1))
    see = partial(reader.letterboxed, multiple=multiple, square=square)
    waiting: dict[tuple[int, ...], list[tuple[int, Labelled, Frame]]] = {}
    with closing(in_order(see, range(len(reader)), workers=workers, ahead=ahead * batch_size)) as made:
        for index, seen in enumerate(made):
            if seen is None:
                continue
            shape = seen[0].image.shape
            waiting.setdefault(shape, []).append((index, *seen))
            if len(waiting[shape]) == batch_size:
                yield _stack_seen(waiting.pop(shape))
    for rest in waiting.values():
        yield _stack_seen(rest)
    if len(reader.unreadable) == len(reader):
        raise DataEmpty(f"split {reader.split.name}: none of its {len(reader)} images can be read")


def stack(items: Sequence[Labelled], indices: Sequence[int] | Ints, frames: Sequence[Frame] | None = None) -> Batch:
    """Return a batch of images of one shape; `indices` says where each comes from.

    Raises:
        ShapeError: The images differ in shape.
    """
    shapes = {item.image.shape for item in items}
    if len(shapes) != 1:
        raise ShapeError(f"images: expected one shape, got {sorted(shapes)}")
    height, width = items[0].image.shape[:2]
    images = np.empty((len(items), 3, height, width), np.uint8)
    for image, item in zip(images, items, strict=True):
        cv2.split(item.image, list(image))  # five times as fast as a transposed copy
    maps = [item.class_map for item in items if item.class_map is not None]
    outlines: tuple[Outline, ...] | None = ()
    for item in items:
        outlines = None if outlines is None or item.outlines is None else outlines + item.outlines
    return Batch(
        images,
        np.concatenate([item.boxes for item in items]),
        np.concatenate([item.class_ids for item in items]),
        np.repeat(np.arange(len(items), dtype=np.int64), [len(item.class_ids) for item in items]),
        np.asarray(indices, np.int64),
        outlines,
        None if frames is None else tuple(frames),
        np.stack(maps) if len(maps) == len(items) else None,
    )


def _blended(batch: Batch, config: CropConfig, rng: np.random.Generator) -> Batch:
    """Return a batch whose images are blended in pairs, with the labels of both and how much each of them counts."""
    images, share = blend(batch.images, config, rng)
    return Batch(
        images,
        np.concatenate([batch.boxes, batch.boxes]),
        np.concatenate([batch.class_ids, batch.class_ids]),
        np.concatenate([batch.rows, len(images) - 1 - batch.rows]),
        batch.indices,
        shares=np.repeat(np.array([share, 1 - share], np.float32), len(batch.rows)),
    )


def in_order(
    function: Callable[[Item], Out], items: Iterable[Item], *, workers: int, ahead: int
) -> Generator[Out, None, None]:
    """Yield `function(item)` for each item, in order, computed in `workers` threads at most `ahead` items early.

    An error is raised where its result would have come. Closing the generator, or an interrupt while it waits, drops what
    has not begun and waits for what has.
    """
    if workers == 0:
        yield from map(function, items)
        return
    waiting: deque[Future[Out]] = deque()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="openlepton-data")
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _generator(seed: int, *key: int) -> np.random.Generator:
    """Return the generator of an epoch, or of an image in it; spawn keys keep (1,) and (1, 0) apart, entropy would not."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))


def _stack_seen(seen: Sequence[tuple[int, Labelled, Frame]]) -> Batch:
    indices, items, frames = zip(*seen, strict=True)
    return stack(items, indices, frames)


def _check(**values: tuple[int, int]) -> None:
    for name, (value, least) in values.items():
        if value < least:
            raise UsageError(f"{name}: expected {least} or more, got {value}")
