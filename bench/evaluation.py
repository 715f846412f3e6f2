"""Evaluate 5,000 images x 100 detections x 80 classes, against pycocotools: the same numbers, and how much sooner.

`python bench/evaluation.py --peer-python PATH`; the peer's environment needs `pycocotools` and `numpy` and nothing else.
Both get their arrays ready made and are timed from there to the numbers: ours includes the table of classes and the curves.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
from measure import OURS, driver, ratio_table

IMAGES, OBJECTS, FOUND, CLASSES = 5000, 7, 100, 80
TARGET = 20


def write_set(path: Path, seed: int = 0) -> None:
    """Write boxes around objects, of their class seven times in ten, with crowds: arrays by name in an `.npz`."""
    rng = np.random.default_rng(seed)
    M, N = IMAGES * OBJECTS, IMAGES * FOUND
    corners, sides = rng.uniform(0, 500, (M, 2)), np.exp(rng.uniform(np.log(8), np.log(300), (M, 2)))
    boxes, labels = np.hstack([corners, corners + sides]), rng.integers(0, CLASSES, M)
    near = np.repeat(np.arange(IMAGES), FOUND) * OBJECTS + rng.integers(0, OBJECTS, N)
    moved = boxes[near] + rng.normal(0, 0.08, (N, 4)) * np.tile(sides[near], 2)
    np.savez(
        path,
        boxes=boxes,
        labels=labels,
        crowd=rng.random(M) < 0.02,
        found=np.hstack([np.minimum(moved[:, :2], moved[:, 2:]), np.maximum(moved[:, :2], moved[:, 2:])]).astype(
            np.float32
        ),
        scores=rng.random(N, np.float32),
        found_labels=np.where(rng.random(N) < 0.7, labels[near], rng.integers(0, CLASSES, N)),
        shape=(IMAGES, CLASSES),
    )


def main(peer_python: str, rounds: int = 3) -> None:
    """Print both times, their ratio, and the largest difference of the twelve numbers; end with 1 where they differ."""
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "set.npz"
        write_set(data)
        ours, peer = [], []
        for _ in range(rounds):
            ours.append(driver(OURS, "openlepton_evaluation.py", str(data)))
            peer.append(driver([peer_python], "pycocotools_evaluation.py", str(data)))
    title = f"evaluation: {IMAGES:,} images x {FOUND} detections x {CLASSES} classes"
    seconds = [[run["seconds"] for run in side] for side in (ours, peer)]
    print(ratio_table(title, *seconds, "s", TARGET, "pycocotools"))
    apart = max(float(np.abs(np.subtract(a["stats"], b["stats"])).max()) for a, b in zip(ours, peer, strict=True))
    print(f"  numbers     the twelve differ by at most {apart:.1g}; AP {ours[0]['stats'][0]:.6f}")
    if not apart < 1e-6:
        raise SystemExit("the numbers differ by more than 1e-6")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peer-python", default="bench/.peer/bin/python", help="the Python that has pycocotools")
    parser.add_argument("--rounds", type=int, default=3, help="how many times each is run, in turn")
    options = parser.parse_args()
    main(options.peer_python, options.rounds)
