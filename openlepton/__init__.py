"""OpenLepton: open models that stay open. Importing it is cheap: what a name needs is loaded when the name is first used."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from openlepton import errors
    from openlepton.drawing import draw
    from openlepton.images import read_image, write_image
    from openlepton.predictor import Predictor, load
    from openlepton.results import Classification, Detection, Detections, Segmentation, Translation

__version__ = "0.1.0"

__all__ = [
    "Classification",
    "Detection",
    "Detections",
    "Predictor",
    "Segmentation",
    "Translation",
    "__version__",
    "draw",
    "errors",
    "load",
    "read_image",
    "write_image",
]

_HOMES = {
    "Classification": "results",
    "Detection": "results",
    "Detections": "results",
    "Predictor": "predictor",
    "Segmentation": "results",
    "Translation": "results",
    "draw": "drawing",
    "load": "predictor",
    "read_image": "images",
    "write_image": "images",
}


def __getattr__(name: str) -> Any:
    if name == "errors":
        return import_module("openlepton.errors")
    if name not in _HOMES:
        raise AttributeError(f"module 'openlepton' has no attribute {name!r}")
    value = getattr(import_module(f"openlepton.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
