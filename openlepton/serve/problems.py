"""Errors on the wire: each class of `openlepton.errors` has a status, and what a stranger may read of it."""

import json
import logging
import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from openlepton import errors
from openlepton.errors import OpenLeptonError

TYPE = "application/problem+json"

STATUS: Mapping[type[OpenLeptonError], int] = {
    errors.RequestInvalid: 422,
    errors.UsageError: 422,
    errors.ShapeError: 422,
    errors.ImageError: 422,
    errors.VideoError: 422,
    errors.ImageTooLarge: 413,
    errors.RequestTooLarge: 413,
    errors.RequestTooSlow: 408,
    errors.MediaTypeRefused: 415,
    errors.Unauthorized: 401,
    errors.NotAllowed: 403,
    errors.NotFound: 404,
    errors.JobNotFound: 404,
    errors.ModelNotFound: 404,
    errors.DataNotFound: 404,
    errors.JobUnfinished: 409,
    errors.Overloaded: 503,
    errors.Draining: 503,
    errors.DeadlineExceeded: 504,
}
"""The status of an error and of those below it; 500 for all others, of which strangers read no details."""

_TITLES = {
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    408: "Request Timeout",
    409: "Conflict",
    413: "Content Too Large",
    415: "Unsupported Media Type",
    421: "Misdirected Request",
    422: "Unprocessable Content",
    500: "Internal Server Error",
    503: "Service Unavailable",
    504: "Gateway Timeout",
}

log = logging.getLogger("openlepton.serve")


def status_of(error: Exception) -> int:
    """Return the status of the nearest class that has one."""
    return next((STATUS[kind] for kind in type(error).__mro__ if kind in STATUS), 500)


def problem(error: Exception, status: int | None = None) -> dict[str, str | int]:
    """Return the error as RFC 9457 has it; a failure inside is told to the log, and by its number alone to the caller."""
    status = status or status_of(error)
    code = error.code if isinstance(error, OpenLeptonError) else OpenLeptonError.code
    told: dict[str, str | int] = {"type": "about:blank", "title": _TITLES[status], "status": status}
    if status == 500:
        instance = uuid.uuid4().urn
        log.error("%s: %s [%s]", instance, error, code)
        return told | {"detail": "the server could not do this; its log says why", "code": code, "instance": instance}
    return told | {"detail": " ".join(str(error).split()), "code": code}


def body_of(error: Exception, status: int | None = None) -> tuple[int, bytes]:
    """Return the status and the body of an answer."""
    told = problem(error, status)
    return int(told["status"]), json.dumps(told, ensure_ascii=False).encode()


def error_of(code: str, detail: str) -> OpenLeptonError:
    """Return the error that has this code."""
    return BY_CODE.get(code, OpenLeptonError)(detail)


def first_of(errors: Sequence[Any]) -> str:
    """Return the first of pydantic's errors in one line; what the client sent is not repeated."""
    first = errors[0]
    where = ascii(".".join(str(part) for part in first["loc"]))[1:-1]
    return f"{where[:80]}: {first['msg']}" if where else str(first["msg"])


def _all(kind: type[OpenLeptonError]) -> Iterator[type[OpenLeptonError]]:
    yield kind
    for below in kind.__subclasses__():
        yield from _all(below)


BY_CODE: Mapping[str, type[OpenLeptonError]] = {kind.code: kind for kind in _all(OpenLeptonError)}
"""Every error by its code."""
