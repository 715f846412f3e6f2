"""File to boxes: the same weights and the same 720p JPEG at 640, rectangular, two threads, float32; then a folder of them."""

import sys
import tempfile
from pathlib import Path

from measure import OURS, calmer_weights, converted, driver, many_720p, photograph_720p, ratio_table

THREADS = 2


def main(peer_python: str, rounds: int = 5) -> None:
    """Print milliseconds for each image and the ratios, ours and the peers' in turn."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        weights = calmer_weights(folder)
        model = str(converted(folder, weights))
        photo, many = str(photograph_720p(folder)), str(many_720p(folder, 96))
        peer_weights = folder / "peer.pt"
        peer = [peer_python]
        driver(peer, "ultralytics_weights.py", "yolo11n.yaml", str(peer_weights))
        one: list[list[float]] = [[], [], []]
        all_of_them: list[list[float]] = [[], []]
        for _ in range(rounds):
            one[0].append(driver(OURS, "openlepton_pipeline.py", model, photo, "200", str(THREADS))["ms"])
            one[1].append(
                driver(peer, "yolov5_pipeline.py", str(weights), photo, "100", str(THREADS), threads=THREADS)["ms"]
            )
            one[2].append(driver(peer, "ultralytics_pipeline.py", str(peer_weights), photo, "100")["ms"])
            all_of_them[0].append(driver(OURS, "openlepton_pipeline.py", model, many, "1", str(THREADS))["ms"])
            all_of_them[1].append(
                driver(peer, "yolov5_pipeline.py", str(weights), many, "1", str(THREADS), threads=THREADS)["ms"]
            )
        print(ratio_table("one 720p JPEG, file to boxes, same weights", one[0], one[1], "ms", 2.0, "yolov5"))
        print(ratio_table("one 720p JPEG, its network of the same class", one[0], one[2], "ms", 2.5, "ultralytics"))
        print(ratio_table("a folder of 720p JPEGs, each", all_of_them[0], all_of_them[1], "ms", 2.3, "yolov5"))


if __name__ == "__main__":
    main(*sys.argv[1:2])
