"""File to masks: the same weights and the same 720p JPEG at 640, two threads, against PyTorch eager and masks as it makes them."""

import sys
import tempfile
from pathlib import Path

from measure import OURS, SEGMENTER, calmer_weights, converted, driver, photograph_720p, ratio_table

THREADS = 2
SHIFTS = {"a few": 18.0, "hundreds of": 14.0}
"""How far objectness is lowered for so many objects."""


def main(_peer: str = "", rounds: int = 5, repeat: int = 50) -> None:
    """Print images a second and the ratios, ours and the peer's in turn."""
    with tempfile.TemporaryDirectory() as name:
        for many, shift in SHIFTS.items():
            folder = Path(name) / many.split()[0]
            folder.mkdir()
            model = str(converted(folder, calmer_weights(folder, SEGMENTER, shift)))
            photo = str(photograph_720p(folder))
            rates: dict[str, list[float]] = {"ours": [], "native": [], "input": []}
            count = 0.0
            for _ in range(rounds):
                ours = driver(OURS, "openlepton_pipeline.py", model, photo, str(repeat), str(THREADS))
                rates["ours"].append(1000 / ours["ms"])
                count = ours["detections"]
                for mode in ("native", "input"):
                    arguments = (model, photo, mode, str(max(repeat // 2, 3)), str(THREADS))
                    peer = driver(OURS, "eager_segmentation.py", *arguments, threads=THREADS)
                    rates[mode].append(1000 / peer["ms"])
            title = f"one 720p JPEG with {many} objects ({count:.0f}), file to masks"
            for mode, what in (("native", "at the size of the photograph"), ("input", "the peer's at 640 alone")):
                print(
                    ratio_table(f"{title}, {what}", rates[mode], rates["ours"], "images/s", 2.5, "openlepton", "eager")
                )


if __name__ == "__main__":
    main("", *map(int, sys.argv[1:]))
