"""From what a client sent to the items it means: size and time are bounded while it arrives, form before it is believed."""

import asyncio
import base64
import binascii
import json
import unicodedata
from collections.abc import Awaitable, Callable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from openlepton.errors import (
    MediaTypeRefused,
    OpenLeptonError,
    Overloaded,
    RequestInvalid,
    RequestTooLarge,
    RequestTooSlow,
)
from openlepton.serve.settings import Limits
from openlepton.serve.tasks import IMAGE_TYPES

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]

_MAX_JSON_MARKS = 200_000  # brackets and commas; what is meant here has a handful
_MAX_NAME = 255
_ALLOWED_CONTROLS = "\t\n\r"


class ClientGone(Exception):
    """Whoever asked has hung up; there is nobody to answer."""


@dataclass(frozen=True)
class Item:
    """One thing to work on, or why it cannot be worked on."""

    content: bytes | OpenLeptonError
    source: str | None = None
    """The file name that the client gave it."""


@dataclass(frozen=True)
class Items:
    """What a request asks about."""

    items: tuple[Item, ...]
    batch: bool
    """Whether the client wants a list, even of one."""
    fields: Mapping[str, str]
    """What else the body said, such as languages."""


class Held:
    """How many bytes of bodies are in memory, of all requests together."""

    def __init__(self, most: int) -> None:
        self.now = 0
        self._most = most

    @contextmanager
    def some(self) -> Iterator[Callable[[int], None]]:
        """Give a function that adds to the bytes held; what it added is given back in the end.

        The function raises `Overloaded` when there would be too many.
        """
        mine = 0

        def add(count: int) -> None:
            nonlocal mine
            if self.now + count > self._most:
                raise Overloaded("requests of too many bytes are under way")
            mine += count
            self.now += count

        try:
            yield add
        finally:
            self.now -= mine


async def read_body(headers: Mapping[str, str], receive: Receive, limits: Limits, hold: Callable[[int], None]) -> bytes:
    """Return the whole body.

    Raises:
        RequestTooLarge: It is longer than the limit, as declared or as it comes.
        RequestTooSlow: It did not arrive in time.
        Overloaded: Too many bytes of other requests are in memory.
        ClientGone: The client hung up.
    """
    if int(headers.get("content-length", 0)) > limits.body_bytes:
        raise _too_large(limits)
    data = bytearray()
    try:
        async with asyncio.timeout(limits.body_s):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ClientGone
                part = message.get("body", b"")
                hold(len(part))
                if len(data) + len(part) > limits.body_bytes:
                    raise _too_large(limits)
                if not message.get("more_body", False):
                    return bytes(data + part) if data else part
                data += part
    except TimeoutError:
        raise RequestTooSlow(f"the body did not arrive within {limits.body_s:g} s") from None


def images_of(content_type: str, body: bytes, limits: Limits) -> Items:
    """Return the images of a body: the file itself, a form with files, or JSON with base64.

    Raises:
        MediaTypeRefused: It is of another kind.
        RequestInvalid: It is not of the form that its kind has.
        RequestTooLarge: There are more than a batch may have.
    """
    kind, options = parse_options_header(content_type)
    match kind.decode("latin-1").lower():
        case "application/json":
            return _json_items(body, ("image", "images"), (), lambda text: _from_base64(text, limits), limits.batch)
        case "multipart/form-data":
            return _form_items(body, options.get(b"boundary", b""), limits)
        case kind_name if kind_name in IMAGE_TYPES:
            return Items((Item(_checked_image(body, limits)),), False, {})
    expected = ", ".join((*IMAGE_TYPES, "multipart/form-data", "application/json"))
    raise MediaTypeRefused(f"Content-Type: expected one of {expected}")


def texts_of(content_type: str, body: bytes, limits: Limits, fields: tuple[str, ...] = ()) -> Items:
    """Return the texts of a body, which is JSON: `text` or `texts`, and those of `fields` that it has.

    Raises:
        MediaTypeRefused: It is of another kind.
        RequestInvalid: It is not of that form.
        RequestTooLarge: There are more than a batch may have.
    """
    if parse_options_header(content_type)[0].lower() != b"application/json":
        raise MediaTypeRefused("Content-Type: expected application/json")
    return _json_items(body, ("text", "texts"), fields, lambda text: _checked_text(text, limits), limits.texts)


def parse_json(body: bytes) -> Any:
    """Return what the JSON says; text that would become many small objects is refused first.

    Raises:
        RequestInvalid: It is no JSON, or of absurd structure.
    """
    check_json(body)
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        raise RequestInvalid("the body is not JSON") from None


def check_json(body: bytes) -> None:
    """Raise if the JSON has so many parts that they would fill the memory."""
    if sum(body.count(mark) for mark in (b",", b"[", b"{")) > _MAX_JSON_MARKS:
        raise RequestInvalid("the body is JSON of too many parts")


def _too_large(limits: Limits) -> RequestTooLarge:
    return RequestTooLarge(f"the body has more bytes than the limit of {limits.body_bytes:,}")


