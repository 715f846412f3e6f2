"""File to boxes with the peer `ultralytics` at its defaults: `ultralytics_pipeline.py WEIGHTS IMAGE [REPEAT]`.

Run by the peer's own Python.
"""

import json
import statistics
import sys
import time

from ultralytics import YOLO


def main(weights: str, source: str, repeat: int = 200) -> None:
    """Print JSON: the median milliseconds from file to boxes."""
    model = YOLO(weights)
    for _ in range(20):
        found = model.predict(source, verbose=False)
    times = []
    for _ in range(repeat):
        started = time.perf_counter()
        found = model.predict(source, verbose=False)
        times.append(1000 * (time.perf_counter() - started))
    print(json.dumps({"ms": statistics.median(times), "detections": len(found[0].boxes)}))


if __name__ == "__main__":
    main(*sys.argv[1:3], *map(int, sys.argv[3:]))
