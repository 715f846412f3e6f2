from pathlib import Path

import openlepton
from openlepton.apps.dashcam import read_dashcam
from openlepton.apps.driving import drive

detect = openlepton.load("my-yolov5n", size=320)
camera = read_dashcam("camera.toml")

for step in drive({"road": "road.mp4"}, [detect], camera, out=Path("driven")):
    for warning in step.warnings:
        print(f"{warning.start_s:.1f} s: {warning.reason} / {warning.reason_zh}")

print(len(Path("driven/road.jsonl").read_text(encoding="utf-8").splitlines()), "frames")
