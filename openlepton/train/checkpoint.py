"""A training's whole state in one safetensors file: tensors by name, everything else as JSON in its header.

One file is replaced in one step, so there is always a checkpoint that is complete. Nothing in it can run code.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from openlepton.errors import CheckpointMismatch, CheckpointRefused, DataNotFound, OutputError
from openlepton.files import write_atomic
from openlepton.train.config import TrainConfig

FORMAT = "openlepton-training-1"
LAST = "last.safetensors"
BEST = "best.safetensors"


@dataclass(frozen=True)
class Progress:
    """How far a training is; plain numbers."""

    epoch: int = 0
    """The epoch that goes on."""
    batch: int = 0
    """How many batches of it are done."""
    steps: int = 0
    """Steps of the optimiser, all epochs together."""
    best_epoch: int = -1
    best_fitness: float = -1.0
    scale: float = 0.0
    """Of the loss, where the arithmetic is float16."""
    sums: tuple[float, ...] = ()
    """Losses of the epoch so far."""
    history: tuple[Mapping[str, float], ...] = ()
    """One row for each epoch, as in `results.csv`."""
    anchors: tuple[tuple[tuple[float, float], ...], ...] = ()
    classes: tuple[str, ...] = ()
    source: str = ""
    """Where the weights come from, in words."""


@dataclass(frozen=True)
class Checkpoint:
    """What a training needs to go on as if it had never stopped."""

    config: TrainConfig
    progress: Progress
    network: Mapping[str, Tensor]
    averaged: Mapping[str, Tensor]
    optimizer: Mapping[str, Tensor]
    random: Tensor = field(default_factory=torch.get_rng_state)


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write `checkpoint` to `path` in one step; upon failure the one that was there stays.

    Raises:
        OutputError: The disk is full or does not allow it.
    """
    tensors = {"random": checkpoint.random}
    for part in ("network", "averaged", "optimizer"):
        values: Mapping[str, Tensor] = getattr(checkpoint, part)
        tensors |= {f"{part}/{name}": value.detach().cpu().contiguous() for name, value in values.items()}
    header = {
        "format": FORMAT,
        "config": checkpoint.config.to_json(),
        "progress": json.dumps(asdict(checkpoint.progress)),
    }
    try:
        write_atomic(path, safetensors.torch.save(tensors, header))
    except OutputError as error:
        raise OutputError(f"{error}; the checkpoint before it is intact") from error


def load_checkpoint(path: Path) -> Checkpoint:
    """Return the checkpoint in the file `path`, or in the run's folder of that name.

    Raises:
        DataNotFound: There is none.
        CheckpointRefused: The file is not a checkpoint of a training.
        CheckpointMismatch: It was written by a release that this one does not understand.
    """
    file = path / LAST if path.is_dir() else path
    if not file.is_file():
        raise DataNotFound(f"{path}: no checkpoint {LAST} in it to go on from")
    try:
        with safetensors.safe_open(file, "pt") as opened:
            header: dict[str, str] = opened.metadata() or {}
            if header.get("format") != FORMAT:
                raise CheckpointRefused(f"{file}: not a checkpoint of a training, which `train` writes as {LAST}")
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 - not a mapping
    except (safetensors.SafetensorError, OSError) as error:
        raise CheckpointRefused(f"{file}: not a safetensors file, or damaged: {error}") from None
    parts: dict[str, dict[str, Tensor]] = {"network": {}, "averaged": {}, "optimizer": {}}
    for name, value in tensors.items():
        part, _, rest = name.partition("/")
        if rest and part in parts:
            parts[part][rest] = value
    return Checkpoint(
        TrainConfig.from_json(header["config"]), _progress(header, file), random=tensors["random"], **parts
    )


def _progress(header: Mapping[str, str], file: Path) -> Progress:
    try:
        values: dict[str, Any] = json.loads(header["progress"])
        values["anchors"] = tuple(tuple(tuple(pair) for pair in level) for level in values["anchors"])
        for name in ("sums", "history", "classes"):
            values[name] = tuple(values[name])
        return Progress(**values)
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointMismatch(f"{file}: its progress is not one of this release: {error}") from None
