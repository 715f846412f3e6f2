"""The client: what it gives is what `load` gives, and a server that is busy, gone or silent is dealt with."""

import email.utils
import json
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from serve_running import HERE, running

import openlepton
from openlepton.card import ModelCard
from openlepton.errors import (
    DeadlineExceeded,
    ImageNotFound,
    ImageUnreadable,
    ModelNotFound,
    Overloaded,
    ServeError,
    Unauthorized,
    Unreachable,
    UsageError,
)
from openlepton.ops.masks import rle_of_mask
from openlepton.results import Segmentation
from openlepton.serve import Api, Client
from openlepton.serve.client import Local, result_of


@pytest.fixture(scope="module")
def client(server):
    with Client(server.url) as made:
        yield made


def as_wired(result):
    """What a result is once its numbers were rounded for JSON."""
    return json.loads(json.dumps(result.to_dict()))


@pytest.mark.parametrize("options", [{}, {"min_score": 0.1, "language": "zh", "classes": ["RBC", 2]}, {"size": 128}])
def test_detections_are_those_of_load_whatever_holds_the_picture(client, photos, options):
    find = openlepton.load("yolov5n-bccd", **options)
    pixels = openlepton.read_image(photos[0])
    for item in (photos[0], str(photos[0]), photos[0].read_bytes(), pixels, PIL.Image.fromarray(pixels)):
        here, there = find(item), client.detect(item, model="yolov5n-bccd", **options)
        assert type(there) is type(here)
        assert len(here) > 0
        assert as_wired(there) == as_wired(here)
        assert there.names == here.names
        np.testing.assert_allclose(there.boxes, here.boxes, atol=0.006)
        np.testing.assert_allclose(there.scores, here.scores, atol=6e-6)
    with photos[0].open("rb") as file:
        assert as_wired(client.load("yolov5n-bccd", **options)(file)) == as_wired(find(photos[0]))


def test_a_classification_has_the_scores_of_all_classes(client, photos):
    here = openlepton.load("efficientnet-lite0", language="zh", top=3)(photos[0])
    for there in (
        client.classify(photos[0], language="zh", top=3),
        client.load("efficientnet-lite0", language="zh", top=3)(photos[0]),
    ):
        np.testing.assert_allclose(there.scores, here.scores, atol=6e-6)
        assert (there.label, there.best(3)[2][0], there.image_hw) == (here.label, here.best(3)[2][0], here.image_hw)
        assert as_wired(there) == as_wired(here)


def test_many_items_come_back_in_order_and_a_bad_one_alone_is_an_error(client, photos):
    find, remote = openlepton.load("yolov5n-bccd"), client.load("yolov5n-bccd")
    items = [photos[0], b"no image", photos[1], "nothing/there.jpg", photos[2]]
    found = list(remote.stream(items))
    assert [as_wired(found[n]) for n in (0, 2, 4)] == [as_wired(find(items[n])) for n in (0, 2, 4)]
    assert [type(found[n]) for n in (1, 3)] == [ImageUnreadable, ImageNotFound]
    assert [len(one) for one in remote.batch([photos[0]] * 3)] == [len(find(photos[0]))] * 3
    with pytest.raises(ImageUnreadable, match="not an image of a known format"):
        remote.batch(items)


def test_cards_and_models_are_those_of_the_server(client):
    card = client.card("yolov5n-bccd")
    assert isinstance(card, ModelCard)
    assert card == openlepton.load("yolov5n-bccd").card
    assert [(one.name, one.task, one.default) for one in client.models()] == [
        ("yolov5n-bccd", "detect", True),
        ("efficientnet-lite0", "classify", True),
    ]


def test_the_server_s_errors_are_the_errors_of_load(client, photo):
    with pytest.raises(ModelNotFound, match="no such model here"):
        client.load("nothing")
    with pytest.raises(ModelNotFound, match="not to detect"):
        client.detect(photo, model="efficientnet-lite0")
    with pytest.raises(UsageError, match="no class 'cat'"):
        client.detect(photo, classes=["cat"])
    with pytest.raises(ImageNotFound, match="nothing.jpg: no such file"):
        client.detect("nothing.jpg")