def _json_items(
    body: bytes, keys: tuple[str, str], fields: tuple[str, ...], convert: Callable[[str], bytes], most: int
) -> Items:
    found = parse_json(body)
    one, many = keys
    if not isinstance(found, dict) or (one in found) == (many in found):
        raise RequestInvalid(f"expected an object with {one} or {many}")
    if unknown := found.keys() - {one, many, *fields}:
        raise RequestInvalid(f"{_brief(min(unknown))}: unknown field")
    extra = {name: found[name] for name in fields if found.get(name) is not None}
    if not all(isinstance(value, str) and len(value) <= _MAX_NAME for value in extra.values()):
        raise RequestInvalid(f"{', '.join(extra)}: expected short strings")
    values = found[many] if many in found else [found[one]]
    if not isinstance(values, list) or not values:
        raise RequestInvalid(f"{many}: expected a list with at least one entry")
    if many not in found and not isinstance(values[0], str):
        raise RequestInvalid(f"{one}: expected a string")
    if not all(isinstance(value, str) for value in values):
        raise RequestInvalid(f"{many}: expected strings")
    _check_count(len(values), most)
    return Items(tuple(Item(_tried(convert, value)) for value in values), many in found, extra)


def _tried(convert: Callable[[str], bytes], value: str) -> bytes | OpenLeptonError:
    try:
        return convert(value)
    except OpenLeptonError as error:
        return error


def _check_count(count: int, most: int) -> None:
    if count > most:
        raise RequestTooLarge(f"a batch of more than {most}; send several")


def _from_base64(text: str, limits: Limits) -> bytes:
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        hint = ": a URL is not fetched, send the image itself" if "://" in text[:12] else ""
        raise RequestInvalid(f"image: not base64{hint}") from None
    return _checked_image(data, limits)


def _checked_image(data: bytes, limits: Limits) -> bytes:
    if len(data) > limits.image_bytes:
        raise RequestTooLarge(f"an image of more bytes than the limit of {limits.image_bytes:,}")
    return data


def _checked_text(text: str, limits: Limits) -> bytes:
    if len(text) > limits.text_chars:
        raise RequestTooLarge(f"a text of {len(text):,} characters, the limit is {limits.text_chars:,}")
    if any(unicodedata.category(char) == "Cc" and char not in _ALLOWED_CONTROLS for char in text):
        raise RequestInvalid("text: has control characters")
    try:
        return unicodedata.normalize("NFC", text).encode()
    except UnicodeEncodeError:
        raise RequestInvalid("text: not valid Unicode") from None


def _form_items(body: bytes, boundary: bytes, limits: Limits) -> Items:
    parts = _Form(boundary, limits.batch).parse(body)
    names = {name for name, _, _ in parts}
    if names not in ({"image"}, {"images"}) or (names == {"image"} and len(parts) > 1):
        raise RequestInvalid("expected one file called image, or files called images, and nothing else")
    return Items(tuple(Item(_tried_image(data, limits), source) for _, source, data in parts), names == {"images"}, {})


def _tried_image(data: bytes, limits: Limits) -> bytes | OpenLeptonError:
    try:
        return _checked_image(data, limits)
    except OpenLeptonError as error:
        return error


class _Form:
    """Collects the parts of a form: the name, the file name and the bytes of each."""

    def __init__(self, boundary: bytes, most: int) -> None:
        if not 0 < len(boundary) <= 70:  # RFC 2046
            raise RequestInvalid("Content-Type: a form needs a boundary of 1 to 70 characters")
        self._boundary, self._most = boundary, most
        self._parts: list[tuple[str, str | None, bytes]] = []
        self._field, self._value, self._pieces = bytearray(), bytearray(), list[memoryview]()
        self._disposition = b""
        self._ended = False

    def parse(self, body: bytes) -> list[tuple[str, str | None, bytes]]:
        """Return the parts.

        Raises:
            RequestInvalid: It is no form, or not a whole one.
            RequestTooLarge: There are too many parts.
        """
        parser = MultipartParser(
            self._boundary,
            {
                "on_part_begin": self._begin,
                "on_header_field": lambda data, start, end: self._field.extend(data[start:end]),
                "on_header_value": lambda data, start, end: self._value.extend(data[start:end]),
                "on_header_end": self._header,
                "on_part_data": lambda data, start, end: self._pieces.append(memoryview(data)[start:end]),
                "on_part_end": self._end,
                "on_end": self._whole,
            },
        )
        try:
            parser.write(body)
        except FormParserError:
            raise RequestInvalid("the body is not a form with that boundary") from None
        if not self._ended:
            raise RequestInvalid("the form ends before its last boundary")
        return self._parts

    def _begin(self) -> None:
        _check_count(len(self._parts) + 1, self._most)
        self._pieces, self._disposition = [], b""

    def _header(self) -> None:
        if self._field.lower() == b"content-disposition":
            self._disposition = bytes(self._value)
        self._field, self._value = bytearray(), bytearray()

    def _end(self) -> None:
        _, options = parse_options_header(self._disposition)
        name = options.get(b"name", b"").decode("utf-8", "replace")
        source = options.get(b"filename")
        self._parts.append((name, None if source is None else _printable(source), b"".join(self._pieces)))

    def _whole(self) -> None:
        self._ended = True


def _printable(name: bytes) -> str:
    return "".join(char if char.isprintable() else "?" for char in name.decode("utf-8", "replace"))[:_MAX_NAME]


def _brief(text: str) -> str:
    return ascii(text)[1:-1][:40]
