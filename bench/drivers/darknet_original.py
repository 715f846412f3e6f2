"""The original C program on a network: `darknet_original.py CFG WEIGHTS INPUT.npy REPEAT [OUT.npz TASK CLASSES]`.

It needs `libdarknet.so`, as Debian's package `darknet` has it. Prints JSON: milliseconds for an image; writes what comes out.
"""

import ctypes
import json
import os
import statistics
import sys
import time

import numpy as np

LIBRARY = "/usr/lib/darknet/libdarknet.so"
FLOATS = ctypes.POINTER(ctypes.c_float)


class Detection(ctypes.Structure):
    """`detection` of darknet.h."""

    _fields_ = [
        ("box", ctypes.c_float * 4),
        ("classes", ctypes.c_int),
        ("prob", FLOATS),
        ("mask", FLOATS),
        ("objectness", ctypes.c_float),
        ("sort_class", ctypes.c_int),
    ]


def main(cfg: str, weights: str, tensor: str, repeat: int, out: str = "", task: str = "", classes: int = 0) -> None:
    """Run it and print what it took."""
    library = ctypes.CDLL(os.environ.get("LIBDARKNET", LIBRARY))
    library.load_network.restype = library.network_predict.restype = ctypes.c_void_p
    library.get_network_boxes.restype = ctypes.POINTER(Detection)
    image = np.ascontiguousarray(np.load(tensor), np.float32)
    floor = os.dup(1)
    os.dup2(2, 1)  # it prints to standard output as it pleases
    network = ctypes.c_void_p(library.load_network(cfg.encode(), weights.encode(), 0))
    library.set_batch_network(network, 1)
    times = []
    for _ in range(repeat):
        started = time.perf_counter()
        found = library.network_predict(network, image.ctypes.data_as(FLOATS))
        times.append(1000 * (time.perf_counter() - started))
    if out and task == "classify":
        np.savez_compressed(out, scores=np.ctypeslib.as_array(ctypes.cast(found, FLOATS), (classes,)))
    elif out:
        count, wide, high = ctypes.c_int(0), ctypes.c_int(image.shape[2]), ctypes.c_int(image.shape[1])
        zero = ctypes.c_float(0)
        boxes = library.get_network_boxes(network, wide, high, zero, zero, None, 1, ctypes.byref(count))
        rows = [[*b.box, b.objectness, *b.prob[:classes]] for b in (boxes[i] for i in range(count.value))]
        np.savez_compressed(out, rows=np.array(rows, np.float32))
    os.dup2(floor, 1)
    print(json.dumps({"ms": statistics.median(times)}))


if __name__ == "__main__":
    main(*sys.argv[1:4], int(sys.argv[4]), *sys.argv[5:7], *map(int, sys.argv[7:]))
