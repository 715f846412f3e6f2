"""What a server answers: the same as the command line, in every form in which an image can be sent."""

import base64
import json
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from serve_running import JPEG, running

ADDRESSES = [
    ("detect", "yolov5n-bccd", ["--min-score", "0.1"], {"min_score": 0.1}),
    ("classify", "efficientnet-lite0", [], {}),
]

PART = b'--b\r\nContent-Disposition: form-data; name="%s"\r\n\r\nx\r\n'


def as_printed(task, model, arguments, data):
    command = [sys.executable, "-m", "openlepton", task, "-", "--model", model, "--json", *arguments]
    done = subprocess.run(command, input=data, capture_output=True, check=True)
    row = json.loads(done.stdout)
    assert row.pop("source") == "-"
    return row


def as_answered(answer):
    assert answer.status_code == 200, answer.text
    row = answer.json()
    timing = row.pop("timing_ms")
    assert set(timing) == {"queue", "run", "total"}
    assert 0 <= timing["queue"] + timing["run"] <= timing["total"]
    return row


@pytest.mark.parametrize(("task", "model", "arguments", "options"), ADDRESSES)
def test_an_answer_is_what_the_command_line_prints_and_the_time_it_took(server, photo, task, model, arguments, options):
    printed = as_printed(task, model, arguments, photo)
    answers = [
        server.client.post(f"/v1/{task}", content=photo, headers=JPEG, params=options),
        server.client.post(f"/v1/models/{model}/predict", content=photo, headers=JPEG, params=options),
        server.client.post(f"/v1/{task}", json={"image": base64.b64encode(photo).decode()}, params=options),
        server.client.post(
            f"/v1/{task}", content=photo, headers={"Content-Type": "application/octet-stream"}, params=options
        ),
    ]
    assert [as_answered(answer) for answer in answers] == [printed] * 4
    assert list(answers[0].json())[:-1] == list(printed)  # in the same order, too
    form = as_answered(
        server.client.post(f"/v1/{task}", files={"image": ("写真.jpg", photo, "image/jpeg")}, params=options)
    )
    assert form.pop("source") == "写真.jpg"
    assert form == printed


def test_a_batch_has_a_result_or_an_error_for_each_image_in_order(server, photos):
    good = [photo.read_bytes() for photo in photos[:3]]
    alone = [as_answered(server.client.post("/v1/detect", content=data, headers=JPEG)) for data in good]
    mixed = [good[0], b"no image", good[1], good[2][:500], good[2]]
    forms = [
        server.client.post("/v1/detect", json={"images": [base64.b64encode(data).decode() for data in mixed]}),
        server.client.post("/v1/detect", files=[("images", (f"{n}.jpg", data)) for n, data in enumerate(mixed)]),
    ]
    for answer in forms:
        rows = answer.json()["results"]
        assert answer.status_code == 200
        for row in rows:
            row.pop("timing_ms", None)
        sources = [row.pop("source", None) for row in rows]
        assert [rows[0], rows[2], rows[4]] == alone
        assert [rows[n]["error"]["code"] for n in (1, 3)] == ["image-unreadable"] * 2
        assert [rows[n]["error"]["status"] for n in (1, 3)] == [422] * 2
    assert sources == [f"{n}.jpg" for n in range(5)]
    one = server.client.post("/v1/detect", json={"images": [base64.b64encode(good[0]).decode()]})
    assert len(one.json()["results"]) == 1


def test_base64_that_is_none_fails_alone_in_a_batch(server, photo):
    answer = server.client.post("/v1/detect", json={"images": ["%%%", base64.b64encode(photo).decode()]})
    first, second = answer.json()["results"]
    assert first["error"]["code"] == "request-invalid"
    assert second["image"] == {"width": 512, "height": 512}


