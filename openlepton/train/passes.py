"""One pass of a model over a split, through the same steps that prediction takes; what is measured is made of what comes back."""

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np

from openlepton.arrays import Array
from openlepton.data.loader import in_order
from openlepton.data.samples import Split
from openlepton.errors import DataEmpty, ImageError
from openlepton.metrics import Timing
from openlepton.ops.geometry import Frame
from openlepton.predictor import Runtime, Task

Progress = Callable[[int, int], None]
"""Called with how many images are done, and how many there are."""


@dataclass(frozen=True, eq=False)
class Seen:
    """What came of one image."""

    index: int
    """Which image of the split."""
    frame: Frame
    result: Any
    """What the task's `finish` gave."""
    timing: Timing


Prepared = tuple[Array, Frame, float]


def run_over(
    task: Task[Any],
    runtime: Runtime,
    split: Split,
    *,
    batch: int = 1,
    workers: int = 0,
    limit: int | None = None,
    progress: Progress | None = None,
    keep: Callable[[Seen], Seen] = lambda seen: seen,
) -> tuple[list[Seen], tuple[ImageError, ...]]:
    """Return what came of the images of a split, in their order, and why others could not be read.

    Args:
        task: Prepares images and finishes outputs.
        runtime: Runs the graph, or the network.
        split: The images.
        batch: The most images that go through the graph together; only those of the same shape do.
        workers: Threads that read images ahead.
        limit: Only the first so many images.
        progress: Called after each image.
        keep: What is kept of an image, so that large results need not all be held.

    Raises:
        DataEmpty: No image can be read.
    """
    count = len(split) if limit is None else min(limit, len(split))
    seen: list[Seen] = []
    unreadable: list[ImageError] = []
    for done in _results(task, runtime, split, count, batch, workers):
        if isinstance(done, ImageError):
            unreadable.append(done)
        else:
            seen.append(keep(done))
        if progress is not None:
            progress(len(seen) + len(unreadable), count)
    if not seen:
        raise DataEmpty(f"split {split.name}: none of its {count} images can be read")
    return sorted(seen, key=lambda one: one.index), tuple(unreadable)


def _results(
    task: Task[Any], runtime: Runtime, split: Split, count: int, batch: int, workers: int
) -> Iterator[Seen | ImageError]:
    """Yield what came of each image, or why it cannot be read."""

    def prepare(index: int) -> Prepared | ImageError:
        started = time.perf_counter()
        try:
            tensors, frame = task.prepare(split.image(index))
        except ImageError as error:
            return error
        return tensors["images"], frame, 1000 * (time.perf_counter() - started)

    waiting: dict[tuple[int, ...], list[tuple[int, Prepared]]] = {}
    with closing(in_order(prepare, range(count), workers=workers, ahead=2 * batch + workers)) as prepared:
        for index, one in enumerate(prepared):
            if isinstance(one, ImageError):
                yield one
                continue
            group = waiting.setdefault(one[0].shape, [])
            group.append((index, one))
            if len(group) == batch:
                yield from _run(task, runtime, waiting.pop(one[0].shape))
    for group in waiting.values():
        yield from _run(task, runtime, group)


def _run(task: Task[Any], runtime: Runtime, group: list[tuple[int, Prepared]]) -> Iterator[Seen]:
    started = time.perf_counter()
    outputs = runtime({"images": np.stack([image for _, (image, _, _) in group])})
    infer_ms = 1000 * (time.perf_counter() - started) / len(group)
    for row, (index, (_, frame, prepare_ms)) in enumerate(group):
        started = time.perf_counter()
        found = task.finish({name: value[row] for name, value in outputs.items()}, frame)
        finish_ms = 1000 * (time.perf_counter() - started)
        yield Seen(index, frame, found, Timing(prepare_ms, infer_ms, finish_ms))
