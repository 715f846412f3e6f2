from functools import partial
from pathlib import Path

from openlepton import load
from openlepton.runtimes.cores import usable_cores
from openlepton.runtimes.onnx import OnnxRuntime
from openlepton.video.flow import ahead
from openlepton.video.follow import Recorder, follow
from openlepton.video.stream import frames
from openlepton.video.tracker import make_tracker

detect = load("yolox-nano-voc20", min_score=0.1, runtime=partial(OnnxRuntime, threads=1))
tracker = make_tracker("bytetrack", min_score=0.3, class_aware=False)

steps = follow(frames("road.mp4"), detect, tracker, workers=usable_cores())
with Recorder(video=Path("road-tracked.mp4"), lines=Path("road.jsonl")) as recorder:
    seen = {int(one) for step in ahead(recorder.keep, steps) for one in step.found.track_ids}
print(len(seen), "objects")
