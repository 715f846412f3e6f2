"""Runtimes: the files of a model in, one callable out. Importing this package loads no inference engine."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from openlepton.errors import UsageError


@dataclass(frozen=True)
class Engine:
    """Where the runtime of an engine is, and what must be installed for it."""

    module: str
    runtime: str
    """The class: takes a `ModelFolder` and `threads`."""
    package: str
    extra: str
    """What brings the package; empty for what is always there."""
    precisions: bool = False
    """Whether its runtime takes a `precision`."""


ENGINES: Mapping[str, Engine] = {
    "onnx": Engine("openlepton.runtimes.onnx", "OnnxRuntime", "onnxruntime", "", precisions=True),
    "openvino": Engine("openlepton.runtimes.openvino", "OpenVinoRuntime", "openvino", "openvino", precisions=True),
    "litert": Engine("openlepton.runtimes.litert", "LiteRtRuntime", "ai_edge_litert", "litert", precisions=True),
    "savedmodel": Engine("openlepton.tf", "TfRuntime", "tensorflow", "tf"),
    "torchscript": Engine("openlepton.nets.script", "ScriptRuntime", "torch", "train"),
}
"""Every engine, by the name that cards and the command line give it."""


def installed(engine: str) -> bool:
    """Return whether the package of that engine is there; it is not imported."""
    return find_spec(_engine(engine).package) is not None


def runtime_of(engine: str) -> Any:
    """Return the runtime class of that engine.

    Raises:
        MissingExtra: Its package is not installed.
        UsageError: There is no such engine.
    """
    found = _engine(engine)
    return getattr(import_module(found.module), found.runtime)


def _engine(name: str) -> Engine:
    if name not in ENGINES:
        raise UsageError(f"runtime: expected one of {', '.join(ENGINES)}, got {name!r}")
    return ENGINES[name]
