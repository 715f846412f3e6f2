"""Evaluate a set with OpenLepton: `openlepton_evaluation.py SET.npz`; prints JSON, seconds and COCO's twelve numbers."""

import json
import sys
import time

import numpy as np

from openlepton.metrics import GroundTruth, evaluate_detections
from openlepton.results import Detections


def main(path: str) -> None:
    """Print the time from values in memory to the report."""
    data = np.load(path)
    images, classes = data["shape"].tolist()
    names = [f"class {index}" for index in range(classes)]
    rows = [data[name].reshape(images, -1, *data[name].shape[1:]) for name in ("boxes", "labels", "crowd")]
    truth = [GroundTruth(boxes, labels, crowd=crowd) for boxes, labels, crowd in zip(*rows, strict=True)]
    rows = [data[name].reshape(images, -1, *data[name].shape[1:]) for name in ("found", "scores", "found_labels")]
    found = [Detections(boxes, scores, labels, names, (900, 900)) for boxes, scores, labels in zip(*rows, strict=True)]
    started = time.perf_counter()
    report = evaluate_detections(truth, found, names)
    seconds = time.perf_counter() - started
    print(json.dumps({"seconds": seconds, "stats": list(report.summary().values())[:12]}))


if __name__ == "__main__":
    main(sys.argv[1])
