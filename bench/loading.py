"""Training images per second from the loader alone, with mosaic: one worker and two, from memory and from disk.

    python bench/loading.py [--data FOLDER] [--size 320]

Without `--data` the images are made up: 400 JPEGs of 500 x 375 pixels with five boxes each. Every figure is the median of
rounds in which all settings take turns, so that a busy machine slows all of them alike. OpenCV runs on one thread: workers
are what is compared, and in training the other processors belong to the network.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from openlepton.data.augment import PRESETS, random_map, tiles_around
from openlepton.data.datasets import open_dataset
from openlepton.data.loader import training_batches
from openlepton.data.reader import Reader
from openlepton.data.samples import Annotation, Source, Split
from openlepton.data.warp import FILL, Labelled, compose

BATCH = 16


@dataclass(frozen=True)
class First:
    """The first images of a source."""

    source: Source
    count: int

    def __len__(self) -> int:
        return min(self.count, len(self.source))

    def image(self, index: int) -> Path:
        """Return the path of one image."""
        return self.source.image(index)

    def annotation(self, index: int) -> Annotation:
        """Return what is labelled in one image."""
        return self.source.annotation(index)


def main(_: str = "", *, data: Path | None = None, size: int = 320, images: int = 400, rounds: int = 7) -> None:
    """Print what a mosaic costs, and how many training images a second come from memory and from disk."""
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as folder:
        split = open_dataset(data or made_up(Path(folder)))["train"]
        split = replace(split, source=First(split.source, images))
        print(f"{split}, {size} px, batch {BATCH}, preset low")
        compare_mosaics(Reader(split, size, cache_bytes=1 << 32), rounds)
        measure_loading(split, size, rounds)


def compare_mosaics(reader: Reader, rounds: int) -> None:
    """Print what one mosaic costs fused, and on a canvas."""
    size, config = reader.size, PRESETS["low"]
    items = [reader(index) for index in range(min(len(reader), 64))]

    def run(make: Callable[..., object]) -> None:
        for seed in range(100):
            rng = np.random.default_rng(seed)
            x, y = (int(value) for value in rng.integers(size // 2, size + size // 2, 2))
            four = [items[row] for row in rng.integers(len(items), size=4)]
            make(four, x, y, size, random_map(config, (2 * size, 2 * size), size, rng))

    took = take_turns({"fused": lambda: run(fused), "canvas": lambda: run(on_a_canvas)}, rounds)
    a, b = (took[name].cpu_s * 10 for name in ("fused", "canvas"))  # seconds for 100 to ms for one
    print(f"one mosaic, pixels and boxes: fused {a:.2f} ms of one processor, on a canvas {b:.2f} ms, ratio {b / a:.2f}")


def fused(items: list[Labelled], x: int, y: int, size: int, matrix: np.ndarray) -> Labelled:
    """Return the mosaic as training makes it."""
    return compose(tiles_around(x, y, items), (2 * size, 2 * size), matrix, (size, size))


def on_a_canvas(items: list[Labelled], x: int, y: int, size: int, matrix: np.ndarray) -> Labelled:
    """Return the mosaic pasted on a canvas of twice the size, which is then warped."""
    canvas = np.full((2 * size, 2 * size, 3), FILL, np.uint8)
    for tile in tiles_around(x, y, items):
        height, width = tile.item.image.shape[:2]
        x1, y1, x2, y2 = max(tile.x, 0), max(tile.y, 0), min(tile.x + width, 2 * size), min(tile.y + height, 2 * size)
        canvas[y1:y2, x1:x2] = tile.item.image[y1 - tile.y : y2 - tile.y, x1 - tile.x : x2 - tile.x]
    image = cv2.warpAffine(canvas, matrix[:2], (size, size), borderValue=(FILL, FILL, FILL))
    boxes = np.concatenate([tile.item.boxes + np.array([tile.x, tile.y] * 2) for tile in tiles_around(x, y, items)])
    boxes = boxes.clip(0, 2 * size)
    corners = boxes[:, [0, 1, 2, 1, 2, 3, 0, 3]].reshape(-1, 2) @ matrix[:2, :2].T + matrix[:2, 2]
    corners = corners.reshape(-1, 4, 2)
    moved = np.concatenate([corners.min(1), corners.max(1)], 1).clip(0, size).astype(np.float32)
    sides = moved[:, 2:] - moved[:, :2]
    left = sides.prod(1) / ((boxes[:, 2:] - boxes[:, :2]).prod(1) * matrix[0, 0] ** 2 + 1e-9)
    kept = (sides > 2).all(1) & (left > 0.1) & (sides.max(1) < 100 * sides.min(1))
    return Labelled(image, moved[kept], np.concatenate([item.class_ids for item in items])[kept])


def measure_loading(split: Split, size: int, rounds: int) -> None:
    """Print images per second of whole epochs for each number of workers, from a filled cache and without any."""
    cached, bare = Reader(split, size, cache_bytes=1 << 32), Reader(split, size)
    for index in range(len(cached)):
        cached(index)
    print(cached.cache)

    def load(reader: Reader, workers: int) -> Callable[[], None]:
        def run() -> None:
            for _ in training_batches(reader, 0, batch_size=BATCH, config=PRESETS["low"], workers=workers):
                pass

        return run

    settings = {
        f"{where}, {workers} worker{'s' * (workers > 1)}": load(reader, workers)
        for where, reader in (("from memory", cached), ("from disk", bare))
        for workers in (1, 2)
    }
    for name, took in take_turns(settings, rounds).items():
        rate, cost = len(split) / took.wall_s, 1e3 * took.cpu_s / len(split)
        print(f"{name}: {rate:,.0f} images/s, {cost:.2f} ms of one processor an image")


class Took(NamedTuple):
    """Seconds of the clock, and of all processors together."""

    wall_s: float
    cpu_s: float


def take_turns(settings: dict[str, Callable[[], None]], rounds: int) -> dict[str, Took]:
    """Return the median time of each setting over rounds in which each has a turn."""
    took: dict[str, list[tuple[float, float]]] = {name: [] for name in settings}
    for _ in range(rounds + 1):
        for name, run in settings.items():
            began = time.perf_counter(), time.process_time()
            run()
            took[name].append((time.perf_counter() - began[0], time.process_time() - began[1]))
    # The first round warms up.
    return {name: Took(*map(statistics.median, zip(*times[1:], strict=True))) for name, times in took.items()}


def made_up(root: Path) -> Path:
    """Write a YOLO data set of smooth random images, and return its folder."""
    rng = np.random.default_rng(0)
    for folder in ("images/train", "labels/train"):
        (root / folder).mkdir(parents=True)
    (root / "classes.txt").write_text("thing\n", encoding="utf-8")
    for row in range(400):
        image = cv2.resize(rng.integers(0, 256, (24, 32, 3), np.uint8), (500, 375), interpolation=cv2.INTER_CUBIC)
        (root / f"images/train/{row:03}.jpg").write_bytes(cv2.imencode(".jpg", image)[1].tobytes())
        rows = [f"0 {x:.4f} {y:.4f} {w:.4f} {h:.4f}" for x, y, w, h in rng.uniform(0.2, 0.4, (5, 4)) * [2, 2, 1, 1]]
        (root / f"labels/train/{row:03}.txt").write_text("\n".join(rows), encoding="utf-8")
    return root


def _options() -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="a data set with a split named train")
    parser.add_argument("--size", type=int, default=320, help="side of a training image, pixels (default: 320)")
    parser.add_argument("--images", type=int, default=400, help="use so many images of the data set (default: 400)")
    parser.add_argument("--rounds", type=int, default=7, help="rounds to take the median of (default: 7)")
    return vars(parser.parse_args())


if __name__ == "__main__":
    main(**_options())
