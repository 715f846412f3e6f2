"""EfficientNet-Lite0 at 224 with the same weights, two threads, one image and sixteen together, against PyTorch eager."""

import sys
import tempfile
from pathlib import Path

from measure import OURS, driver, photograph_720p, ratio_table

MODEL = "efficientnet-lite0"
THREADS = 2
BATCHES = (1, 16)
STARTS = {"file": "720p JPEG to classes", "tensor": "tensor to scores"}


def main(_peer: str = "", rounds: int = 5, images: int = 160) -> None:
    """Print images a second and the ratios, ours and the peer's in turn."""
    with tempfile.TemporaryDirectory() as name:
        photo = str(photograph_720p(Path(name)))
        for start, what in STARTS.items():
            for batch in BATCHES:
                given = (MODEL, photo, start, str(batch), str(max(images // batch, 3)), str(THREADS))
                ours, eager = list[float](), list[float]()
                for _ in range(rounds):
                    mine = driver(OURS, "openlepton_classification.py", *given)
                    peer = driver(OURS, "eager_classification.py", *given, threads=THREADS)
                    ours.append(1000 / mine["ms"])
                    eager.append(1000 / peer["ms"])
                if mine["class"] != peer["class"]:
                    raise SystemExit("the two say different things of the photograph")
                title = f"{MODEL} at 224, batch {batch}, {what}, {THREADS} threads"
                print(ratio_table(title, eager, ours, "images/s", 2.0, "openlepton", "eager"))
        print(f"  best class the same; its scores {mine['score']:.3f} and {peer['score']:.3f}")


if __name__ == "__main__":
    main("", *map(int, sys.argv[1:]))