@pytest.mark.parametrize("background", [None, 1])
def test_a_class_map_survives_the_wire(background):
    rng = np.random.default_rng(3)
    names = ("sky", "road", "tree")
    semantic = None if background is None else {"background": background}
    told = openlepton.load("efficientnet-lite0").card.model_dump() | {"task": "semantic", "labels": names}
    card = ModelCard.model_validate(told | {"labels_zh": None, "semantic": semantic, "classify": None})
    here = Segmentation(rng.integers(0, 3, (17, 23)).astype(np.uint8), names, background)
    there = result_of(json.loads(json.dumps(here.to_dict())), card, Local())
    assert (there.class_map == here.class_map).all()
    assert there.background == background


def test_masks_and_tracks_survive_the_wire(client):
    masks = [rle_of_mask(np.random.default_rng(n).random((9, 7)) > 0.5) for n in range(2)]
    boxes = np.array([[0, 0, 4, 5], [1, 2, 3.25, 4.5]], np.float32)
    here = openlepton.Detections(boxes, np.array([0.5, 0.25]), np.array([2, 0]), ("a", "b", "c"), (9, 7), masks, [4, 9])
    card = client.card("yolov5n-bccd").model_copy(update={"labels": ("a", "b", "c"), "labels_zh": None})
    there = result_of(json.loads(json.dumps(here.to_dict())), card, Local())
    assert as_wired(there) == as_wired(here)
    assert (there.mask(1) == here.mask(1)).all()
    assert there.track_ids.tolist() == [4, 9]


