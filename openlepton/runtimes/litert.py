"""Runs `.tflite` models on the processor with LiteRT, the successor of TensorFlow Lite, in float32 or int8."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from openlepton.arrays import Array, Tensors
from openlepton.card import ModelFolder, Precision
from openlepton.errors import ModelFailed, UsageError, missing_extra
from openlepton.runtimes.contract import Dims, agree, line
from openlepton.runtimes.cores import default_threads
from openlepton.runtimes.forms import form_of
from openlepton.runtimes.litert_check import check_litert
from openlepton.runtimes.onnx_check import Port
from openlepton.runtimes.pool import Pool

SIGNATURE = "serving_default"


class LiteRtRuntime:
    """A network that LiteRT runs on the processor: arrays in, arrays out, from any number of threads at once.

    Its images have one size, and go through one at a time.

    Args:
        folder: The model; its `.tflite` file is verified, checked and then loaded.
        threads: How many threads one call uses; 0 for one on each core that this process may use, or what `OMP_NUM_THREADS` says.
        precision: Which of the model's files, where its card lists several; by default the most exact.

    Raises:
        MissingExtra: LiteRT is not installed.
        ModelCorrupt: The file differs from its card.
        ModelFormatRefused: The file is more than a network, or not the network that the card says.
        ModelFailed: LiteRT cannot load it.
        UsageError: `threads` is negative, or the model has no form for LiteRT in that precision.
    """

    def __init__(self, folder: ModelFolder, *, threads: int = 0, precision: Precision | None = None) -> None:
        if threads < 0:
            raise UsageError(f"threads: expected 0 (one for each core) or more, got {threads}")
        form = form_of(folder.card, "litert", precision)
        where = str(folder.path / form.files[0])
        self._threads = threads or default_threads()
        self._precision = form.precision
        self._data = folder.read(form.files[0])
        check_litert(self._data, where)
        self._interpreter = _interpreter()
        try:
            first = self._make()
            inputs, outputs = _ports(first.get_input_details()), _ports(first.get_output_details())
        except (RuntimeError, ValueError) as error:
            raise ModelFailed(f"{where}: LiteRT cannot load it: {line(str(error))}") from None
        self._ports = agree(inputs, outputs, folder.card, where)
        self._runners: Pool[Any] = Pool(self._make, first)

    @property
    def name(self) -> str:
        """What runs the graph."""
        return "litert"

    @property
    def precision(self) -> Precision:
        """What it computes in."""
        return self._precision

    @property
    def threads(self) -> int:
        """How many threads one call uses."""
        return self._threads

    @property
    def inputs(self) -> Mapping[str, Dims]:
        """What the graph takes: sizes by name."""
        return self._ports.inputs

    @property
    def outputs(self) -> Mapping[str, Dims]:
        """What the graph gives, likewise."""
        return self._ports.outputs

    def __call__(self, inputs: Mapping[str, Array]) -> Tensors:
        """Return the graph's outputs by name, for `images (B,3,H,W)` float32 0..1 RGB.

        Raises:
            ShapeError: An input is missing, unknown, or of another type or shape than the graph takes.
            ModelFailed: LiteRT cannot run the graph on these inputs, or gives other shapes than the contract's.
        """
        letters = self._ports.check_inputs(inputs)
        with self._runners.one() as runner:
            try:
                rows = [runner(images=np.ascontiguousarray(image[None])) for image in inputs["images"]]
            except (RuntimeError, ValueError) as error:
                raise self._ports.failed(inputs, str(error)) from None
        values = [
            rows[0][name] if len(rows) == 1 else np.concatenate([row[name] for row in rows])
            for name in self._ports.outputs
        ]
        return self._ports.check_outputs(values, letters)

    def __repr__(self) -> str:
        return f"<LiteRtRuntime: {self._ports.where}, {self._precision}, {self._threads} threads>"

    def _make(self) -> Any:
        interpreter = self._interpreter(model_content=self._data, num_threads=self._threads)
        return interpreter.get_signature_runner(SIGNATURE)


def _interpreter() -> Any:
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ModuleNotFoundError as error:
        raise missing_extra(error.name, "litert") from None
    return Interpreter


def _ports(details: Mapping[str, Mapping[str, Any]]) -> list[Port]:
    """Return what a signature says of its tensors; images and results go one by one, so that any number is taken."""
    ports = []
    for name, detail in details.items():
        sizes = tuple(int(size) for size in detail["shape"])
        ports.append(Port(name, np.dtype(detail["dtype"]).name, ("", *sizes[1:]) if sizes[:1] == (1,) else sizes))
    return ports