def test_options_are_those_of_the_command_line(server, photo):
    answer = server.client.post(
        "/v1/detect", content=photo, headers=JPEG, params={"min_score": 0.1, "classes": "RBC", "lang": "zh"}
    )
    labels = {found["label"] for found in answer.json()["detections"]}
    assert labels == {"红细胞"}
    few = server.client.post("/v1/detect", content=photo, headers=JPEG, params={"min_score": 0.1, "max_detections": 2})
    assert len(few.json()["detections"]) == 2
    top = server.client.post("/v1/classify", content=photo, headers=JPEG, params={"top": 3})
    assert len(top.json()["classes"]) == 3


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("min_score=2", "min_score: expected number from 0 to 1"),
        ("min_score=nan", "min_score: expected number"),
        ("min_score=x", "min_score: expected number"),
        ("max_detections=0", "max_detections: expected integer from 1 to 1000"),
        ("size=100000", "size: expected integer from 32 to 1280"),
        ("size=100", "multiple of 32"),
        ("lang=fr", "lang: expected en or zh"),
        ("classes=unicorn", "no class 'unicorn'"),
        ("classes=", "classes: expected"),
        ("colour=red", "colour: no such option"),
        ("min_score=0.1&min_score=0.2", "min_score: given twice"),
        ("top=3", "top: makes no sense"),
        ("agnostic=perhaps", "agnostic: expected boolean"),
    ],
)
def test_an_option_that_makes_no_sense_is_refused_by_name(server, photo, query, said):
    answer = server.client.post(f"/v1/detect?{query}", content=photo, headers=JPEG)
    assert answer.status_code == 422
    assert answer.json()["code"] in ("request-invalid", "usage")
    assert said in answer.json()["detail"]


@pytest.mark.parametrize(
    ("content", "kind", "status", "code"),
    [
        (b"", "image/jpeg", 422, "image-unreadable"),
        (b"x", "text/plain", 415, "media-type-refused"),
        (b"x", "", 415, "media-type-refused"),
        (b"\x80\x04\x95\x0f\x00\x00\x00.", "application/vnd.python.pickle", 415, "media-type-refused"),
        (b"{", "application/json", 422, "request-invalid"),
        (b"[]", "application/json", 422, "request-invalid"),
        (b"{}", "application/json", 422, "request-invalid"),
        (b'{"image": 3}', "application/json", 422, "request-invalid"),
        (b'{"image": "", "images": []}', "application/json", 422, "request-invalid"),
        (b'{"images": []}', "application/json", 422, "request-invalid"),
        (b'{"images": ["a", null]}', "application/json", 422, "request-invalid"),
        (b'{"image": "/9j/", "colour": 1}', "application/json", 422, "request-invalid"),
        (b'{"image": "/9j/\xff"}', "application/json", 422, "request-invalid"),
        (b"[" * 100_000, "application/json", 422, "request-invalid"),
        (b"[" + b"0," * 300_000 + b"0]", "application/json", 422, "request-invalid"),
        (b"x", "multipart/form-data", 422, "request-invalid"),
        (b"x", "multipart/form-data; boundary=b", 422, "request-invalid"),
        (b"--b\r\n\r\nx", "multipart/form-data; boundary=b", 422, "request-invalid"),
        (PART % b"other" + b"--b--\r\n", "multipart/form-data; boundary=b", 422, "request-invalid"),
        (PART % b"image" * 2 + b"--b--\r\n", "multipart/form-data; boundary=b", 422, "request-invalid"),
        (b"x", "multipart/form-data; boundary=" + "b" * 71, 422, "request-invalid"),
    ],
)  # fmt: skip
def test_a_body_that_is_no_image_is_refused_in_one_form(server, content, kind, status, code):
    answer = server.client.post("/v1/detect", content=content, headers={"Content-Type": kind} if kind else {})
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.headers["content-type"] == "application/problem+json"
    assert set(answer.json()) == {"type", "title", "status", "detail", "code"}
    assert answer.json()["status"] == status


def test_errors_of_the_addresses_themselves_have_that_form_too(server):
    for method, path, status, code in (
        ("GET", "/nothing", 404, "not-found"),
        ("GET", "/v1/detect", 405, "not-allowed"),
        ("DELETE", "/v1/models", 405, "not-allowed"),
        ("POST", "/v1/segment", 404, "model-not-found"),
        ("POST", "/v1/models/nothing/predict", 404, "model-not-found"),
        ("GET", "/v1/models/..%2f..%2fetc", 404, "not-found"),
        ("GET", "/v1/models/%00", 404, "model-not-found"),
        ("GET", "/v1/models/" + "a" * 10_000, 404, "model-not-found"),
        ("POST", "/v1/detect?model=efficientnet-lite0", 404, "model-not-found"),
        ("POST", "/v1/translate", 404, "model-not-found"),
    ):
        answer = server.client.request(method, path)
        assert (answer.status_code, answer.json()["code"]) == (status, code), path
        assert answer.headers["content-type"] == "application/problem+json"
    assert server.client.get("/v1/detect").headers["allow"] == "POST"


