"""Non-maximum suppression of 1,000 candidates of which about 780 survive, against OpenCV's and a loop in NumPy."""

import statistics
import time
from collections.abc import Callable

import cv2
import numpy as np

from openlepton.ops.boxes import iou, nms


def candidates(count: int, centres: int, classes: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return boxes, scores and class ids: `centres` objects on a 640 x 640 image, the rest near copies of some."""
    rng = np.random.default_rng(0)
    which = np.concatenate([np.arange(centres), rng.integers(0, centres, count - centres)])
    centre, size = rng.uniform(0, 640, (centres, 2))[which], rng.uniform(10, 60, (centres, 2))[which]
    boxes = np.concatenate([centre - size / 2, centre + size / 2], axis=1) + rng.normal(0, 1, (count, 4))
    scores, class_ids = rng.random(count), rng.integers(0, classes, centres)[which]
    return boxes.astype(np.float32), scores.astype(np.float32), class_ids


def by_opencv(boxes: np.ndarray, scores: np.ndarray, class_ids: np.ndarray) -> np.ndarray:
    """Return the rows kept by OpenCV, classes set apart by an offset."""
    apart = boxes.astype(np.float64) + (class_ids * 7680.0)[:, None]
    apart[:, 2:] -= apart[:, :2]
    return np.asarray(cv2.dnn.NMSBoxes(apart, scores, 0.0, 0.45)).ravel()


def by_loop(boxes: np.ndarray, scores: np.ndarray, class_ids: np.ndarray) -> np.ndarray:
    """Return the rows kept by the loop that everybody writes first."""
    apart = boxes + (class_ids * np.float32(7680))[:, None]
    order, kept = np.argsort(-scores, kind="stable"), []
    while len(order):
        kept.append(order[0])
        order = order[1:][iou(apart[order[:1]], apart[order[1:]])[0] <= 0.45]
    return np.array(kept)


def milliseconds(function: Callable[[], object], repeat: int = 30) -> float:
    """Return the median of `repeat` calls."""
    function()
    times = []
    for _ in range(repeat):
        started = time.perf_counter()
        function()
        times.append(1000 * (time.perf_counter() - started))
    return statistics.median(times)


def main(_: str = "") -> None:
    """Print a row for each kind of scene."""
    print("suppression, milliseconds       kept   openlepton   OpenCV   loop")
    for count, centres, classes in [(1000, 780, 80), (1000, 830, 1), (100, 40, 80), (30_000, 3000, 80)]:
        boxes, scores, class_ids = scene = candidates(count, centres, classes)
        kept = nms(boxes, scores, class_ids, max_iou=0.45)
        ours = milliseconds(lambda: nms(boxes, scores, class_ids, max_iou=0.45))  # noqa: B023
        opencv = milliseconds(lambda: by_opencv(*scene), 5)  # noqa: B023
        loop = milliseconds(lambda: by_loop(*scene), 3)  # noqa: B023
        print(
            f"  {count:>6,} in {classes:>2} class(es)        {len(kept):>6,} {ours:>10.2f} {opencv:>9.2f} {loop:>8.2f}"
        )


if __name__ == "__main__":
    main()
