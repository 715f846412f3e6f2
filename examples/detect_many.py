from functools import partial
from pathlib import Path

import openlepton
from openlepton.runtimes.onnx import OnnxRuntime

detect = openlepton.load("yolox-nano-voc20", runtime=partial(OnnxRuntime, threads=1))
photos = sorted(Path("photos").glob("*.jpg"))

for photo, found in zip(photos, detect.stream(photos), strict=True):
    if isinstance(found, openlepton.errors.OpenLeptonError):
        print(f"{photo.name}: {found}")
    else:
        print(f"{photo.name}: {found!r}")
