"""File to boxes with OpenLepton: `openlepton_pipeline.py MODEL IMAGE|FOLDER [REPEAT] [THREADS]`.

Prints JSON: milliseconds for each image.
"""

import json
import statistics
import sys
import time
from functools import partial
from pathlib import Path

import openlepton
from openlepton.runtimes.onnx import OnnxRuntime


def main(model: str, source: str, repeat: int = 200, threads: int = 2) -> None:
    """Print the median over single images, or the mean over a folder."""
    if Path(source).is_dir():
        predictor = openlepton.load(model, runtime=partial(OnnxRuntime, threads=1))
        files = sorted(Path(source).iterdir())
        list(predictor.stream(files[:8], workers=threads))
        started = time.perf_counter()
        found = [len(result) for result in predictor.stream(files, workers=threads)]
        each = 1000 * (time.perf_counter() - started) / len(files)
        print(json.dumps({"ms": each, "detections": sum(found) / len(found)}))
        return
    predictor = openlepton.load(model, runtime=partial(OnnxRuntime, threads=threads))
    for _ in range(20):
        found = predictor(source)
    times = []
    for _ in range(repeat):
        started = time.perf_counter()
        found = predictor(source)
        times.append(1000 * (time.perf_counter() - started))
    print(json.dumps({"ms": statistics.median(times), "detections": len(found)}))


if __name__ == "__main__":
    main(*sys.argv[1:3], *map(int, sys.argv[3:]))
