"""The Open Inference Protocol (KServe v2): tensors in JSON or in bytes behind it, through a bare graph, and back."""

import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from openlepton.arrays import Array, Tensors
from openlepton.errors import ModelFailed, RequestInvalid, RequestTooLarge
from openlepton.predictor import Predictor
from openlepton.serve.child import Outcome
from openlepton.serve.settings import Limits

_TYPES = {
    "BOOL": np.dtype("?"),
    "UINT8": np.dtype("u1"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
}
_NAMES = {dtype: name for name, dtype in _TYPES.items()}
_MAX_AXES = 8


def ports(predictor: Predictor[Any]) -> dict[str, list[dict[str, Any]]] | None:
    """Return the graph's inputs and outputs as the protocol describes tensors; None if the model is no single graph."""
    runtime = getattr(predictor, "runtime", None)
    sides = {side: getattr(runtime, side, None) for side in ("inputs", "outputs")}
    if any(side is None for side in sides.values()):
        return None
    types = {"inputs": np.dtype(getattr(runtime, "input_type", np.float32)), "outputs": np.dtype(np.float32)}
    return {
        side: [
            {"name": name, "datatype": _NAMES[types[side]], "shape": [n if isinstance(n, int) else -1 for n in dims]}
            for name, dims in (found or {}).items()
        ]
        for side, found in sides.items()
    }


def infer(predictor: Predictor[Any], body: bytes, json_size: int | None, limits: Limits) -> Outcome:
    """Return the answer to an inference request: four bytes that say how long its JSON is, the JSON, and tensors as bytes."""
    try:
        request = _parse(body[:json_size], limits)
        inputs = _inputs(request, memoryview(b"" if json_size is None else body[json_size:]))
        wanted = _wanted(request)
    except RequestInvalid as error:
        return error
    except RequestTooLarge as error:
        return error
    try:
        outputs = predictor.runtime(inputs)
    except (
        ModelFailed
    ):  # ids that the vocabulary lacks, more of them than there are places: not what the graph can know before
        shapes = ", ".join(f"{name} {value.shape}" for name, value in inputs.items())
        return RequestInvalid(f"inputs: the graph cannot run on these values or sizes: {shapes}")
    return _answer(predictor, request.get("id"), outputs, wanted)


def _parse(text: bytes, limits: Limits) -> dict[str, Any]:
    if len(text) > limits.tensor_json_bytes:
        raise RequestTooLarge(
            f"{len(text):,} bytes of JSON, the limit is {limits.tensor_json_bytes:,}: send tensors as bytes (binary_data_size)"
        )
    try:
        request = json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        raise RequestInvalid("the body is not JSON") from None
    if not isinstance(request, dict) or not isinstance(request.get("inputs"), list):
        raise RequestInvalid("expected an object with a list of inputs")
    if not isinstance(request.get("id", ""), str):
        raise RequestInvalid("id: expected a string")
    return request


def _refuse(name: str) -> float:
    raise ValueError(name)


def _inputs(request: Mapping[str, Any], rest: memoryview) -> Tensors:
    tensors: Tensors = {}
    for entry in request["inputs"]:
        if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
            raise RequestInvalid("inputs: expected objects with name, datatype, shape and data")
        name = entry["name"][:64]
        if name in tensors:
            raise RequestInvalid(f"inputs: {name!r} comes twice")
        dtype, shape = _TYPES.get(str(entry.get("datatype"))), entry.get("shape")
        if dtype is None:
            raise RequestInvalid(f"{name}: datatype: expected one of {', '.join(_TYPES)}")
        if (
            not isinstance(shape, list)
            or len(shape) > _MAX_AXES
            or not all(type(n) is int and 0 < n < 2**31 for n in shape)
        ):
            raise RequestInvalid(f"{name}: shape: expected up to {_MAX_AXES} numbers, each at least 1")
        size = _parameters(entry).get("binary_data_size")
        if size is None:
            tensors[name] = _from_json(name, entry.get("data"), dtype, shape)
            continue
        if type(size) is not int or not 0 <= size <= len(rest) or size != math.prod(shape) * dtype.itemsize:
            raise RequestInvalid(f"{name}: binary_data_size: not what the shape says, or more than the body has")
        tensors[name] = np.frombuffer(rest[:size], dtype).reshape(shape)
        rest = rest[size:]
    if len(rest):
        raise RequestInvalid(f"{len(rest)} bytes behind the last tensor")
    return tensors


def _from_json(name: str, data: Any, dtype: np.dtype[Any], shape: list[int]) -> Array:
    try:
        found = np.asarray(data)
        if found.dtype.kind not in "biuf" or found.size != math.prod(shape):
            raise ValueError
        return found.astype(dtype).reshape(shape)
    except (ValueError, OverflowError, RecursionError):
        raise RequestInvalid(f"{name}: data: expected {math.prod(shape)} numbers") from None


def _parameters(entry: Mapping[str, Any]) -> Mapping[str, Any]:
    found = entry.get("parameters")
    if found is not None and not isinstance(found, dict):
        raise RequestInvalid("parameters: expected an object")
    return found or {}


def _wanted(request: Mapping[str, Any]) -> dict[str, bool] | bool:
    """Return whether each output that is asked for goes out as bytes; one answer for all if none is named."""
    every = _parameters(request).get("binary_data_output") is True
    outputs = request.get("outputs")
    if outputs is None:
        return every
    if not isinstance(outputs, list) or not all(
        isinstance(one, dict) and isinstance(one.get("name"), str) for one in outputs
    ):
        raise RequestInvalid("outputs: expected objects with a name")
    return {one["name"]: bool(_parameters(one).get("binary_data", every)) for one in outputs}


def _answer(predictor: Predictor[Any], request_id: Any, outputs: Tensors, wanted: dict[str, bool] | bool) -> Outcome:
    choice = dict.fromkeys(outputs, wanted) if isinstance(wanted, bool) else wanted
    if unknown := choice.keys() - outputs.keys():
        return RequestInvalid(f"outputs: no output {min(unknown)[:64]!r}, there are {', '.join(outputs)}")
    rows, tail = [], []
    for name, binary in choice.items():
        value = np.ascontiguousarray(outputs[name])
        value = value.astype(value.dtype.newbyteorder("<"), copy=False)
        entry: dict[str, Any] = {"name": name, "datatype": _NAMES[value.dtype], "shape": list(value.shape)}
        if binary:
            data = value.tobytes()
            tail.append(data)
            entry["parameters"] = {"binary_data_size": len(data)}
        else:
            entry["data"] = value.ravel().tolist()
        rows.append(entry)
    head = {"model_name": predictor.card.name, "model_version": predictor.card.version}
    try:
        text = json.dumps(
            head | ({} if request_id is None else {"id": request_id}) | {"outputs": rows}, allow_nan=False
        ).encode()
    except ValueError:
        return ModelFailed("the graph gave numbers that are not finite, which JSON cannot hold")
    return b"".join((len(text).to_bytes(4, "big"), text, *tail))
