"""Runs a model on the processor with OpenVINO: ONNX graphs as they are, or networks of its own, in float32, bfloat16 or int8."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from openlepton.arrays import Array, Tensors
from openlepton.card import ModelFolder, Precision
from openlepton.errors import ModelFailed, UsageError, missing_extra
from openlepton.runtimes.contract import Dims, agree, line
from openlepton.runtimes.cores import default_threads, usable_cores
from openlepton.runtimes.forms import form_of, read_form
from openlepton.runtimes.onnx_check import Port, check_onnx
from openlepton.runtimes.openvino_check import check_ir
from openlepton.runtimes.pool import Pool


class OpenVinoRuntime:
    """A network that OpenVINO runs on the processor: arrays in, arrays out, from any number of threads at once.

    Args:
        folder: The model; its files are verified, checked and then loaded.
        threads: How many threads one call uses; 0 for one on each core that this process may use, or what `OMP_NUM_THREADS` says.
            With 1, as many calls run in parallel as there are cores.
        precision: Of the arithmetic, where there is a choice; by default the most exact. bfloat16 is for processors that
            have it, and leaves what turns raw maps into boxes in float32; others compute in float32 all the same.

    Raises:
        MissingExtra: OpenVINO is not installed.
        ModelCorrupt: A file differs from its card.
        ModelFormatRefused: A file is more than a network, or not the network that the card says.
        ModelFailed: OpenVINO cannot load it.
        UsageError: `threads` is negative, or the model has no form of that precision.
    """

    def __init__(self, folder: ModelFolder, *, threads: int = 0, precision: Precision | None = None) -> None:
        if threads < 0:
            raise UsageError(f"threads: expected 0 (one for each core) or more, got {threads}")
        form = form_of(folder.card, "openvino", precision)
        where = str(folder.path / form.files[0])
        self._threads = threads or default_threads()
        self._precision = form.precision
        ov = _openvino()
        try:
            network = _read(ov, read_form(folder, form), where)
        except RuntimeError as error:  # the engine's one class for all that fails
            raise ModelFailed(f"{where}: OpenVINO {ov.__version__} cannot load it: {_plain(error)}") from None
        self._ports = agree(
            [_port(one) for one in network.inputs], [_port(one) for one in network.outputs], folder.card, where
        )
        try:
            self._compiled = ov.Core().compile_model(network, "CPU", _settings(self._threads, self._precision))
            first = self._compiled.create_infer_request()
        except RuntimeError as error:
            raise ModelFailed(f"{where}: OpenVINO {ov.__version__} cannot load it: {_plain(error)}") from None
        self._requests: Pool[Any] = Pool(self._compiled.create_infer_request, first)

    @property
    def name(self) -> str:
        """What runs the graph."""
        return "openvino"

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
        """What the graph takes: sizes by name, a letter where any size will do."""
        return self._ports.inputs

    @property
    def outputs(self) -> Mapping[str, Dims]:
        """What the graph gives, likewise."""
        return self._ports.outputs

    def __call__(self, inputs: Mapping[str, Array]) -> Tensors:
        """Return the graph's outputs by name, for `images (B,3,H,W)` float32 0..1 RGB.

        Raises:
            ShapeError: An input is missing, unknown, or of another type or shape than the graph takes.
            ModelFailed: OpenVINO cannot run the graph on these inputs, or gives other shapes than the contract's.
        """
        letters = self._ports.check_inputs(inputs)
        with self._requests.one() as request:
            try:
                request.infer(dict(inputs), share_inputs=True)
            except RuntimeError as error:
                raise self._ports.failed(inputs, _plain(error)) from None
            # Copied: the request's memory belongs to the next caller.
            values = [np.array(request.get_tensor(name).data) for name in self._ports.outputs]
        return self._ports.check_outputs(values, letters)

    def __repr__(self) -> str:
        return f"<OpenVinoRuntime: {self._ports.where}, {self._precision}, {self._threads} threads>"


def _openvino() -> Any:
    try:
        import openvino
    except ModuleNotFoundError as error:
        raise missing_extra(error.name, "openvino") from None
    return openvino


def _read(ov: Any, files: tuple[bytes, ...], where: str) -> Any:
    """Return the network that the files hold, once they are known to hold nothing else."""
    if len(files) == 1:
        check_onnx(files[0], where)
        return ov.Core().read_model(files[0])
    xml, weights = files
    check_ir(xml, len(weights), where)
    return ov.Core().read_model(xml, weights)


def _settings(threads: int, precision: Precision) -> dict[str, Any]:
    cores = max(usable_cores(), threads)
    return {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "bf16" if precision == "bfloat16" else "f32",  # else processors that can take bf16
        "INFERENCE_NUM_THREADS": cores if threads == 1 else threads,
        "NUM_STREAMS": cores if threads == 1 else 1,
        "ENABLE_CPU_PINNING": False,  # several models, or processes, would be pinned to the same cores
    }


def _port(port: Any) -> Port:
    kinds = {"f32": "float32", "i64": "int64"}
    shape = port.get_partial_shape()
    dims = None if shape.rank.is_dynamic else tuple("" if dim.is_dynamic else dim.get_length() for dim in shape)
    kind = port.get_element_type().get_type_name()
    return Port(next(iter(sorted(port.get_names())), ""), kinds.get(kind, kind), dims)


def _plain(error: Exception) -> str:
    """Return the last thing that OpenVINO says, which is what went wrong; the rest are places in its source."""
    said = [part for part in str(error).splitlines() if part.strip()]
    return line(said[-1] if said else type(error).__name__)
