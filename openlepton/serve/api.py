"""A live client made from a server's OpenAPI document: an attribute for each operation, with its parameters and its words.

::

    api = Api("http://127.0.0.1:8000")
    dir(api)                                              # what there is
    help(api.count)                                       # what it takes
    api.count(image=Path("cells.jpg"), min_score=0.4)     # {"result": 7, "timing_ms": {...}}

It works with any server that describes itself in OpenAPI 3. The document is data: names in it become attributes and parameters of
requests to this one server, nothing is run and no other host is asked.
"""

import base64
import difflib
import inspect
import json
import keyword
import os
import re
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urlencode, urlsplit

from openlepton.errors import ServeError, UsageError
from openlepton.serve.connection import JSON, Connection, Reply, segment

_METHODS = ("get", "post", "put", "patch", "delete", "head", "options")
_FORM, _URLENCODED, _BYTES = "multipart/form-data", "application/x-www-form-urlencoded", "application/octet-stream"
_LINES = frozenset(("application/x-ndjson", "application/jsonl", "application/json-lines"))
_DEEPEST = 8  # of references and alternatives inside each other


class Api(Mapping[str, "Operation"]):
    """The operations of a server, by name: as attributes, or as a mapping.

    Args:
        server: Its URL, or a connection to it.
        document: Where its OpenAPI document is.
        token: One that it knows, if it asks for any.

    Raises:
        ServeError: There is no such document.
        Unreachable: There is no such server.
    """

    def __init__(self, server: str | Connection, document: str = "/openapi.json", *, token: str | None = None) -> None:
        self._connection = server if isinstance(server, Connection) else Connection(server, token=token)
        told = self._connection.ask("GET", document).json()
        if not isinstance(told, dict) or not isinstance(told.get("paths"), dict):
            raise ServeError(f"{document}: not an OpenAPI document")
        self._operations = {one.name: one for one in _operations(told, self._connection)}

    def __getitem__(self, name: str) -> "Operation":
        return self._operations[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._operations)

    def __len__(self) -> int:
        return len(self._operations)

    def __getattr__(self, name: str) -> "Operation":
        if name.startswith("_") or name not in self._operations:
            raise AttributeError(f"the server has no operation {name!r}{_close(name, self)}")
        return self._operations[name]

    def __dir__(self) -> list[str]:
        return sorted(self._operations)


@dataclass(frozen=True)
class Parameter:
    """One argument of an operation."""

    name: str
    """In Python."""
    wire: str
    """In the request."""
    place: str
    """`path`, `query`, `header`, or `body`: one field of it, or all of it where `wire` is empty."""
    required: bool
    schema: Mapping[str, Any] = field(default_factory=dict)


class Operation:
    """One thing that a server does; call it with the arguments by name.

    Bytes, paths (`pathlib.Path`) and open files are sent as files, in base64 where JSON wants that; strings as they are.
    """

    def __init__(
        self,
        connection: Connection,
        name: str,
        method: str,
        path: str,
        text: str,
        kind: str | None,
        parameters: Sequence[Parameter],
    ) -> None:
        self.name, self.method, self.path, self.parameters = name, method.upper(), path, tuple(parameters)
        self._connection, self._kind = connection, kind
        self.__name__ = name
        self.__doc__ = f"{text}\n\n{self.method} {path}" if text else f"{self.method} {path}"
        self.__signature__ = inspect.Signature(
            [
                inspect.Parameter(
                    one.name, inspect.Parameter.KEYWORD_ONLY, default=_default(one), annotation=_kind_of(one)
                )
                for one in self.parameters
            ]
        )

    def __call__(self, **arguments: Any) -> Any:
        """Return what the server answers: JSON as plain values (a list of them if it comes in lines), text as a string, else bytes.

        Raises:
            UsageError: An argument is unknown or missing.
            OpenLeptonError: What the server said.
        """
        known = {one.name: one for one in self.parameters}
        for name in arguments:
            if name not in known:
                raise UsageError(f"{self.name}: no argument {name!r}{_close(name, known)}")
        for name, one in known.items():
            if one.required and name not in arguments:
                raise UsageError(f"{self.name}: {name} is missing")
        given = [(known[name], value) for name, value in arguments.items() if value is not None]
        path, query, headers = self.path, list[tuple[str, str]](), dict[str, str]()
        for one, value in given:
            if one.place == "path":
                path = path.replace(f"{{{one.wire}}}", segment(_word(value)))
            elif one.place == "query":
                query += [(one.wire, _word(each)) for each in (value if isinstance(value, (list, tuple)) else [value])]
            elif one.place == "header":
                headers[one.wire] = _word(value)
        body, kind = self._body([(one, value) for one, value in given if one.place == "body"])
        if kind:
            headers["Content-Type"] = kind
        return _answer(self._connection.ask(self.method, path, query=query, body=body, headers=headers))

    def __repr__(self) -> str:
        return f"<{self.name}{self.__signature__}: {self.method} {self.path}>"

    def _body(self, given: list[tuple[Parameter, Any]]) -> tuple[bytes | None, str]:
        if self._kind is None or not given:
            return None, ""
        whole = given[0][1] if not given[0][0].wire else None
        if self._kind == JSON:
            told = whole if whole is not None else {one.wire: value for one, value in given}
            return json.dumps(told, default=_in_base64).encode(), JSON
        if self._kind == _URLENCODED:
            return urlencode([(one.wire, _word(value)) for one, value in given]).encode(), self._kind
        if self._kind == _FORM:
            return _form([(one.wire, value) for one, value in given])
        return _bytes(whole), self._kind if "*" not in self._kind else _BYTES


