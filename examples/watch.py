from pathlib import Path

import openlepton
from openlepton.apps.rules import read_rules
from openlepton.apps.watch import watch

detect = openlepton.load("my-yolov5n", size=320)
rules = read_rules("rules.toml")

for step in watch({"yard": "yard.mp4"}, rules, detect, out=Path("seen")):
    for event in step.opened:
        print(f"{event.start_s:.1f} s: {event.reason} / {event.reason_zh}")

print(Path("seen/summary.json").read_text(encoding="utf-8"))
