from pathlib import Path

from openlepton.hub.checkpoint import inspect_checkpoint
from openlepton.hub.convert import convert

inside = inspect_checkpoint(Path("yolov5n.pt"))
print([use.name for use in inside.globals if not use.known], "are not a network's")

card = convert(Path("yolov5n.pt"), Path("my-yolov5n"), licence="AGPL-3.0-only")
print(card.name, len(card.labels), "classes")
