"""Writing a model folder: the graph proved equal to its network, the weights to train on from, and the card, which comes last."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from openlepton.arrays import Array
from openlepton.card import CARD_NAME, ModelCard, Parity, file_facts, format_card
from openlepton.errors import OutputError, missing_extra
from openlepton.files import write_atomic

if TYPE_CHECKING:
    from openlepton.nets.export import Exportable

GRAPH = "model.onnx"
WEIGHTS = "model.safetensors"

WeightsType = Literal["float32", "float16"]

TOLERANCE: Mapping[str, Mapping[str, float]] = {
    "float32": {"boxes": 0.05, "scores": 1e-4, "coeffs": 1e-3, "protos": 1e-2},
    "float16": {"boxes": 2.0, "scores": 1e-2, "coeffs": 0.1, "protos": 0.1},
}
"""How far the graph's outputs may be from the network's, boxes in pixels, by the type that the graph stores its weights in."""


def write_model(
    out: Path,
    network: "Exportable",
    draft: ModelCard,
    tensors: Mapping[str, Array],
    *,
    weights_type: WeightsType = "float32",
    any_size: bool | None = None,
) -> ModelCard:
    """Write `network` as a model folder and return its card.

    Args:
        out: The folder, made if missing; other files in it stay.
        network: In evaluation mode, on the processor.
        draft: The card but for its `files` and `parity`, which are found out here.
        tensors: What `model.safetensors` holds, under names and in the precision that training goes on with.
        weights_type: How the graph stores weights; "float16" halves it, and loses nothing where the weights are in
            half precision themselves.
        any_size: Whether the graph takes every height and width that `multiple` divides, or only that of the card; by
            default the first where the card says letterbox.

    Raises:
        ParityFailed: The graph computes something else than the network; nothing was written.
        OutputError: The folder cannot be written.
        MissingExtra: torch, onnx or safetensors is not installed.
    """
    try:
        import safetensors.numpy

        from openlepton.nets import export
    except ModuleNotFoundError as error:
        raise missing_extra(error.name, "train") from None
    multiple, size = draft.image_input.multiple, draft.image_input.size
    any_size = draft.image_input.resize == "letterbox" if any_size is None else any_size
    size_hw = draft.image_input.size_hw or (size, size)
    traced_hw = (multiple * 2, multiple * 2) if any_size else size_hw
    graph = export.export_onnx(network, traced_hw, any_size=any_size, weights=weights_type)
    shapes = [(1, 3, multiple * 4, multiple * 8), (3, 3, multiple * 4, multiple * 4)]
    shapes = shapes if any_size else [(1, 3, *size_hw), (3, 3, *size_hw)]
    found = export.parity(network, graph, shapes, tolerance=dict(TOLERANCE[weights_type]))
    header = {"source": draft.source}  # one entry: safetensors writes several in random order
    # Contiguous: safetensors writes the memory as it lies, which for a network in channels-last is another order.
    plain = {name: np.array(value, order="C") for name, value in tensors.items()}
    files: dict[str, bytes] = {GRAPH: graph, WEIGHTS: safetensors.numpy.save(plain, header)}
    changes: dict[str, Any] = {
        "files": {file: file_facts(data) for file, data in files.items()},
        "parity": Parity(
            boxes_px=found.largest.get("boxes"),
            **{name: value for name, value in found.largest.items() if name != "boxes"},
            inputs=found.inputs,
        ),
    }
    card = draft.model_copy(update=changes)
    return write_folder(out, card, files)


def write_folder(out: Path, card: ModelCard, files: Mapping[str, bytes]) -> ModelCard:
    """Write the files of a model folder, each in one step, and last the card, which names them; return the card.

    Raises:
        OutputError: The folder cannot be made or written.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{out}: {error.strerror or error}") from None
    for name, data in files.items():
        write_atomic(out / name, data)
    write_card(out, card)
    return card


def write_card(out: Path, card: ModelCard) -> None:
    """Write `card` into the model folder `out`, in one step.

    Raises:
        OutputError: The folder is missing or cannot be written.
    """
    write_atomic(out / CARD_NAME, format_card(card).encode())
