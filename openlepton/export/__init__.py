"""A model in the form of any runtime, compared with the original on real images; and what is the fastest on this machine.

Importing this package imports no framework; each form needs the extra of its engine, and most need `train`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from openlepton.export.speed import Timed, bench
    from openlepton.export.write import export

__all__ = ["Timed", "bench", "export"]

_HOMES = {"Timed": "speed", "bench": "speed", "export": "write"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'openlepton.export' has no attribute {name!r}")
    value = getattr(import_module(f"openlepton.export.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