def _operations(document: Mapping[str, Any], connection: Connection) -> Iterator[Operation]:
    prefix, seen = _prefix(document), set[str]()
    for path, item in document["paths"].items():
        item = _resolved(item, document)
        for method in _METHODS:
            told = item.get(method)
            if not isinstance(told, dict):
                continue
            name = _identifier(str(told.get("operationId") or f"{method} {path}"), seen)
            both = [_resolved(one, document) for one in (*item.get("parameters", ()), *told.get("parameters", ()))]
            kind, fields = _fields(told, document)
            parameters = _parameters(both, fields)
            text = "\n\n".join(str(told[key]) for key in ("summary", "description") if told.get(key))
            yield Operation(connection, name, method, prefix + path, text, kind, parameters)


def _prefix(document: Mapping[str, Any]) -> str:
    """Return the path that the document's first server has; its host is the one that was asked, whatever it says."""
    servers = document.get("servers") or [{}]
    url = str(servers[0].get("url", "")) if isinstance(servers[0], dict) else ""
    return "" if "{" in url else urlsplit(url).path.rstrip("/")


def _parameters(told: Sequence[Mapping[str, Any]], fields: Sequence[Parameter]) -> list[Parameter]:
    unique = {(one.get("name"), one.get("in")): one for one in told if one.get("in") in ("path", "query", "header")}
    fielded = {one.wire for one in fields}
    seen: set[str] = set()
    found = [
        Parameter(
            _identifier(str(wire).lower() if place == "header" else str(wire), seen),
            str(wire),
            str(place),
            bool(one.get("required")) or place == "path",
            one.get("schema") or {},
        )
        for (wire, place), one in unique.items()
        if one.get("required") or wire not in fielded  # what may stand in the query or the body stands in the body
    ]
    found += [replace(one, name=_identifier(one.name, seen)) for one in fields]
    return sorted(found, key=lambda one: not one.required)


def _fields(told: Mapping[str, Any], document: Mapping[str, Any]) -> tuple[str | None, list[Parameter]]:
    """Return the media type of the body and its fields, each an argument; one called `body` if it is no object."""
    request = _resolved(told.get("requestBody") or {}, document)
    content = request.get("content") or {}
    if not content:
        return None, []
    kinds = (JSON, *(kind for kind in content if kind.endswith("+json")), _FORM, _URLENCODED, _BYTES, *content)
    kind = next(kind for kind in kinds if kind in content)
    needed = bool(request.get("required"))
    schema = (content[kind] or {}).get("schema") or {}
    properties, required = _object(schema, document)
    if not properties or kind not in (JSON, _FORM, _URLENCODED):
        return kind, [Parameter("body", "", "body", needed, schema)]
    return kind, [
        Parameter(name, name, "body", needed and name in required, _resolved(one, document))
        for name, one in properties.items()
    ]


