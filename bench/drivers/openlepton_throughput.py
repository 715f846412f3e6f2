"""The raw pipeline without HTTP, bytes to JSON in as many threads as cores: `openlepton_throughput.py MODEL IMAGE SECONDS THREADS`.

Prints JSON: images a second.
"""

import itertools
import json
import sys
import time
from functools import partial
from pathlib import Path

import openlepton
from openlepton.predictor import ordered_map
from openlepton.runtimes.onnx import OnnxRuntime


def main(model: str, image: str, seconds: str, threads: str) -> None:
    """Print the rate over some seconds, after a warm-up."""
    predictor = openlepton.load(model, runtime=partial(OnnxRuntime, threads=1))
    data = Path(image).read_bytes()

    def work(_: int) -> bytes:
        return json.dumps(predictor(data).to_dict()).encode()

    results = ordered_map(work, itertools.count(), workers=int(threads))
    for _ in range(20):
        next(results)
    count, started = 0, time.perf_counter()
    while (passed := time.perf_counter() - started) < float(seconds):
        next(results)
        count += 1
    print(json.dumps({"rps": count / passed}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
