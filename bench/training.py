"""Training images per second on a processor, the whole loop with mosaic: YOLOv5n at 320, batch 16, against ultralytics.

The images are made up (400 JPEGs with five boxes each), both read them from disk in the first epoch and train three; the
first epoch is left out of the figure. The peer trains its network of the same class (yolo11n), once with as many threads as
ours and once as it ships.
"""

import sys
import tempfile
from pathlib import Path

from loading import made_up
from measure import OURS, driver, ratio_table

SIZE, BATCH, EPOCHS, THREADS = "320", "16", "3", "2"


def main(peer_python: str, rounds: int = 3) -> None:
    """Print images a second and the ratios, ours and the peer's in turn."""
    with tempfile.TemporaryDirectory() as name:
        folder = made_up(Path(name))
        yaml = folder / "data.yaml"
        yaml.write_text(f"path: {folder}\ntrain: images/train\nval: images/train\nnames: [thing]\n", encoding="utf-8")
        ours, even, shipped = list[float](), list[float](), list[float]()
        settings = (SIZE, BATCH, EPOCHS)
        for _ in range(rounds):
            ours.append(driver(OURS, "openlepton_training.py", str(folder), *settings, THREADS)["images_per_s"])
            for kept, threads in ((even, THREADS), (shipped, "0")):
                figures = driver([peer_python], "ultralytics_training.py", str(yaml), *settings, threads)
                kept.append(figures["images_per_s"])
        # Images a second: more is better, so the peer stands where seconds would have ours.
        title = "training, whole loop, 320 px, batch 16"
        print(ratio_table(f"{title}, 2 threads each", even, ours, "images/s", 1.5, "openlepton", "ultralytics"))
        print(
            ratio_table(f"{title}, the peer as it ships", shipped, ours, "images/s", 2.5, "openlepton", "ultralytics")
        )


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:3]))
