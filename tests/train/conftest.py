"""Small data sets, written by the tests themselves: coloured squares on grey, two classes."""

from pathlib import Path

import numpy as np
import pytest

from openlepton.images import write_image

pytest.importorskip("torch")

COLOURS = ((220, 30, 30), (30, 200, 60))


def write_squares(root: Path, splits: dict[str, int], side: int = 64, seed: int = 0, suffix: str = ".png") -> Path:
    """Write a YOLO data set in which red squares are class 0, green ones class 1, and every fourth image is empty."""
    numbers = np.random.default_rng(seed)
    root.mkdir(parents=True, exist_ok=True)
    (root / "classes.txt").write_text("red\ngreen\n", encoding="utf-8")
    for split, count in splits.items():
        for kind in ("images", "labels"):
            (root / kind / split).mkdir(parents=True, exist_ok=True)
        for index in range(count):
            image = numbers.integers(100, 130, (side, side, 3)).astype(np.uint8)
            rows = []
            for kind in range(0 if index % 4 == 3 else 2):
                width = int(numbers.integers(side // 4, side // 2))
                x, y = (int(value) for value in numbers.integers(0, side - width, 2))
                image[y : y + width, x : x + width] = COLOURS[kind]
                rows.append(f"{kind} {(x + width / 2) / side} {(y + width / 2) / side} {width / side} {width / side}\n")
            write_image(root / "images" / split / f"{index}{suffix}", image)
            (root / "labels" / split / f"{index}.txt").write_text("".join(rows), encoding="utf-8")
    return root


@pytest.fixture(scope="session")
def squares(tmp_path_factory):
    """Ten images to train on, four to measure on."""
    return write_squares(tmp_path_factory.mktemp("squares"), {"train": 10, "val": 4})


@pytest.fixture
def config(squares, tmp_path):
    """A training of seconds: three batches an epoch, four epochs, steps of two batches.

    One thread: threads that wait for each other starve on a busy machine.
    """
    from openlepton.train import TrainConfig

    return TrainConfig(
        data=str(squares),
        out=str(tmp_path / "run"),
        epochs=4,
        batch=4,
        nominal_batch=8,
        size=64,
        precision="float32",
        threads=1,
        warmup_steps=3,
        warmup_epochs=1.0,
        plots=False,
    )


@pytest.fixture(scope="session")
def able(squares, tmp_path_factory):
    """A training that was long enough to find the squares that it was shown."""
    from openlepton.data.augment import PRESETS
    from openlepton.train import LossConfig, TrainConfig, fit

    config = TrainConfig(
        data=str(squares),
        out=str(tmp_path_factory.mktemp("runs") / "able"),
        epochs=100,
        batch=5,
        nominal_batch=5,
        size=64,
        val_split="train",
        augment=PRESETS["none"],
        optimizer="adamw",
        lr=0.003,
        warmup_epochs=0,
        momentum=0.8,
        ema_decay=0.9,
        ema_ramp=5.0,
        loss=LossConfig(obj=20.0, cls=10.0),
        evaluate_every=100,
        precision="float32",
        threads=1,
        plots=False,
    )
    return fit(config)
