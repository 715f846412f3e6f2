"""A clip from file to tracks with OpenLepton: `openlepton_video_track.py MODEL SIZE CLIP OUT [video]`.

Writes OUT.jsonl, and OUT.mp4 with `video`. Prints JSON: milliseconds for each frame, and the shares of processor time that are
neither the network's nor (the second) its preparation's and suppression's.
"""

import json
import sys
import time
from pathlib import Path
from threading import Lock

import numpy as np

import openlepton
from openlepton.runtimes.cores import usable_cores
from openlepton.runtimes.onnx import OnnxRuntime
from openlepton.video.flow import ahead
from openlepton.video.follow import Recorder, follow
from openlepton.video.stream import Reader, frames
from openlepton.video.tracker import make_tracker
from openlepton.video.tracks import assign


class Timed:
    """A function that notes its processor time; a runtime of one thread works on the caller's."""

    def __init__(self, inner):
        self.inner, self.seconds, self.lock = inner, 0.0, Lock()

    def __call__(self, item):
        """Return what the function gives."""
        started = time.thread_time()
        outputs = self.inner(item)
        with self.lock:
            self.seconds += time.thread_time() - started
        return outputs


def main(model: str, size: str, clip: str, out: str, kind: str = "") -> None:
    """Track the clip as the command does."""
    predictor = openlepton.load(
        model, size=int(size), min_score=0.1, runtime=lambda folder: Timed(OnnxRuntime(folder, threads=1))
    )
    detect = Timed(predictor)
    predictor(np.zeros((720, 1280, 3), np.uint8))
    next(frames(clip)), assign(np.ones((2, 2)), 0)  # import PyAV and SciPy
    predictor.runtime.seconds = 0.0
    started, processor, count = time.perf_counter(), time.process_time(), 0
    tracker = make_tracker("bytetrack", min_score=0.25)
    video = Path(f"{out}.mp4") if kind == "video" else None
    with Reader([clip]) as reader, Recorder(video=video, lines=Path(f"{out}.jsonl")) as recorder:
        for _ in ahead(recorder.keep, follow(reader, detect, tracker, workers=usable_cores())):
            count += 1
    seconds, processor = time.perf_counter() - started, time.process_time() - processor
    outside, around = (1 - part.seconds / processor for part in (predictor.runtime, detect))
    print(json.dumps({"ms": 1000 * seconds / count, "outside": outside, "around": around, "frames": count}))


if __name__ == "__main__":
    main(*sys.argv[1:])
