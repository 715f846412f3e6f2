"""Runs ONNX graphs on the processor with ONNX Runtime: checked first, loaded from bytes, telemetry off."""

import re
from collections.abc import Mapping
from threading import Lock
from typing import Any

from openlepton.arrays import Array, Tensors
from openlepton.card import ModelCard, ModelFolder, Precision
from openlepton.errors import ModelFailed, UsageError
from openlepton.offline import import_onnxruntime
from openlepton.runtimes.contract import Dims, agree, line
from openlepton.runtimes.cores import default_threads
from openlepton.runtimes.forms import GRAPH, form_of
from openlepton.runtimes.onnx_check import check_onnx

FILE_NAME = GRAPH

_SETTINGS = {
    # What was checked as ONNX must not be taken for the engine's own format.
    "session.load_model_format": "ONNX",
}


_SPIN_US = 100  # by default milliseconds: twice the processor time, and slower as soon as anything else runs
_SPLIT_ABOVE = 1 << 20  # bytes left over in a block above which they are given to another tensor, not lost
_sharing = Lock()
_shared = False


def share_memory() -> None:
    """Let all graphs that this process loads from now on compute in the same memory: a server's worker, a quarter smaller for it.

    Otherwise every graph keeps what its largest input needed until it is dropped; shared memory stays with the process.
    """
    global _shared
    with _sharing:
        if _shared:
            return
        ort = import_onnxruntime()
        settings = ort.OrtArenaCfg(
            0, 0, -1, _SPLIT_ABOVE
        )  # no limit; doubling: exact sizes leave holes where shapes vary
        kind = ort.OrtMemoryInfo("Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT)
        ort.create_and_register_allocator(kind, settings)
        _shared = True


class OnnxRuntime:
    """A network that ONNX Runtime runs on the processor: arrays in, arrays out, from any number of threads at once.

    With `threads=1` the work is done on the caller's own thread, so that as many callers run in parallel as there are
    cores: best for streams and servers. With more, one call is faster and calls share the session's threads.

    Args:
        folder: The model; its graph is verified, checked and then loaded.
        threads: How many threads one call uses; 0 for one on each core that this process may use, or what `OMP_NUM_THREADS` says.
        spin_us: How long idle threads of a call stay awake for more, microseconds: longer makes a call that is alone on the
            machine faster, and everything else slower.
        precision: Which of the model's ONNX graphs, where its card lists several; by default the most exact.

    Raises:
        ModelCorrupt: The file differs from its card.
        ModelFormatRefused: The file is more than a network, or not the network that the card says.
        ModelFailed: ONNX Runtime cannot load it.
        UsageError: `threads` or `spin_us` is negative, or there is no graph of that precision.
    """

    def __init__(
        self, folder: ModelFolder, *, threads: int = 0, spin_us: int = _SPIN_US, precision: Precision | None = None
    ) -> None:
        if threads < 0:
            raise UsageError(f"threads: expected 0 (one for each core) or more, got {threads}")
        if spin_us < 0:
            raise UsageError(f"spin_us: expected 0 or more, got {spin_us}")
        file = _file(folder.card, precision)
        where = str(folder.path / file)
        self._threads = threads or default_threads()
        data = folder.read(file)
        facts = check_onnx(data, where)
        self._ports = agree(facts.inputs, facts.outputs, folder.card, where)
        self._session = _session(data, self._threads, spin_us, where)

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
        return self._ports.inputs

    @property
    def outputs(self) -> Mapping[str, Dims]:
        """What the graph gives, likewise."""
        return self._ports.outputs

    @property
    def input_type(self) -> str:
        """The type of the inputs' elements: `float32` of images, `int64` of tokens; outputs are `float32`."""
        return self._ports.kind

    def __call__(self, inputs: Mapping[str, Array]) -> Tensors:
        """Return the graph's outputs by name, for `images (B,3,H,W)` float32 0..1 RGB.

        Raises:
            ShapeError: An input is missing, unknown, or of another type or shape than the graph takes.
            ModelFailed: ONNX Runtime cannot run the graph on these inputs, or gives other shapes than the contract's.
        """
        letters = self._ports.check_inputs(inputs)
        try:
            values = self._session.run(list(self._ports.outputs), dict(inputs))
        except Exception as error:  # noqa: BLE001 - the engine's exceptions have no other class in common
            raise self._ports.failed(inputs, _plain(error)) from None
        return self._ports.check_outputs(values, letters)

    def __repr__(self) -> str:
        return f"<OnnxRuntime: {self._ports.where}, {self._threads} threads>"


def _file(card: ModelCard, precision: Precision | None) -> str:
    listed = precision is not None or any(form.engine == "onnx" for form in card.forms)
    return form_of(card, "onnx", precision).files[0] if listed else FILE_NAME


def _session(data: bytes, threads: int, spin_us: int, where: str) -> Any:
    ort = import_onnxruntime()
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL  # the blocked layout alone gives 1.5x
    options.enable_mem_pattern = False  # a plan is kept for every input shape: no faster, and images have many shapes
    if _shared:
        options.add_session_config_entry("session.use_env_allocators", "1")
    options.log_severity_level = 4  # errors come as exceptions
    options.add_session_config_entry("session.intra_op.spin_duration_us", str(spin_us))
    for key, value in _SETTINGS.items():
        options.add_session_config_entry(key, value)
    try:
        return ort.InferenceSession(
            data, options, providers=["CPUExecutionProvider"], enable_fallback=0, read_config_from_model=0
        )
    except Exception as error:  # noqa: BLE001 - the engine's exceptions have no other class in common
        raise ModelFailed(f"{where}: ONNX Runtime {ort.__version__} cannot load it: {_plain(error)}") from None


_PREFIX = re.compile(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ")
_SOURCE = re.compile(r"\S+\.(?:h|hpp|cc|cpp):\d+ (?:[^()]*::[^()]*\([^()]*\)(?: const)? |\w+ )?")


def _plain(error: Exception) -> str:
    """Return what ONNX Runtime says in one line, without its error numbers and places in its source."""
    return line(_SOURCE.sub("", _PREFIX.sub("", str(error))))
