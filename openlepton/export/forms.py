"""The files of each form: what an engine takes, made of a model folder's graph and weights."""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from openlepton.arrays import Array
from openlepton.card import ModelFolder, Precision
from openlepton.errors import ModelFailed, UsageError, missing_extra
from openlepton.hub.folder import GRAPH
from openlepton.runtimes.onnx_check import check_onnx

Files = Mapping[str, bytes]


@dataclass(frozen=True)
class Source:
    """What a form is made of."""

    folder: ModelFolder
    size_hw: tuple[int, int]
    """Height and width of the images, pixels, for engines that take one size alone."""
    inputs: Sequence[Mapping[str, Array]]
    """What real images are to the graph, for the ranges of int8."""

    def graph(self) -> bytes:
        """Return the model's ONNX graph, verified and checked."""
        data = self.folder.read(GRAPH)
        check_onnx(data, str(self.folder.path / GRAPH))
        return data

    def network(self) -> Any:
        """Return the model's network in torch, for inference."""
        from openlepton.train.start import build, read_weights, task_of

        card = self.folder.card
        task_of(card.architecture)
        anchors = card.detect.anchors if card.detect is not None else ()
        network = build(card.architecture, len(card.labels), anchors, size=card.image_input.size)
        network.load_state_dict(dict(read_weights(self.folder.path)[0]), strict=False)
        return network.eval()


def _onnx(source: Source, precision: Precision) -> Files:
    from openlepton.export.quantize import halved, quantized, widened

    if precision == "int8":
        data = quantized(source.graph(), source.inputs)
    else:
        data = (widened if precision == "float32" else halved)(source.graph())
    return {f"{precision}.onnx": data}


def _openvino(source: Source, precision: Precision) -> Files:
    from openlepton.export.quantize import quantized, widened

    try:
        import openvino
    except ModuleNotFoundError as error:
        raise missing_extra(error.name, "openvino") from None
    int8 = precision == "int8"
    graph = quantized(source.graph(), source.inputs) if int8 else widened(source.graph())
    name = "openvino" if precision == "float32" else f"openvino-{precision}"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{name}.xml"
        network = openvino.Core().read_model(graph)
        openvino.save_model(network, path, compress_to_fp16=precision == "float16")
        return {one.name: one.read_bytes() for one in (path, path.with_suffix(".bin"))}


def _torchscript(source: Source, precision: Precision) -> Files:
    from openlepton.nets.script import FILE_NAME, export_script

    return {FILE_NAME: export_script(source.network(), source.size_hw)}


def _savedmodel(source: Source, precision: Precision) -> Files:
    from openlepton.tf.savedmodel import FILE_NAME, frozen

    return {FILE_NAME: frozen(_keras(source))}


def _litert(source: Source, precision: Precision) -> Files:
    from openlepton.tf.litert import converted

    model = _keras(source, size=source.size_hw, batch=1)
    return {f"{precision}.tflite": converted(model, inputs=source.inputs if precision == "int8" else ())}


def _keras(source: Source, **sizes: Any) -> Any:
    from openlepton.tf import build

    card = source.folder.card
    anchors = card.detect.anchors if card.detect is not None else ()
    return build(
        card.architecture,
        classes=len(card.labels),
        anchors=anchors,
        weights=str(source.folder.path),
        fused=True,
        **sizes,
    )


@dataclass(frozen=True)
class Writer:
    """How the files of an engine are made, and in which precisions."""

    files: Callable[[Source, Precision], Files]
    precisions: tuple[Precision, ...]


WRITERS: Mapping[str, Writer] = {
    "onnx": Writer(_onnx, ("float32", "float16", "int8")),
    "openvino": Writer(_openvino, ("float32", "float16", "bfloat16", "int8")),
    "litert": Writer(_litert, ("float32", "int8")),
    "savedmodel": Writer(_savedmodel, ("float32",)),
    "torchscript": Writer(_torchscript, ("float32",)),
}
"""By what `openlepton export --to` takes."""


def files_of(source: Source, engine: str, precision: str) -> Files:
    """Return the files of a form, by name.

    Raises:
        UsageError: There is no such engine, or it has no such precision, or the network has no twin for it.
        MissingExtra: Something that makes the form is not installed.
        ModelFailed: What makes the form gave up on this network.
    """
    if engine not in WRITERS:
        raise UsageError(f"to: expected one of {', '.join(WRITERS)}, got {engine!r}")
    writer = WRITERS[engine]
    if precision not in writer.precisions:
        raise UsageError(f"precision: {engine} is written in {', '.join(writer.precisions)}, not in {precision!r}")
    try:
        return writer.files(source, precision)
    except (RuntimeError, ValueError) as error:
        said = (str(error).strip().splitlines() or [type(error).__name__])[-1]
        raise ModelFailed(
            f"{source.folder.card.name}: cannot be written for {engine} in {precision}: {said}"
        ) from error
