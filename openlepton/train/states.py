"""The state of a text model's training: one safetensors file, replaced in one step, what is no tensor as JSON in its header."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from torch import Tensor

from openlepton.errors import CheckpointRefused
from openlepton.files import write_atomic


@dataclass(frozen=True)
class Stored:
    """What was in the file of a state.

    Attributes:
        tensors: By `PART/NAME`.
        network: The sizes of the network.
        progress: How far the training is.
    """

    tensors: dict[str, Tensor]
    network: dict[str, Any]
    progress: dict[str, Any]

    def part(self, name: str) -> dict[str, Tensor]:
        """Return the tensors of one part, by their names in it."""
        head = f"{name}/"
        return {path[len(head) :]: value for path, value in self.tensors.items() if path.startswith(head)}


def write_state(
    path: Path,
    form: str,
    parts: Mapping[str, Mapping[str, Tensor]],
    network: Mapping[str, Any],
    progress: Mapping[str, Any],
) -> None:
    """Write a state to `path` in one step; `form` names what it is of, for `read_state`.

    Raises:
        OutputError: The file cannot be written.
    """
    tensors = {f"{part}/{name}": value.contiguous() for part, values in parts.items() for name, value in values.items()}
    header = {"format": form, "network": json.dumps(network), "progress": json.dumps(progress)}
    write_atomic(path, safetensors.torch.save(tensors, header))


def read_state(path: Path, form: str) -> Stored:
    """Return the state that `write_state` wrote to `path`.

    Raises:
        CheckpointRefused: The file is damaged, or not the state of such a training.
    """
    try:
        with safetensors.safe_open(path, "pt") as opened:
            header: dict[str, str] = opened.metadata() or {}
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 - not a mapping
    except (safetensors.SafetensorError, OSError) as error:
        raise CheckpointRefused(f"{path}: not a safetensors file, or damaged: {error}") from None
    if header.get("format") != form:
        raise CheckpointRefused(f"{path}: not the state of such a training: its format is not {form}")
    return Stored(tensors, json.loads(header["network"]), json.loads(header["progress"]))
