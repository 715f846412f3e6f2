from pathlib import Path

import openlepton
from openlepton.hub.darknet import convert_darknet, read_names

card = convert_darknet(
    Path("yolov3.cfg"),
    Path("yolov3.weights"),
    Path("my-yolov3"),
    licence="Apache-2.0",
    labels=read_names(Path("coco.names")),
    resize="letterbox",  # or "stretch", as AlexeyAB's branch does
    epsilon="variance",  # or "deviation", as the original does on processors
)
print(card.architecture, card.input.size_hw, len(card.labels), "classes")

found = openlepton.load("my-yolov3")("photo.jpg")
print(len(found), "objects")
