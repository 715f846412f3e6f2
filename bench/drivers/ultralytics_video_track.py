"""A clip from file to tracks with the peer `ultralytics`: `ultralytics_video_track.py WEIGHTS SIZE CLIP [THREADS]`.

Run by the peer's own Python, which needs `lap` as well. Prints JSON: milliseconds for each frame, without drawing or writing.
"""

import json
import sys
import time

import numpy as np
import torch
from ultralytics import YOLO


def main(weights: str, size: str, clip: str, threads: str = "") -> None:
    """Track the clip with its ByteTrack at its defaults."""
    if threads:
        torch.set_num_threads(int(threads))
    model = YOLO(weights)
    model.predict(np.zeros((720, 1280, 3), np.uint8), imgsz=int(size), verbose=False)
    started, frames = time.perf_counter(), 0
    for _ in model.track(clip, stream=True, tracker="bytetrack.yaml", imgsz=int(size), verbose=False):
        frames += 1
    print(json.dumps({"ms": 1000 * (time.perf_counter() - started) / frames, "frames": frames}))


if __name__ == "__main__":
    main(*sys.argv[1:])
