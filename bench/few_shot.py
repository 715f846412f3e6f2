"""How good a head is that learns from a few images a class, and how long it takes: things cut out of photographs of Pascal VOC.

    python bench/few_shot.py VOC20_FOLDER [IMAGES_A_CLASS ...]

VOC20_FOLDER holds `classes.txt`, `train.txt`, `val.txt` and YOLO labels. The largest things of each class are cut out with a
tenth around them: to learn from of `train`, to be measured on of `val`, 20 a class. EfficientNet-Lite0 stands still.
"""

import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from openlepton.data.datasets import open_dataset
from openlepton.images import read_image, write_image
from openlepton.train import fit, suited

MEASURED = 20
LEAST_PX = 64


def cut(folder: Path, split: str, count: int, out: Path) -> None:
    """Write the `count` largest things of each class as images, in folders called as the classes are."""
    part = open_dataset(folder)[split]
    found: dict[int, list[tuple[float, int, np.ndarray]]] = {}
    for index in range(len(part)):
        objects = part[index].objects
        for box, area, class_id in zip(objects.boxes, objects.areas, objects.class_ids.tolist(), strict=True):
            if min(box[2:] - box[:2]) >= LEAST_PX:
                found.setdefault(class_id, []).append((area, index, box))
    for class_id, rows in found.items():
        place = out / split / part.classes[class_id]
        place.mkdir(parents=True)
        for number, (_, index, box) in enumerate(sorted(rows, key=lambda row: -row[0])[:count]):
            image = read_image(part.image(index))
            around = 0.1 * (box[2:] - box[:2])
            x1, y1 = np.maximum(box[:2] - around, 0).astype(int)
            x2, y2 = np.ceil(box[2:] + around).astype(int)
            write_image(place / f"{number}.jpg", image[y1:y2, x1:x2])


def main(folder: str, counts: list[int]) -> None:
    """Print top-1 accuracy and seconds for each number of images a class."""
    with tempfile.TemporaryDirectory() as name:
        for count in counts:
            data = Path(name) / str(count)
            cut(Path(folder), "train", count, data)
            cut(Path(folder), "val", MEASURED, data)
            started = time.perf_counter()
            trained = fit(
                suited("classify", data=str(data), out=str(data / "run"), freeze="backbone", threads=1, plots=False)
            )
            seconds, report = time.perf_counter() - started, trained.report
            images = len(list((data / "train").rglob("*.jpg")))
            print(
                f"{count:3} images a class ({images}): top-1 {report.top1:.3f} of {report.images} images, "
                f"{len(report.names)} classes, {seconds:.0f} s on one core, measuring included",
                flush=True,
            )


if __name__ == "__main__":
    main(sys.argv[1], [int(count) for count in sys.argv[2:]] or [1, 5, 20])
