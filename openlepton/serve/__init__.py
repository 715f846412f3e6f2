"""Models as a service: `openlepton serve`, a class of your own as endpoints, and the client that talks to both."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from openlepton.serve.api import Api
    from openlepton.serve.client import Client
    from openlepton.serve.service import Service, endpoint
    from openlepton.serve.settings import Limits, Settings

__all__ = ["Api", "Client", "Limits", "Service", "Settings", "endpoint"]

_HOMES = {
    "Api": "api",
    "Client": "client",
    "Limits": "settings",
    "Service": "service",
    "Settings": "settings",
    "endpoint": "service",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'openlepton.serve' has no attribute {name!r}")
    value = getattr(import_module(f"openlepton.serve.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
