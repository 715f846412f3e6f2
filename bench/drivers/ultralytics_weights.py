"""Write a checkpoint of the peer's network of the same class, untrained: `ultralytics_weights.py NAME.yaml OUT.pt`."""

import json
import sys

from ultralytics import YOLO

YOLO(sys.argv[1]).save(sys.argv[2])
print(json.dumps({}))
