"""The networks of `openlepton.nets` in TensorFlow: the same names, weights, outputs and losses, as native Keras models.

Importing this package imports neither TensorFlow nor torch; `TfRuntime` needs the extra `tf`, all else `train` as well.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from openlepton.tf.networks import Network, build, network
    from openlepton.tf.runtime import TfRuntime
    from openlepton.tf.savedmodel import save_savedmodel
    from openlepton.tf.weights import get_weights, read_weights, set_weights

__all__ = [
    "Network",
    "TfRuntime",
    "build",
    "get_weights",
    "network",
    "read_weights",
    "save_savedmodel",
    "set_weights",
]

_HOMES = {
    "Network": "networks",
    "TfRuntime": "runtime",
    "build": "networks",
    "get_weights": "weights",
    "network": "networks",
    "read_weights": "weights",
    "save_savedmodel": "savedmodel",
    "set_weights": "weights",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'openlepton.tf' has no attribute {name!r}")
    value = getattr(import_module(f"openlepton.tf.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
