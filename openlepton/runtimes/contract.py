"""What a graph takes and gives, in the letters of the contract; every runtime holds its graph, its callers and its engine to it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from openlepton.arrays import Array, Tensors
from openlepton.card import TEXT_TASKS, ModelCard
from openlepton.errors import ModelFailed, ModelFormatRefused, ShapeError
from openlepton.runtimes.onnx_check import Port

Dims = tuple[int | str, ...]
"""Sizes; a letter is one number throughout, whatever it is."""

_IMAGES: Mapping[str, Dims] = {"images": ("B", 3, "H", "W")}
_TOKENS: Mapping[str, Dims] = {"input_ids": ("B", "T"), "attention_mask": ("B", "T")}
_OUTPUTS: Mapping[str, Mapping[str, Dims]] = {
    "detect": {"boxes": ("B", "N", 4), "scores": ("B", "N", "C")},
    "segment": {
        "boxes": ("B", "N", 4),
        "scores": ("B", "N", "C"),
        "coeffs": ("B", "N", 32),
        "protos": ("B", 32, "h", "w"),
    },
    "classify": {"scores": ("B", "C")},
    "classify-text": {"scores": ("B", "C")},
    "semantic": {"scores": ("B", "C", "h", "w")},
}
"""The contract of `openlepton.card`, by task; C is the card's number of labels."""


@dataclass(frozen=True)
class Ports:
    """What one graph takes and gives: sizes by name, a letter where any size will do."""

    where: str
    """The file, as errors call it."""
    inputs: Mapping[str, Dims]
    outputs: Mapping[str, Dims]
    classes: int
    kind: str = "float32"
    """Of the inputs' elements."""

    def check_inputs(self, inputs: Mapping[str, Array]) -> dict[str, int]:
        """Return what number each letter is, for `check_outputs`.

        Raises:
            ShapeError: An input is missing, unknown, or of another type or shape than the graph takes.
        """
        letters = {"C": self.classes}
        if inputs.keys() != self.inputs.keys():
            raise ShapeError(f"inputs: expected {', '.join(self.inputs)}, got {', '.join(inputs) or 'none'}")
        for name, dims in self.inputs.items():
            value = inputs[name]
            if not isinstance(value, np.ndarray) or value.dtype != self.kind:
                kind = value.dtype if isinstance(value, np.ndarray) else type(value).__name__
                article = "an" if self.kind.startswith("i") else "a"
                raise ShapeError(f"{name}: expected {article} {self.kind} array, got {kind}")
            if 0 in value.shape or not _fits(value.shape, dims, letters):
                raise ShapeError(f"{name}: expected {_show(dims)}, each at least 1, got {value.shape}")
        return letters

    def check_outputs(self, values: Sequence[Array], letters: dict[str, int]) -> Tensors:
        """Return the outputs by name, given in the order of `outputs`.

        Raises:
            ModelFailed: The engine gave other shapes than the contract's.
        """
        for (name, dims), value in zip(self.outputs.items(), values, strict=True):
            if not _fits(value.shape, dims, letters):
                raise ModelFailed(f"{self.where}: {name}: expected {_show(dims)}, got {value.shape}")
        return dict(zip(self.outputs, values, strict=True))

    def failed(self, inputs: Mapping[str, Array], reason: str) -> ModelFailed:
        """Return the error that says which inputs the engine could not work on, and why."""
        shapes = ", ".join(f"{name} {value.shape}" for name, value in inputs.items())
        return ModelFailed(f"{self.where}: could not run on {shapes}: {line(reason)}")


def agree(inputs: Sequence[Port], outputs: Sequence[Port], card: ModelCard, where: str) -> Ports:
    """Return the ports of a graph, with the contract's letters where it leaves sizes open.

    Raises:
        ModelFormatRefused: The graph takes or gives something else than the card's task does.
    """
    text = card.task in TEXT_TASKS
    kind, letters = "int64" if text else "float32", {"C": len(card.labels)}
    taken = _agreed(inputs, _TOKENS if text else _IMAGES, kind, letters, f"{where}: inputs")
    if card.task not in _OUTPUTS:
        raise ModelFormatRefused(f"{where}: a model whose task is {card.task} is no single graph")
    given = _agreed(outputs, _OUTPUTS[card.task], "float32", letters, f"{where}: outputs")
    return Ports(where, taken, given, len(card.labels), kind)


def open_ports(card: ModelCard) -> tuple[list[Port], list[Port]]:
    """Return inputs and outputs of any size the contract allows, for programs that do not say theirs."""
    inputs = [Port("images", "float32", tuple(dim if isinstance(dim, int) else "" for dim in _IMAGES["images"]))]
    outputs = _OUTPUTS.get(card.task, {})
    given = [Port(name, "float32", tuple("" for _ in dims)) for name, dims in outputs.items()]
    return inputs, given


def line(text: str) -> str:
    """Return what a model's author wrote as it may stand in a message: printable, in one line, and not endless."""
    return "".join(char if char.isprintable() else "?" for char in " ".join(text.split())[:400])


def _agreed(
    ports: Sequence[Port], wanted: Mapping[str, Dims], kind: str, letters: dict[str, int], where: str
) -> dict[str, Dims]:
    by_name = {port.name: port for port in ports}
    if len(by_name) != len(ports) or by_name.keys() != wanted.keys():
        found = line(", ".join(port.name for port in ports))
        raise ModelFormatRefused(f"{where}: expected {', '.join(wanted)}, found {found or 'none'}")
    agreed = {}
    for name, dims in wanted.items():
        given, sizes = by_name[name].element_type or "another type", by_name[name].dims
        if given != kind or sizes is None or not _fits(sizes, dims, letters):
            labels = f" (C is {letters['C']}, the card's number of labels)" if "C" in dims else ""
            found = f"{given} {'of unknown rank' if sizes is None else line(_show(sizes))}"
            raise ModelFormatRefused(f"{where}: {name}: expected {kind} {_show(dims)}{labels}, found {found}")
        agreed[name] = tuple(size if isinstance(size, int) else dim for size, dim in zip(sizes, dims, strict=True))
    return agreed


def _fits(sizes: Dims, dims: Dims, letters: dict[str, int]) -> bool:
    """Return whether `sizes`, where they are known, are those of `dims`; `letters` remembers what each letter was."""
    if len(sizes) != len(dims):
        return False
    known = [(size, dim) for size, dim in zip(sizes, dims, strict=True) if isinstance(size, int)]
    return all(
        size >= 0 and size == (letters.setdefault(dim, size) if isinstance(dim, str) else dim) for size, dim in known
    )


def _show(dims: Dims) -> str:
    return f"({', '.join(str(dim) or '?' for dim in dims)})"
