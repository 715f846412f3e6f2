"""A service such as a user would write."""

import sys
from typing import Any

import numpy as np

import openlepton
from openlepton.arrays import Image
from openlepton.serve import Service, Settings, endpoint


class Cells(Service):
    def __init__(self) -> None:
        self.detect = openlepton.load("yolov5n-bccd")

    @endpoint
    def count(self, image: Image, min_score: float = 0.25) -> int:
        """Return how many cells an image shows."""
        return int((self.detect(image).scores > min_score).sum())

    @endpoint
    def find(self, image: Image) -> openlepton.Detections:
        return self.detect(image)

    @endpoint
    def sums(self, rows: list[list[float]]) -> dict[str, Any]:
        return {"sums": np.array([sum(row) for row in rows]), "shape": (len(rows),)}

    def hidden(self) -> int:
        return 1


if __name__ == "__main__":
    sys.exit(Cells.run(Settings(port=0, workers=1)))
