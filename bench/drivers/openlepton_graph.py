"""A model folder's graph with OpenLepton's runtime: `openlepton_graph.py FOLDER INPUT.npy REPEAT THREADS [OUT.npz]`.

Prints JSON: milliseconds for an image; writes what comes out.
"""

import json
import statistics
import sys
import time
from pathlib import Path

import numpy as np

from openlepton.card import open_folder
from openlepton.runtimes.onnx import OnnxRuntime


def main(folder: str, tensor: str, repeat: int, threads: int, out: str = "") -> None:
    """Run it and print what it took."""
    runtime = OnnxRuntime(open_folder(Path(folder)), threads=threads)
    images = np.load(tensor)[None]
    times = []
    for _ in range(repeat):
        started = time.perf_counter()
        found = runtime({"images": images})
        times.append(1000 * (time.perf_counter() - started))
    if out:
        np.savez_compressed(out, **found)
    print(json.dumps({"ms": statistics.median(times)}))


if __name__ == "__main__":
    main(*sys.argv[1:3], *map(int, sys.argv[3:5]), *sys.argv[5:])
