"""Imports TensorFlow and Keras: quietly, and Keras on TensorFlow."""

import os

from openlepton.errors import UsageError, missing_extra

__all__ = ["keras", "tf"]

_QUIET = {"TF_CPP_MIN_LOG_LEVEL": "2"}
"""Errors alone: at import TensorFlow otherwise tells about processors."""

_added = {name: value for name, value in _QUIET.items() if name not in os.environ}
os.environ.update(_added)  # read once, while the module is imported
try:
    import keras
    import tensorflow as tf
except ModuleNotFoundError as error:
    raise missing_extra(error.name, "tf") from None
finally:
    for _name in _added:
        os.environ.pop(_name, None)

if keras.backend.backend() != "tensorflow":
    raise UsageError(
        f"Keras computes with {keras.backend.backend()} here: set KERAS_BACKEND=tensorflow, or remove `backend` from keras.json"
    )
