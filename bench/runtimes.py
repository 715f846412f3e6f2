"""Every runtime against PyTorch eager: YOLOv5n at 640, one image, two threads, in turn in one process, its accuracy beside it.

`runtimes.py [DATA] [FOLDER]`: the weights are those of `yolov5n-bccd`; with its data set (BCCD as a YOLO folder) int8 has its
ranges from it and AP is measured in both forms. FOLDER keeps the forms, so that a second run only measures. The last line is the
whole pipeline, from an image in memory to detections, against the bare call of its network.
"""

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

import openlepton
from openlepton.card import CARD_NAME, open_folder
from openlepton.errors import OpenLeptonError
from openlepton.export import export
from openlepton.export.forms import Source
from openlepton.hub.index import find
from openlepton.runtimes.forms import name_of

MODEL, SIDE, THREADS = "yolov5n-bccd", 640, 2
FORMS = (
    ("onnx", "float32"),
    ("openvino", "float32"),
    ("litert", "float32"),
    ("savedmodel", "float32"),
    ("torchscript", "float32"),
    ("onnx", "int8"),
    ("openvino", "int8"),
    ("litert", "int8"),
)
TARGETS = {"float32": 2.8, "int8": 4.2}
PIPELINE = 1.10


def milliseconds(call: Callable[[], object], count: int = 15) -> float:
    """Return the median of some calls."""
    times = []
    for _ in range(count):
        began = time.perf_counter()
        call()
        times.append(1000 * (time.perf_counter() - began))
    return statistics.median(times)


def written(folder: Path, data: Path | None) -> dict[str, str]:
    """Write every form that can be made here, if none is there, and return what the card says of their accuracy."""
    if not (folder / CARD_NAME).exists():
        for engine, precision in FORMS:
            try:
                export(
                    MODEL,
                    engine,
                    folder,
                    precision=precision,
                    data=data,
                    calibration=30,
                    images=16,
                    size=SIDE,
                    force=True,
                )
            except OpenLeptonError as error:
                print(f"{engine}-{precision}: {error}")
    told = {}
    for form in open_folder(folder).card.forms:
        found = form.compared
        ap = "" if found.value is None else f", AP {found.value:.4f} after {found.original:.4f}"
        told[name_of(form)] = f"{found.matched:.1%} in common{ap}{'' if found.keeps else ': NOT KEPT'}"
    return told


def main(data: str = "", kept: str = "", rounds: int = 5) -> None:
    """Print the table."""
    torch.set_num_threads(THREADS)
    image = np.random.default_rng(0).random((1, 3, SIDE, SIDE), dtype=np.float32)
    network = Source(find(MODEL), (SIDE, SIDE), ()).network()
    given = torch.from_numpy(image)

    def eager() -> object:
        with torch.inference_mode():
            return network.decode(network(given))

    with tempfile.TemporaryDirectory() as name:
        folder = Path(kept or name) / "model"
        told = written(folder, Path(data) if data else None)
        calls: dict[str, Callable[[], object]] = {"eager": eager}
        for form in told:
            threads = 0 if form.startswith("savedmodel") else THREADS
            runtime = openlepton.load(folder, runtime=form, threads=threads, **_size(form)).runtime
            calls[form] = lambda runtime=runtime: runtime({"images": image})
        photo = np.random.default_rng(0).integers(0, 255, (SIDE, SIDE, 3), dtype=np.uint8)
        whole = openlepton.load(folder, threads=THREADS, size=SIDE)
        calls["pipeline"] = lambda: whole(photo)
        for call in calls.values():
            milliseconds(call, 3)
        taken: dict[str, list[float]] = {form: [] for form in calls}
        for _ in range(rounds):
            for form, call in calls.items():
                taken[form].append(milliseconds(call))
    print(f"\n{MODEL} at {SIDE}, one image, {THREADS} threads; medians of {rounds} rounds")
    base = taken["eager"]
    print(f"{'PyTorch eager':22}{statistics.median(base):8.1f} ms")
    for form, accuracy in told.items():
        ratios = [a / b for a, b in zip(base, taken[form], strict=True)]
        target = TARGETS[form.partition("-")[2]]
        print(
            f"{form:22}{statistics.median(taken[form]):8.1f} ms  {statistics.median(ratios):5.2f} times "
            f"({min(ratios):.2f} to {max(ratios):.2f}; target {target}); {accuracy}"
        )
    ratios = [a / b for a, b in zip(taken["pipeline"], taken["onnx-float32"], strict=True)]
    print(f"whole pipeline: {statistics.median(ratios):.2f} times the bare network call (target {PIPELINE:.2f})")


def _size(form: str) -> dict[str, int]:
    return {} if form.startswith("litert") else {"size": SIDE}


if __name__ == "__main__":
    main(*sys.argv[1:3])
