"""OpenCV's DNN module on a Darknet network: `darknet_opencv.py CFG WEIGHTS INPUT.npy REPEAT THREADS [OUT.npz]`.

It needs OpenCV 4, the last that reads Darknet's files. Prints JSON: milliseconds for an image; writes what comes out.
"""

import json
import statistics
import sys
import time

import cv2
import numpy as np


def main(cfg: str, weights: str, tensor: str, repeat: int, threads: int, out: str = "") -> None:
    """Run it and print what it took."""
    cv2.setNumThreads(threads)
    network = cv2.dnn.readNetFromDarknet(cfg, weights)
    network.setPreferableBackend(cv2.dnn.DNN_BACKEND_OPENCV)
    names = network.getUnconnectedOutLayersNames()
    blob = np.load(tensor)[None]
    times = []
    for _ in range(repeat):
        started = time.perf_counter()
        network.setInput(blob)
        found = network.forward(names)
        times.append(1000 * (time.perf_counter() - started))
    if out:
        np.savez_compressed(out, *found)
    print(json.dumps({"ms": statistics.median(times), "opencv": cv2.__version__}))


if __name__ == "__main__":
    main(*sys.argv[1:4], int(sys.argv[4]), int(sys.argv[5]), *sys.argv[6:])
