"""Your own class as a service: its typed methods become addresses, with the queue, the guards and the documents of the models'.

::

    class Cells(Service):
        def __init__(self) -> None:
            self.find = openlepton.load("yolov5n-bccd")

        @endpoint
        def count(self, image: Image, min_score: float = 0.25) -> int:
            return int((self.find(image).scores > min_score).sum())

    if __name__ == "__main__":
        Cells.run()

`POST /v1/count` then takes `{"image": "<base64>", "min_score": 0.4}`, or the file itself with `?min_score=0.4`, and gives
`{"result": 7, "timing_ms": {...}}`. An instance lives in each worker process; it is made there once and called by one request
at a time.
"""

import base64
import binascii
import inspect
import logging
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, TypeAdapter, ValidationError, WithJsonSchema, create_model
from pydantic.errors import PydanticSchemaGenerationError
from pydantic_core import PydanticSerializationError, to_json

from openlepton.arrays import Image
from openlepton.errors import OpenLeptonError, RequestInvalid, UsageError
from openlepton.images import Limits as ImageLimits
from openlepton.images import read_image
from openlepton.serve.child import Outcome, Share
from openlepton.serve.problems import first_of
from openlepton.serve.settings import Limits, Settings

Method = TypeVar("Method", bound=Callable[..., Any])

_MARK = "_openlepton_endpoint"
_ANY_OBJECT = {"description": "plain values, as the result's `to_dict` gives them"}


def endpoint(method: Method) -> Method:
    """Return the method, marked: `POST /v1/NAME` calls it. Its parameters and its result must say their types.

    Raises:
        UsageError: A parameter has no type, or the method is asynchronous.
    """
    name, parameters = method.__name__, list(inspect.signature(method).parameters.values())[1:]
    for parameter in parameters:
        if parameter.annotation is inspect.Parameter.empty or parameter.kind in (
            inspect.Parameter.VAR_POSITIONAL,
            inspect.Parameter.VAR_KEYWORD,
        ):
            raise UsageError(f"{name}: {parameter.name}: an endpoint's parameters are named one by one and have types")
    if inspect.iscoroutinefunction(method):
        raise UsageError(f"{name}: an endpoint is an ordinary method: its worker has nothing else to do meanwhile")
    setattr(method, _MARK, True)
    return method


class Service:
    """What your class is derived from; `__init__` takes nothing and loads what is needed."""

    @classmethod
    def run(cls, settings: Settings | None = None) -> int:
        """Serve until a signal comes; return 0 if everything that was accepted was finished.

        Call it below `if __name__ == "__main__":`, as the workers import the same file.

        Raises:
            UsageError: The class has no endpoint, or the address cannot be had.
        """
        from openlepton.serve.service_addresses import serve_service

        logging.basicConfig(format="%(message)s", level=logging.INFO)
        log = logging.getLogger("openlepton.serve")
        return serve_service(cls, settings or Settings(), partial(log.info, "openlepton serve: %s"))


@dataclass(frozen=True)
class Endpoint:
    """One method as the wire sees it."""

    name: str
    summary: str
    body: type[BaseModel]
    """What the JSON of a request is validated with."""
    result: Mapping[str, Any]
    """The JSON schema of what comes back as `result`."""
    image: str | None
    """The parameter that the body may be instead of JSON."""


def endpoints(service: type[Service], limits: Limits) -> dict[str, Endpoint]:
    """Return the endpoints of a class by name, in the order of their definition.

    Raises:
        UsageError: There is none.
    """
    methods = [method for kind in reversed(service.__mro__) for method in vars(kind).values() if hasattr(method, _MARK)]
    found = {method.__name__: _described(method, limits) for method in methods}
    if not found:
        raise UsageError(f"{service.__name__}: has no method marked with @endpoint")
    return found


@dataclass(frozen=True)
class ServiceSetup:
    """Makes the instance in a worker."""

    service: type[Service]
    limits: Limits = field(default_factory=Limits)

    def __call__(self, share: Share) -> "Calls":
        """Return what calls the instance's methods."""
        return Calls(self.service(), endpoints(self.service, self.limits))


class Calls:
    """An instance in its worker, and how its methods are called from outside."""

    def __init__(self, instance: Service, known: Mapping[str, Endpoint]) -> None:
        self._instance, self._known = instance, known

    def facts(self) -> dict[str, Any]:
        """Return the names of the endpoints."""
        return {name: {} for name in self._known}

    def __call__(self, head: Mapping[str, Any], parts: Sequence[bytes]) -> list[Outcome]:
        """Call the method `model` with what each of `parts` holds."""
        known = self._known[head["model"]]
        return [self._call(known, part, head["raw"], dict(head["options"])) for part in parts]

    def _call(self, known: Endpoint, body: bytes, raw: bool, query: dict[str, str]) -> Outcome:
        try:
            if raw and known.image is not None:
                given = known.body.model_validate({**query, known.image: body})
            else:
                given = known.body.model_validate_json(body)
        except ValidationError as error:
            return RequestInvalid(first_of(error.errors()))
        except OpenLeptonError as error:
            return error
        arguments = {name: getattr(given, name) for name in type(given).model_fields}
        try:
            result = getattr(self._instance, known.name)(**arguments)
        except OpenLeptonError as error:
            return error
        return _result(result)


def _described(method: Callable[..., Any], limits: Limits) -> Endpoint:
    hints = typing.get_type_hints(method, include_extras=True)
    picture = Annotated[
        Any,
        BeforeValidator(partial(_picture, limits=limits)),
        WithJsonSchema({"type": "string", "contentEncoding": "base64", "description": "an image file in base64"}),
    ]
    fields: dict[str, Any] = {}
    images = []
    for parameter in list(inspect.signature(method).parameters.values())[1:]:
        hint = hints[parameter.name]
        if hint == Image:
            images.append(parameter.name)
            hint = picture
        fields[parameter.name] = (hint, ... if parameter.default is inspect.Parameter.empty else parameter.default)
    try:
        body = create_model(method.__name__, __config__=ConfigDict(extra="forbid"), **fields)
    except PydanticSchemaGenerationError:
        raise UsageError(f"{method.__name__}: a parameter has a type that no JSON can be") from None
    summary = (inspect.getdoc(method) or method.__name__).splitlines()[0].rstrip(".")
    return Endpoint(
        method.__name__, summary, body, _schema(hints.get("return", Any)), images[0] if len(images) == 1 else None
    )


def _schema(hint: Any) -> Mapping[str, Any]:
    try:
        return TypeAdapter(hint).json_schema()
    except (PydanticSchemaGenerationError, TypeError, ValueError):
        return _ANY_OBJECT


def _picture(value: Any, *, limits: Limits) -> Any:
    if isinstance(value, str):
        try:
            value = base64.b64decode(value, validate=True)
        except (binascii.Error, ValueError):
            raise ValueError("not base64") from None
    if not isinstance(value, bytes):
        raise ValueError("expected an image file in base64")
    formats = frozenset(limits.image_formats)
    return read_image(value, limits=ImageLimits(limits.image_bytes, limits.image_pixels, formats))


def _result(value: Any) -> bytes:
    try:
        return b'{"result":' + to_json(_plain(value), inf_nan_mode="null") + b"}"
    except PydanticSerializationError as error:
        raise TypeError(f"the result cannot be JSON: {error}") from None


def _plain(value: Any) -> Any:
    """Return what pydantic can write, with results and arrays as plain numbers and strings."""
    if hasattr(value, "to_dict"):
        return value.to_dict()
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, (list, tuple)) else value
