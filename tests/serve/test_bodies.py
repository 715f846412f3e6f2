"""Bodies: what they mean, and what is refused before it is believed."""

import asyncio
import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openlepton.errors import (
    MediaTypeRefused,
    OpenLeptonError,
    Overloaded,
    RequestInvalid,
    RequestTooLarge,
    RequestTooSlow,
)
from openlepton.serve.bodies import ClientGone, Held, images_of, read_body, texts_of
from openlepton.serve.settings import Limits

LIMITS = Limits(body_bytes=1000, held_bytes=1500, text_chars=100, texts=4, body_s=0.2)


def text_body(value, **fields) -> bytes:
    return json.dumps({"texts" if isinstance(value, list) else "text": value, **fields}).encode()


def texts(value, **fields):
    return texts_of("application/json", text_body(value, **fields), LIMITS, ("source", "target"))


def test_texts_come_alone_or_in_a_list_with_their_languages():
    one = texts("好", source="zh", target="en")
    assert [item.content.decode() for item in one.items] == ["好"]
    assert not one.batch
    assert one.fields == {"source": "zh", "target": "en"}
    many = texts_of("application/json; charset=utf-8", text_body(["a", "b"]), LIMITS)
    assert many.batch
    assert [item.content for item in many.items] == [b"a", b"b"]


def test_texts_are_normalised():
    decomposed = unicodedata.normalize("NFD", "Ångström é")
    assert texts(decomposed).items[0].content.decode() == "Ångström é"
    assert texts("a\tb\r\nc").items[0].content == b"a\tb\r\nc"


@pytest.mark.parametrize(
    ("value", "kind", "said"),
    [
        ("x" * 101, RequestTooLarge, "a text of 101 characters, the limit is 100"),
        ("x" * 1_000_000, RequestTooLarge, "a text of 1,000,000 characters"),
        ("\n" * 100_000, RequestTooLarge, "a text of 100,000 characters"),
        ("a\0b", RequestInvalid, "control characters"),
        ("a\x1b[31mb", RequestInvalid, "control characters"),
        ("a\x85b", RequestInvalid, "control characters"),
        ("\ud800", RequestInvalid, "not valid Unicode"),
    ],
)
def test_a_text_that_is_not_admitted_fails_alone(value, kind, said):
    first, second = texts([value, "good"]).items
    assert type(first.content) is kind
    assert said in str(first.content)
    assert second.content == b"good"


@pytest.mark.parametrize(
    ("kind", "body", "error"),
    [
        ("application/json", text_body(["a"] * 5), RequestTooLarge),
        ("application/json", text_body(3), RequestInvalid),
        ("application/json", text_body(["a", 3]), RequestInvalid),
        ("application/json", text_body("a", source=3), RequestInvalid),
        ("application/json", text_body("a", source="x" * 1000), RequestInvalid),
        ("application/json", text_body("a", colour="red"), RequestInvalid),
        ("application/json", b'"a"', RequestInvalid),
        ("application/json", "{'text': 'a'}".encode("utf-16"), RequestInvalid),
        ("application/json", b"9" * 5000, RequestInvalid),
        ("text/plain", b"a", MediaTypeRefused),
        ("", b"", MediaTypeRefused),
    ],
)
def test_a_body_that_holds_no_texts_is_refused(kind, body, error):
    with pytest.raises(error):
        texts_of(kind, body, LIMITS, ("source", "target"))


@given(
    kind=st.sampled_from(["application/json", "multipart/form-data; boundary=b", "image/png"]) | st.text(max_size=40),
    body=st.binary(),
)
def test_any_bytes_are_items_or_an_error_of_ours(kind, body):
    for read in (images_of, texts_of):
        try:
            found = read(kind.encode("latin-1", "replace").decode("latin-1"), body, LIMITS)
        except OpenLeptonError:
            continue
        assert all(isinstance(item.content, (bytes, OpenLeptonError)) for item in found.items)


def test_a_form_is_read_as_it_was_written():
    boundary = b"----Boundary"
    parts = [("images", "a.jpg", b"\r\n--\r\n----Boundar"), ("images", "\u00fc\n.png", bytes(range(256)))]
    body = b"".join(
        b'--%s\r\ncontent-disposition: form-data; name=%s; filename="%s"\r\nX: y\r\n\r\n%s\r\n'
        % (boundary, name.encode(), source.replace("\n", " ").encode(), data)
        for name, source, data in parts
    )
    found = images_of("multipart/form-data; boundary=----Boundary", body + b"--%s--\r\n" % boundary, LIMITS)
    assert [item.content for item in found.items] == [data for _, _, data in parts]
    assert [item.source for item in found.items] == ["a.jpg", "\u00fc .png"]
    with pytest.raises(RequestInvalid, match="before its last boundary"):
        images_of("multipart/form-data; boundary=----Boundary", body, LIMITS)


def receiving(*messages, pause_s=0.0):
    left = list(messages)

    async def receive():
        await asyncio.sleep(pause_s)
        return left.pop(0)

    return receive


def part(data: bytes, more: bool = True) -> dict:
    return {"type": "http.request", "body": data, "more_body": more}


def read(receive, headers=None, held=None):
    held = held or Held(LIMITS.held_bytes)

    async def main():
        with held.some() as hold:
            return await read_body(headers or {}, receive, LIMITS, hold)

    return asyncio.run(main())


def test_a_body_is_put_together_and_given_back():
    held = Held(1500)
    assert read(receiving(part(b"a" * 600), part(b"b" * 400, more=False)), held=held) == b"a" * 600 + b"b" * 400
    assert read(receiving(part(b"", more=False)), held=held) == b""
    assert held.now == 0


def test_a_body_is_refused_when_it_is_too_long_too_slow_or_one_too_many():
    held = Held(1500)
    with pytest.raises(RequestTooLarge):
        read(receiving(), {"content-length": "1001"}, held)
    with pytest.raises(RequestTooLarge):
        read(receiving(part(b"a" * 600), part(b"a" * 401)), held=held)
    with pytest.raises(RequestTooSlow):
        read(receiving(*[part(b"a")] * 9, pause_s=0.05), held=held)
    with pytest.raises(ClientGone):
        read(receiving(part(b"a"), {"type": "http.disconnect"}), held=held)
    with held.some() as hold:
        hold(1000)
        with pytest.raises(Overloaded):
            read(receiving(part(b"a" * 501)), held=held)
        assert held.now == 1000
    assert held.now == 0
