"""EfficientNet-Lite0 with OpenLepton: `openlepton_classification.py MODEL PHOTO FROM BATCH REPEAT THREADS`.

FROM is `file`, a JPEG to named classes, or `tensor`, a batch that is ready to its scores. Prints JSON: milliseconds for an image,
the best class of the photograph and its score.
"""

import json
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

import openlepton
from openlepton.runtimes.onnx import OnnxRuntime


def main(model: str, photo: str, start: str, batch: int, repeat: int, threads: int) -> None:
    """Print the median over calls."""
    classify = openlepton.load(model, runtime=partial(OnnxRuntime, threads=threads))
    run: Callable[[], Any]
    if start == "file":
        run = partial(classify, photo) if batch == 1 else partial(classify.batch, [photo] * batch)
    else:
        images = np.stack([classify.task.prepare(photo)[0]["images"]] * batch)
        run = partial(classify.runtime, {"images": images})
    for _ in range(5):
        run()
    times = []
    for _ in range(repeat):
        started = time.perf_counter()
        run()
        times.append(1000 * (time.perf_counter() - started) / batch)
    found = classify(photo)
    print(json.dumps({"ms": statistics.median(times), "class": found.class_id, "score": float(found.score)}))


if __name__ == "__main__":
    main(*sys.argv[1:4], *map(int, sys.argv[4:]))
