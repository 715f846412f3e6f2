"""The same weights in PyTorch eager, batch norms fused: `eager_classification.py MODEL PHOTO FROM BATCH REPEAT THREADS`.

FROM is `file`, a JPEG to scores with OpenCV's reading and resizing, or `tensor`, a batch that is ready to its scores. Prints JSON:
milliseconds for an image, the best class of the photograph and its score.
"""

import json
import statistics
import sys
import time

import cv2
import numpy as np
import torch
from torch import Tensor

from openlepton.card import ImageInput
from openlepton.hub.index import find
from openlepton.train.start import build, read_weights, take_over


def read(photo: str, facts: ImageInput) -> Tensor:
    """Return the central square of a photograph, `(3, S, S)` 0 to 1."""
    image = cv2.imread(photo)
    height, width = image.shape[:2]
    side = round(facts.size / facts.crop_fraction)
    by = side / min(height, width)
    image = cv2.resize(image, (round(width * by), round(height * by)), interpolation=cv2.INTER_LINEAR)
    y, x = ((length - facts.size) // 2 for length in image.shape[:2])
    square = image[y : y + facts.size, x : x + facts.size, ::-1].transpose(2, 0, 1)
    return torch.from_numpy(np.ascontiguousarray(square)).float() / 255


def main(model: str, photo: str, start: str, batch: int, repeat: int, threads: int) -> None:
    """Print the median over calls."""
    torch.set_num_threads(threads)
    card = find(model).card
    network = build(card.architecture, len(card.labels))
    take_over(network, *read_weights(model))
    network = network.fused()
    ready = read(photo, card.image_input)[None].repeat(batch, 1, 1, 1)
    times = []
    with torch.inference_mode():
        for step in range(repeat + 5):
            started = time.perf_counter()
            images = torch.stack([read(photo, card.image_input) for _ in range(batch)]) if start == "file" else ready
            scores = network.decode(network(images))
            if step >= 5:
                times.append(1000 * (time.perf_counter() - started) / batch)
    best = int(scores[0].argmax())
    print(json.dumps({"ms": statistics.median(times), "class": best, "score": float(scores[0, best])}))


if __name__ == "__main__":
    main(*sys.argv[1:4], *map(int, sys.argv[4:]))
