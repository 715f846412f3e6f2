"""Runs `model.onnx` on the processor with ONNX Runtime: checked first, loaded from bytes, telemetry off."""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from openlepton.arrays import Array, Tensors
from openlepton.card import ModelFolder
from openlepton.errors import ModelFailed, ModelFormatRefused, ShapeError, UsageError
from openlepton.offline import import_onnxruntime
from openlepton.runtimes.cores import default_threads
from openlepton.runtimes.onnx_check import Port, check_onnx

FILE_NAME = "model.onnx"

Dims = tuple[int | str, ...]

_INPUTS: Mapping[str, Dims] = {"images": ("B", 3, "H", "W")}
_OUTPUTS: Mapping[str, Mapping[str, Dims]] = {
    "detect": {"boxes": ("B", "N", 4), "scores": ("B", "N", "C")},
    "segment": {
        "boxes": ("B", "N", 4),
        "scores": ("B", "N", "C"),
        "coeffs": ("B", "N", 32),
        "protos": ("B", 32, "h", "w"),
    },
    "classify": {"scores": ("B", "C")},
    "semantic": {"scores": ("B", "C", "h", "w")},
}
"""The contract of `openlepton.card`, by task; a letter is one number throughout, C is the card's number of labels."""

_SETTINGS = {
    # What was checked as ONNX must not be taken for the engine's own format.
    "session.load_model_format": "ONNX",
    # Idle workers spin for milliseconds by default: twice the processor time, and slower as soon as anything else runs.
    "session.intra_op.spin_duration_us": "100",
}


class OnnxRuntime:
    """A network that ONNX Runtime runs on the processor: arrays in, arrays out, from any number of threads at once.

    With `threads=1` the work is done on the caller's own thread, so that as many callers run in parallel as there are
    cores: best for streams and servers. With more, one call is faster and calls share the session's threads.

    Args:
        folder: The model; its `model.onnx` is verified, checked and then loaded.
        threads: How many threads one call uses; 0 for one on each core that this process may use, or what `OMP_NUM_THREADS` says.

    Raises:
        ModelCorrupt: The file differs from its card.
        ModelFormatRefused: The file is more than a network, or not the network that the card says.
        ModelFailed: ONNX Runtime cannot load it.
        UsageError: `threads` is negative.
    """

    def __init__(self, folder: ModelFolder, *, threads: int = 0) -> None:
        if threads < 0:
            raise UsageError(f"threads: expected 0 (one for each core) or more, got {threads}")
        self._where = str(folder.path / FILE_NAME)
        self._threads = threads or default_threads()
        self._classes = len(folder.card.labels)
        data = folder.read(FILE_NAME)
        facts = check_onnx(data, self._where)
        letters = {"C": self._classes}
        self._inputs = _agreed(facts.inputs, _INPUTS, letters, f"{self._where}: inputs")
        self._outputs = _agreed(facts.outputs, _OUTPUTS[folder.card.task], letters, f"{self._where}: outputs")
        self._session = _session(data, self._threads, self._where)

    @property
    def name(self) -> str:
        """What runs the graph."""
        return "onnxruntime"

    @property
    def threads(self) -> int:
        """How many threads one call uses."""
        return self._threads

    @property
    def inputs(self) -> Mapping[str, Dims]:
        """What the graph takes: sizes by name, a letter where any size will do."""
        return self._inputs

    @property
    def outputs(self) -> Mapping[str, Dims]:
        """What the graph gives, likewise."""
        return self._outputs

    def __call__(self, inputs: Mapping[str, Array]) -> Tensors:
        """Return the graph's outputs by name, for `images (B,3,H,W)` float32 0..1 RGB.

        Raises:
            ShapeError: An input is missing, unknown, or of another type or shape than the graph takes.
            ModelFailed: ONNX Runtime cannot run the graph on these inputs, or gives other shapes than the contract's.
        """
        letters = {"C": self._classes}
        self._check_inputs(inputs, letters)
        names = list(self._outputs)
        try:
            values = self._session.run(names, dict(inputs))
        except Exception as error:  # noqa: BLE001 - the engine's exceptions have no other class in common
            shapes = ", ".join(f"{name} {value.shape}" for name, value in inputs.items())
            raise ModelFailed(f"{self._where}: could not run on {shapes}: {_plain(error)}") from None
        for name, value in zip(names, values, strict=True):
            if not _fits(value.shape, self._outputs[name], letters):
                raise ModelFailed(f"{self._where}: {name}: expected {_show(self._outputs[name])}, got {value.shape}")
        return dict(zip(names, values, strict=True))

    def __repr__(self) -> str:
        return f"<OnnxRuntime: {self._where}, {self._threads} threads>"

    def _check_inputs(self, inputs: Mapping[str, Array], letters: dict[str, int]) -> None:
        if inputs.keys() != self._inputs.keys():
            raise ShapeError(f"inputs: expected {', '.join(self._inputs)}, got {', '.join(inputs) or 'none'}")
        for name, dims in self._inputs.items():
            value = inputs[name]
            if not isinstance(value, np.ndarray) or value.dtype != np.float32:
                kind = value.dtype if isinstance(value, np.ndarray) else type(value).__name__
                raise ShapeError(f"{name}: expected a float32 array, got {kind}")
            if 0 in value.shape or not _fits(value.shape, dims, letters):
                raise ShapeError(f"{name}: expected {_show(dims)}, each at least 1, got {value.shape}")