def _object(schema: Any, document: Mapping[str, Any], depth: int = 0) -> tuple[dict[str, Any], set[str]]:
    """Return the properties of a schema, alternatives taken together, and those that every one of them needs."""
    schema = _resolved(schema, document)
    if depth > _DEEPEST:
        return {}, set()
    properties = dict(schema.get("properties") or {})
    required = set(schema.get("required") or ())
    for part in schema.get("allOf") or ():
        more, needed = _object(part, document, depth + 1)
        properties, required = {**properties, **more}, required | needed
    for key in ("anyOf", "oneOf"):
        parts = [_object(part, document, depth + 1) for part in schema.get(key) or ()]
        for more, _ in parts:
            properties |= more
        required |= set.intersection(*(needed for _, needed in parts)) if parts else set()
    return properties, required


def _resolved(told: Any, document: Mapping[str, Any]) -> dict[str, Any]:
    """Return an object of the document, references inside the document followed."""
    for _ in range(_DEEPEST):
        if not isinstance(told, dict):
            return {}
        reference = told.get("$ref")
        if not isinstance(reference, str):
            return told
        if not reference.startswith("#/"):
            return {}  # another document: nothing else is fetched
        told = document
        for step in reference[2:].split("/"):
            told = told.get(step.replace("~1", "/").replace("~0", "~"), {}) if isinstance(told, dict) else {}
    return {}


def _identifier(text: str, seen: set[str]) -> str:
    name = re.sub(r"\W+", "_", text).strip("_") or "unnamed"
    name = f"_{name}" if name[0].isdigit() else name
    while keyword.iskeyword(name) or name in seen:
        name += "_"
    seen.add(name)
    return name


def _default(one: Parameter) -> Any:
    return inspect.Parameter.empty if one.required else one.schema.get("default")


def _kind_of(one: Parameter) -> Any:
    if _is_file(one.schema):
        return bytes
    kinds = {"string": str, "integer": int, "number": float, "boolean": bool, "array": list, "object": dict}
    said = one.schema.get("type")
    return kinds.get(said, Any) if isinstance(said, str) else Any


def _is_file(schema: Mapping[str, Any]) -> bool:
    return schema.get("format") in ("binary", "byte") or "contentEncoding" in schema or "contentMediaType" in schema


def _word(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return str(value)


def _bytes(value: Any) -> bytes:
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value)
    if isinstance(value, os.PathLike):
        with open(value, "rb") as file:  # noqa: PTH123 - any path-like
            return file.read()
    if hasattr(value, "read"):
        return bytes(value.read())
    raise UsageError(f"expected bytes, a path or an open file, got {type(value).__name__}")


def _in_base64(value: Any) -> str:
    return base64.b64encode(_bytes(value)).decode()


def _form(fields: Sequence[tuple[str, Any]]) -> tuple[bytes, str]:
    boundary = uuid.uuid4().hex
    body = bytearray()
    for name, value in fields:
        for each in value if isinstance(value, (list, tuple)) else [value]:
            plain = isinstance(each, (str, int, float))
            data = _word(each).encode() if plain else _bytes(each)
            label = f'form-data; name="{_quoted(name)}"'
            if not plain:
                source = os.path.basename(getattr(each, "name", "") or "file")  # noqa: PTH119 - of anything that has a name
                label += f'; filename="{_quoted(source)}"\r\nContent-Type: {_BYTES}'
            body += f"--{boundary}\r\nContent-Disposition: {label}\r\n\r\n".encode() + data + b"\r\n"
    return bytes(body) + f"--{boundary}--\r\n".encode(), f"{_FORM}; boundary={boundary}"


def _quoted(text: str) -> str:
    return text.replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A")


def _answer(reply: Reply) -> Any:
    if reply.kind == JSON or reply.kind.endswith("+json"):
        return reply.json()
    if reply.kind in _LINES:
        return [json.loads(line) for line in reply.body.splitlines() if line.strip()]
    if reply.kind.startswith("text/"):
        return reply.body.decode(reply.headers.get_content_charset() or "utf-8", "replace")
    return reply.body or None


def _close(name: str, names: Iterator[str] | Mapping[str, Any]) -> str:
    close = difflib.get_close_matches(name, list(names), 3)
    return f"; did you mean {', '.join(close)}?" if close else ""
