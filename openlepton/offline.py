"""Imports what would otherwise reach for the network."""

import os
from typing import Any


def import_onnxruntime() -> Any:
    """Return the module `onnxruntime`, imported so that it neither sends nor stores telemetry.

    Official builds from 1.29 on otherwise report to their maker over the network, and keep an identifier of the device
    in the user's cache folder, from the moment of import. Whoever wants that sets `ORT_DISABLE_TELEMETRY=0` themselves.
    The environment is left as it was.
    """
    switch = "ORT_DISABLE_TELEMETRY"
    ours = switch not in os.environ
    if ours:
        os.environ[switch] = "1"  # read once, while the module is imported
    try:
        import onnxruntime
    finally:
        if ours:
            os.environ.pop(switch, None)
    if ours:
        onnxruntime.disable_telemetry_events()  # where another package imported it first, and on Windows before 1.29
    return onnxruntime