@contextmanager
def scripted(*answers):
    """A server that gives these answers in turn, the last for ever: a status, headers, a body, or what it does."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            answer = answers[min(len(asked), len(answers) - 1)]
            asked.append(
                (
                    time.monotonic(),
                    self.command,
                    self.path,
                    {name.lower(): value for name, value in self.headers.items()},
                    body,
                )
            )
            if callable(answer):
                answer(self)
                return
            status, headers, body = answer
            self.send_response(status)
            for name, value in {"Content-Type": "application/json", "Content-Length": len(body), **headers}.items():
                self.send_header(name, str(value))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_PUT = do_GET  # noqa: N815

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True, kwargs={"poll_interval": 0.01}).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()


NO_MODELS = (200, {}, b'{"models": []}')
BUSY = b'{"type": "about:blank", "title": "x", "status": 503, "code": "overloaded", "detail": "no room"}'


def hang_up(handler):
    handler.close_connection = True
    handler.connection.close()


def test_a_busy_server_is_asked_again_after_as_long_as_it_says():
    for how in ("seconds", "a date"):
        in_two_seconds = email.utils.formatdate(time.time() + 2, usegmt=True)  # whole ones: at least one from now
        said = "1" if how == "seconds" else in_two_seconds
        with scripted((503, {"Retry-After": said}, BUSY), NO_MODELS) as (url, asked):
            assert Client(url).models() == []
            assert asked[1][0] - asked[0][0] > 0.85


def test_a_server_that_says_nothing_is_asked_again_at_growing_intervals():
    with scripted((503, {}, BUSY)) as (url, asked):
        with pytest.raises(Overloaded, match="no room"):
            Client(url, retries=3).models()
        pauses = np.diff([one[0] for one in asked])
        assert len(pauses) == 3
        assert (pauses > [0.049, 0.099, 0.199]).all()


def test_an_idempotent_call_survives_a_connection_that_is_lost():
    with scripted(hang_up, (502, {}, b""), NO_MODELS) as (url, asked):
        assert Client(url).models() == []
        assert len(asked) == 3


def test_what_might_have_been_done_already_is_not_done_twice():
    document = {"paths": {"/v1/pay": {"post": {"operationId": "pay"}}}}
    with scripted((200, {}, json.dumps(document).encode()), hang_up) as (url, asked):
        with pytest.raises(Unreachable):
            Client(url).api.pay()
        assert [one[2] for one in asked] == ["/openapi.json", "/v1/pay"]


def test_no_longer_is_waited_than_the_call_may_take():
    with scripted((503, {"Retry-After": "30"}, BUSY)) as (url, asked):
        started = time.monotonic()
        with pytest.raises(Overloaded):
            Client(url, timeout_s=29).models()
        assert time.monotonic() - started < 25
        assert len(asked) == 1
        assert 0 < int(asked[0][3]["deadline-ms"]) <= 29_000
    with scripted(lambda handler: time.sleep(20)) as (url, asked):
        started = time.monotonic()
        with pytest.raises(Unreachable, match="no answer in time"):
            Client(url, timeout_s=0.3).models()
        assert time.monotonic() - started < 15


@pytest.mark.parametrize(
    ("answer", "error", "said"),
    [
        ((504, {}, BUSY.replace(b"overloaded", b"deadline-exceeded")), DeadlineExceeded, "no room"),
        ((401, {}, BUSY.replace(b"overloaded", b"unauthorized")), Unauthorized, "no room"),
        ((422, {}, b'{"detail": [{"loc": ["body"], "msg": "Field required"}]}'), ServeError, "422: .*Field required"),
        ((307, {"Location": "http://example.org/"}, b""), ServeError, "307: the server sends elsewhere"),
        ((200, {}, b"<html>"), ServeError, "is not JSON"),
        ((500, {"Content-Type": "text/html"}, b"<h1>"), ServeError, "the server answered 500"),
    ],
)
def test_other_failures_are_told_at_once(answer, error, said):
    with scripted(answer) as (url, asked):
        with pytest.raises(error, match=said):
            Client(url).models()
        assert len(asked) == 1


def test_a_server_that_is_not_there_is_told_in_one_line():
    with scripted(NO_MODELS) as (url, _):
        pass
    with pytest.raises(Unreachable, match=r"http://127.0.0.1:\d+: Connection refused"):
        Client(url, retries=1).models()


@pytest.mark.parametrize(
    "url",
    ["localhost:8000", "ftp://x", "http://", "http://me:secret@x", "http://x/?a=b", "http://x:99999", "file:///etc"],
)
def test_what_is_no_address_of_a_server_is_refused(url):
    with pytest.raises(UsageError, match="url: "):
        Client(url)


def test_a_token_goes_to_the_server_and_connections_are_used_again():
    ports = set()

    def models(handler):
        ports.add(handler.client_address[1])
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(NO_MODELS[2])))
        handler.end_headers()
        handler.wfile.write(NO_MODELS[2])

    with scripted(models) as (url, asked):
        with Client(f"{url}/below/", token="0123456789abcdef") as client:
            for _ in range(3):
                client.models()
        assert {(one[2], one[3]["authorization"]) for one in asked} == {("/below/v1/models", "Bearer 0123456789abcdef")}
        assert len(ports) == 1


@pytest.mark.slow
def test_one_client_serves_many_threads(client, photos):
    expected = as_wired(openlepton.load("yolov5n-bccd")(photos[0]))
    found = client.load("yolov5n-bccd").batch([photos[0]] * 24)
    assert [as_wired(one) for one in found] == [expected] * 24


@pytest.mark.slow
def test_a_class_of_one_s_own_is_called_by_the_same_client(photos):
    with running(command=(str(HERE / "serve_cells.py"),)) as cells, Client(cells.url) as client:
        api = client.api
        assert [name for name in api if name in ("count", "find", "sums")] == ["count", "find", "sums"]
        found = openlepton.load("yolov5n-bccd")(photos[0])
        assert api.count(image=photos[0], min_score=0.3)["result"] == int((found.scores > 0.3).sum())
        assert api.find(image=photos[0].read_bytes())["result"] == as_wired(found)
        assert api.sums(rows=[[1, 2], [3]])["result"] == {"sums": [3.0, 3.0], "shape": [2]}
        with pytest.raises(UsageError, match="count: no argument 'imagge'; did you mean image"):
            api.count(imagge=b"")
        with pytest.raises(UsageError, match="count: image is missing"):
            api.count()
        with pytest.raises(AttributeError, match="no operation 'cont'; did you mean count"):
            api.cont  # noqa: B018


def test_the_document_s_names_and_words_are_those_of_python(client):
    detect = client.api.predict_detect
    assert str(detect.__signature__).startswith("(*, min_score: float = None, max_iou: float = None")
    assert "Find objects in an image" in detect.__doc__
    assert {"show_model", "begin_job", "result_of_job", "infer", "readyz"} <= set(dir(client.api))
    assert client.api.show_model(name="yolov5n-bccd")["labels"] == ["Platelets", "RBC", "WBC"]
    assert client.api.metrics().startswith("# HELP")


def test_jobs_are_followed_through_the_live_client(client):
    job = client.api.begin_job(model="yolov5n-bccd", source="pictures")
    while client.api.show_job(job_id=job["id"])["state"] == "running":
        time.sleep(0.02)
    rows = client.api.result_of_job(job_id=job["id"])
    assert sum("detections" in row for row in rows) == 3
    assert [row["error"]["code"] for row in rows if "error" in row] == ["image-unreadable"]


def test_any_server_s_document_makes_a_client(tmp_path):
    """A server of another kind: references, forms, headers, paths, a body that is no object, an operation without a name."""
    document = {
        "openapi": "3.1.0",
        "servers": [{"url": "http://elsewhere.example/api"}],
        "paths": {
            "/items/{item-id}": {
                "parameters": [{"$ref": "#/components/parameters/item"}],
                "put": {
                    "operationId": "class",
                    "summary": "Put",
                    "parameters": [{"name": "X-Trace", "in": "header", "schema": {"type": "string"}}],
                    "requestBody": {
                        "required": True,
                        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Item"}}},
                    },
                },
                "get": {"parameters": [{"name": "tag", "in": "query", "schema": {"type": "array"}}]},
            },
            "/file": {
                "post": {
                    "operationId": "send",
                    "requestBody": {
                        "content": {
                            "multipart/form-data": {
                                "schema": {"properties": {"file": {"format": "binary"}, "note": {"type": "string"}}}
                            }
                        }
                    },
                }
            },
            "/raw": {
                "post": {
                    "operationId": "raw",
                    "requestBody": {"required": True, "content": {"application/octet-stream": {}}},
                }
            },
        },
        "components": {
            "parameters": {"item": {"name": "item-id", "in": "path", "required": True}},
            "schemas": {
                "Item": {
                    "allOf": [{"$ref": "#/components/schemas/Named"}, {"properties": {"tag": {"type": "string"}}}]
                },
                "Named": {"properties": {"name": {"type": "string"}}, "required": ["name"]},
                "Endless": {"$ref": "#/components/schemas/Endless"},
            },
        },
    }

    def echo(handler):
        handler.send_response(200)
        handler.send_header("Content-Type", "text/plain; charset=utf-8")
        handler.send_header("Content-Length", "3")
        handler.end_headers()
        handler.wfile.write("好".encode())

    with scripted((200, {}, json.dumps(document).encode()), echo) as (url, asked):
        api = Api(url)
        assert list(api) == ["get_items_item_id", "class_", "send", "raw"]
        assert api.class_(item_id="a/b c", name="x", x_trace="t") == "好"
        assert (asked[-1][1:3], asked[-1][3]["x-trace"]) == (("PUT", "/api/items/a%2Fb%20c"), "t")
        assert json.loads(asked[-1][4]) == {"name": "x"}
        api.get_items_item_id(item_id=3, tag=["a", True])
        assert asked[-1][2] == "/api/items/3?tag=a&tag=true"
        (tmp_path / "f.bin").write_bytes(b"\x00\xff")
        api.send(file=Path(tmp_path / "f.bin"), note="n")
        assert asked[-1][3]["content-type"].startswith("multipart/form-data; boundary=")
        assert b'name="file"; filename="' in asked[-1][4]
        assert b"\r\n\r\n\x00\xff\r\n" in asked[-1][4]
        assert b'name="note"\r\n\r\nn\r\n' in asked[-1][4]
        api.raw(body=b"bytes")
        assert (asked[-1][3]["content-type"], asked[-1][4]) == ("application/octet-stream", b"bytes")
        with pytest.raises(UsageError, match="class_: name is missing"):
            api.class_(item_id=1)
