"""The same short training in PyTorch and in TensorFlow: YOLOv5n on a data set, and what AP either reaches.

`same_training.py DATA [EPOCHS] [SEEDS]`: both start from the same weights (`yolov5n-seg-nuclei`, but for the last convolutions,
which a seed draws) and see the same images in the same order, varied alike; seeds say how far chance moves the numbers.
"""

import statistics
import sys
import tempfile
import time
from pathlib import Path

from openlepton.tf import train as tensorflow
from openlepton.train import fit, suited

SIZE, START = 256, "yolov5n-seg-nuclei"


def reached(framework: str, data: str, epochs: int, seed: int) -> tuple[float, float, float]:
    """Return AP50-95, AP50 and minutes of one training."""
    with tempfile.TemporaryDirectory() as name:
        config = suited(
            "detect",
            "yolov5n",
            data=data,
            out=str(Path(name) / "run"),
            size=SIZE,
            epochs=epochs,
            pretrained=START,
            optimizer="adamw",
            lr=0.002,
            precision="float32",
            threads=1,
            seed=seed,
            evaluate_every=epochs,
            name="short",
        )
        began = time.perf_counter()
        report = (fit if framework == "torch" else tensorflow.fit)(config).report
        return report.ap, report.ap50, (time.perf_counter() - began) / 60


def main(data: str, epochs: str = "4", seeds: str = "2") -> None:
    """Print the table."""
    print("| framework | seed | AP50-95 | AP50 | minutes |\n| --- | --- | --- | --- | --- |", flush=True)
    found: dict[str, list[float]] = {"torch": [], "tensorflow": []}
    for seed in range(int(seeds)):
        for framework, values in found.items():
            ap, ap50, minutes = reached(framework, data, int(epochs), seed)
            values.append(ap)
            print(f"| {framework} | {seed} | {ap:.4f} | {ap50:.4f} | {minutes:.1f} |", flush=True)
    first, second = map(statistics.mean, found.values())
    spread = max(max(values) - min(values) for values in found.values())
    print(f"tensorflow {second - first:+.4f} on average; seeds of one framework are up to {spread:.4f} apart")


if __name__ == "__main__":
    main(*sys.argv[1:4])
