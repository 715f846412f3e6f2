"""A clip from file to tracks with OpenLepton: `openlepton_video_track.py MODEL SIZE CLIP OUT [video]`.

Writes OUT.jsonl, and OUT.mp4 with `video`. Prints JSON: milliseconds for each frame, and the share of processor time that is not
the network's.
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
from openlepton.video.stream import Reader
from openlepton.video.tracker import make_tracker
from openlepton.video.tracks import assign


class Timed:
    """A runtime that notes its processor time: with one thread it works on the caller's."""

    def __init__(self, folder):
        self.inner, self.seconds, self.lock = OnnxRuntime(folder, threads=1), 0.0, Lock()

    def __call__(self, inputs):
        """Return what the network gives."""
        started = time.thread_time()
        outputs = self.inner(inputs)
        with self.lock:
            self.seconds += time.thread_time() - started
        return outputs


def main(model: str, size: str, clip: str, out: str, kind: str = "") -> None:
    """Track the clip as the command does."""
    predictor = openlepton.load(model, size=int(size), min_score=0.1, runtime=Timed)
    predictor(np.zeros((720, 1280, 3), np.uint8))
    assign(np.ones((2, 2)), 0)  # imports SciPy
    predictor.runtime.seconds = 0.0
    started, processor, frames = time.perf_counter(), time.process_time(), 0
    tracker = make_tracker("bytetrack", min_score=0.25)
    video = Path(f"{out}.mp4") if kind == "video" else None
    with Reader([clip]) as reader, Recorder(video=video, lines=Path(f"{out}.jsonl")) as recorder:
        for _ in ahead(recorder.keep, follow(reader, predictor, tracker, workers=usable_cores())):
            frames += 1
    seconds, processor = time.perf_counter() - started, time.process_time() - processor
    outside = 1 - predictor.runtime.seconds / processor
    print(json.dumps({"ms": 1000 * seconds / frames, "outside": outside, "frames": frames}))


if __name__ == "__main__":
    main(*sys.argv[1:])
