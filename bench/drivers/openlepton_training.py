"""Images a second of a whole training with OpenLepton: `openlepton_training.py DATA SIZE BATCH EPOCHS THREADS`."""

import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

from openlepton.train import TrainConfig, fit
from openlepton.train.watch import Event, Step


def main(data: str, size: int, batch: int, epochs: int, threads: int) -> None:
    """Print JSON: images a second of the loop, without evaluation; the median of the epochs but the first."""
    begun: dict[int, float] = {}
    ended: dict[int, tuple[float, int]] = {}

    def watch(event: Event) -> None:
        if isinstance(event, Step):
            now = time.perf_counter()
            begun.setdefault(event.epoch, now)  # the first batch is done: it and what came before are left out
            ended[event.epoch] = now, event.batches - 1

    with tempfile.TemporaryDirectory() as folder:
        config = TrainConfig(
            data=data,
            out=str(Path(folder) / "run"),
            model="yolov5n",
            epochs=epochs,
            batch=batch,
            size=size,
            threads=threads,
            evaluate_every=epochs,
            plots=False,
            device="cpu",
        )
        fit(config, watch=watch)
    speeds = [batch * ended[epoch][1] / (ended[epoch][0] - begun[epoch]) for epoch in range(1, epochs)]
    print(json.dumps({"images_per_s": statistics.median(speeds)}))


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