def test_the_models_are_listed_with_their_cards(server):
    listed = server.client.get("/v1/models").json()["models"]
    assert [(model["name"], model["task"], model["default"]) for model in listed] == [
        ("yolov5n-bccd", "detect", True),
        ("efficientnet-lite0", "classify", True),
    ]
    card = server.client.get(listed[0]["href"]).json()
    assert card["labels"] == ["Platelets", "RBC", "WBC"]
    assert card["licence"] == "Apache-2.0"
    assert set(card["files"]) == {"model.onnx"}


def test_a_deadline_is_a_number_of_milliseconds_and_is_kept(server, photo):
    for said in ("0", "-5", "soon", "1e3", "9" * 12):
        answer = server.client.post("/v1/detect", content=photo, headers={**JPEG, "Deadline-Ms": said})
        assert (answer.status_code, answer.json()["code"]) == (422, "request-invalid")
    late = server.client.post("/v1/detect", content=photo, headers={**JPEG, "Deadline-Ms": "1"})
    assert (late.status_code, late.json()["code"]) == (504, "deadline-exceeded")
    assert server.client.post("/v1/detect", content=photo, headers={**JPEG, "Deadline-Ms": "60000"}).status_code == 200


def test_the_document_describes_the_server_and_needs_nothing_from_elsewhere(server):
    document = server.client.get("/openapi.json").json()
    assert {
        "/v1/detect",
        "/v1/models/{name}/predict",
        "/v1/jobs/{job_id}/result",
        "/v2/models/{name}/infer",
        "/readyz",
    } <= set(document["paths"])
    operations = [operation["operationId"] for path in document["paths"].values() for operation in path.values()]
    assert len(set(operations)) == len(operations)
    detect = document["paths"]["/v1/detect"]["post"]
    assert set(detect["requestBody"]["content"]) >= {"image/jpeg", "multipart/form-data", "application/json"}
    assert {"min_score", "max_iou", "model", "Deadline-Ms"} <= {parameter["name"] for parameter in detect["parameters"]}
    assert "application/problem+json" in detect["responses"]["422"]["content"]
    assert "http" not in json.dumps(document).replace("https://json-schema.org", "")
    assert server.client.get("/docs").status_code == 404


def test_the_probes_tell_that_it_lives_and_is_ready(server):
    assert server.client.get("/livez").json() == {"status": "alive"}
    assert server.client.get("/readyz").json() == {"status": "ready"}
    assert server.client.get("/v2/health/ready").json() == {"ready": True}


def test_a_connection_is_used_for_many_requests_refused_ones_included(server, photo):
    with httpx.Client(base_url=server.url, trust_env=False, limits=httpx.Limits(max_connections=1)) as client:
        first = client.post("/v1/detect", content=photo, headers=JPEG).extensions["network_stream"]
        assert client.post("/v1/nothing", content=photo).status_code == 404
        assert client.post("/v1/detect", content=b"x" * 500_000, headers=JPEG).status_code == 422
        last = client.post("/v1/detect", content=photo, headers=JPEG).extensions["network_stream"]
        assert first.get_extra_info("client_addr") == last.get_extra_info("client_addr")


@pytest.mark.slow
def test_a_segmenter_answers_with_masks_as_the_command_line_prints_them(tmp_path, photo):
    pytest.importorskip("torch")
    from openlepton.hub.convert import convert

    checkpoint = Path(__file__).parents[1] / "fixtures" / "yolov5" / "yolov5n-seg-nc5.pt"
    convert(checkpoint, tmp_path / "seg", licence="Apache-2.0", name="seg")
    with running(tmp_path / "seg", "--workers", "1") as server:
        answer = as_answered(
            server.client.post("/v1/segment?min_score=0.3&max_detections=3", content=photo, headers=JPEG)
        )
        arguments = ["--min-score", "0.3", "--max-detections", "3"]
        assert answer == as_printed("segment", str(tmp_path / "seg"), arguments, photo)
        assert answer["detections"][0]["mask"]["size"] == [512, 512]
        outputs = {one["name"] for one in server.client.get("/v2/models/seg").json()["outputs"]}
        assert outputs == {"boxes", "scores", "coeffs", "protos"}
