"""Images a second of a whole training with the peer: `ultralytics_training.py DATA_YAML SIZE BATCH EPOCHS THREADS`.

Run by the peer's own Python. THREADS 0 leaves them as it sets them.
"""

import json
import statistics
import sys
import tempfile
import time

import torch
from ultralytics import YOLO


def main(data: str, size: int, batch: int, epochs: int, threads: int) -> None:
    """Print JSON: images a second of the loop, without validation; the median of the epochs but the first."""
    ticks: dict[int, list[float]] = {}
    used: set[int] = set()

    def start(trainer: object) -> None:
        if threads:
            torch.set_num_threads(threads)

    def tick(trainer: object) -> None:
        ticks.setdefault(trainer.epoch, []).append(time.perf_counter())
        used.add(torch.get_num_threads())

    model = YOLO("yolo11n.yaml")
    model.add_callback("on_train_start", start)
    model.add_callback("on_train_batch_end", tick)
    with tempfile.TemporaryDirectory() as folder:
        model.train(
            data=data,
            imgsz=size,
            batch=batch,
            epochs=epochs,
            device="cpu",
            project=folder,
            val=False,
            plots=False,
            verbose=False,
        )
    # As for ours, the first batch of an epoch is left out with all that came before it.
    speeds = [batch * (len(times) - 1) / (times[-1] - times[0]) for epoch, times in ticks.items() if epoch]
    print(json.dumps({"images_per_s": statistics.median(speeds), "threads": max(used)}))


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
