"""File to boxes with the peer `yolov5`: `yolov5_pipeline.py WEIGHTS IMAGE|FOLDER [REPEAT] [THREADS]`.

Run by the peer's own Python.
"""

import json
import statistics
import sys
import time
from pathlib import Path

import torch
import yolov5


def main(weights: str, source: str, repeat: int = 200, threads: int = 2) -> None:
    """Print JSON: milliseconds for each image, the median over single images or the mean over a folder."""
    torch.set_num_threads(threads)
    model = yolov5.load(weights, device="cpu")
    files = [str(path) for path in sorted(Path(source).iterdir())] if Path(source).is_dir() else None
    for _ in range(20):
        found = model(files[0] if files else source, size=640)
    if files:
        started = time.perf_counter()
        for file in files:
            found = model(file, size=640)
        print(json.dumps({"ms": 1000 * (time.perf_counter() - started) / len(files), "detections": len(found.xyxy[0])}))
        return
    times = []
    for _ in range(repeat):
        started = time.perf_counter()
        found = model(source, size=640)
        times.append(1000 * (time.perf_counter() - started))
    print(json.dumps({"ms": statistics.median(times), "detections": len(found.xyxy[0])}))


if __name__ == "__main__":
    main(*sys.argv[1:3], *map(int, sys.argv[3:]))
