"""Evaluate a set with pycocotools, run by the peer's own Python: `pycocotools_evaluation.py SET.npz`; prints JSON."""

import contextlib
import io
import json
import sys
import time

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval


def xywh(boxes: np.ndarray) -> np.ndarray:
    """Return corner and size of `(N, 4)` corners."""
    boxes = boxes.astype(np.float64)
    return np.hstack([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]])


def main(path: str) -> None:
    """Print the time from annotations and an array of results in memory to the twelve numbers."""
    data = np.load(path)
    images, classes = data["shape"].tolist()
    boxes = xywh(data["boxes"])
    image_ids = np.repeat(np.arange(1, images + 1), len(boxes) // images)
    annotations = [
        {"id": row, "image_id": image, "category_id": label + 1, "bbox": box, "area": box[2] * box[3], "iscrowd": crowd}
        for row, (image, label, box, crowd) in enumerate(
            zip(
                image_ids.tolist(),
                data["labels"].tolist(),
                boxes.tolist(),
                data["crowd"].astype(int).tolist(),
                strict=True,
            ),
            1,
        )
    ]
    image_ids = np.repeat(np.arange(1, images + 1), len(data["scores"]) // images)
    results = np.column_stack([image_ids, xywh(data["found"]), data["scores"], data["found_labels"] + 1])
    truth = COCO()
    truth.dataset = {
        "images": [{"id": index} for index in range(1, images + 1)],
        "categories": [{"id": index} for index in range(1, classes + 1)],
        "annotations": annotations,
    }
    with contextlib.redirect_stdout(io.StringIO()):
        started = time.perf_counter()
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(results), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
        seconds = time.perf_counter() - started
    print(json.dumps({"seconds": seconds, "stats": evaluation.stats.tolist()}))


if __name__ == "__main__":
    main(sys.argv[1])