def _session(data: bytes, threads: int, where: str) -> Any:
    ort = import_onnxruntime()
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL  # the blocked layout alone gives 1.5x
    options.enable_mem_pattern = False  # a plan is kept for every input shape: no faster, and images have many shapes
    options.log_severity_level = 4  # errors come as exceptions
    for key, value in _SETTINGS.items():
        options.add_session_config_entry(key, value)
    try:
        return ort.InferenceSession(
            data, options, providers=["CPUExecutionProvider"], enable_fallback=0, read_config_from_model=0
        )
    except Exception as error:  # noqa: BLE001 - the engine's exceptions have no other class in common
        raise ModelFailed(f"{where}: ONNX Runtime {ort.__version__} cannot load it: {_plain(error)}") from None


def _agreed(
    ports: tuple[Port, ...], wanted: Mapping[str, Dims], letters: dict[str, int], where: str
) -> dict[str, Dims]:
    """Return the dims of each port, with the contract's letters where the graph leaves them open; refuse other ports."""
    by_name = {port.name: port for port in ports}
    if len(by_name) != len(ports) or by_name.keys() != wanted.keys():
        found = _line(", ".join(port.name for port in ports))
        raise ModelFormatRefused(f"{where}: expected {', '.join(wanted)}, found {found or 'none'}")
    agreed = {}
    for name, dims in wanted.items():
        kind, sizes = by_name[name].element_type or "another type", by_name[name].dims
        if kind != "float32" or sizes is None or not _fits(sizes, dims, letters):
            labels = f" (C is {letters['C']}, the card's number of labels)" if "C" in dims else ""
            found = f"{kind} {'of unknown rank' if sizes is None else _line(_show(sizes))}"
            raise ModelFormatRefused(f"{where}: {name}: expected float32 {_show(dims)}{labels}, found {found}")
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


_PREFIX = re.compile(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ")
_SOURCE = re.compile(r"\S+\.(?:h|hpp|cc|cpp):\d+ (?:[^()]*::[^()]*\([^()]*\)(?: const)? |\w+ )?")


def _plain(error: Exception) -> str:
    """Return what ONNX Runtime says in one line, without its error numbers and places in its source."""
    return _line(" ".join(_SOURCE.sub("", _PREFIX.sub("", str(error))).split()))


def _line(text: str) -> str:
    """Return what a model's author wrote as it may stand in a message: printable, and not endless."""
    return "".join(char if char.isprintable() else "?" for char in text[:400])
