"""A class of one's own as a service."""

import base64
from pathlib import Path

import pytest
from serve_running import HERE, JPEG, running

import openlepton
from openlepton.errors import UsageError
from openlepton.serve import Limits, Service, endpoint
from openlepton.serve.service import endpoints


@pytest.fixture(scope="module")
def cells():
    with running(command=(str(HERE / "serve_cells.py"),)) as started:
        yield started


def test_a_method_answers_with_its_result_and_the_time_it_took(cells, photos):
    data = photos[0].read_bytes()
    find = openlepton.load("yolov5n-bccd")
    count = int((find(data).scores > 0.3).sum())
    assert count > 0
    encoded = base64.b64encode(data).decode()
    for answer in (
        cells.client.post("/v1/count", json={"image": encoded, "min_score": 0.3}),
        cells.client.post("/v1/count?min_score=0.3", content=data, headers=JPEG),
    ):
        assert answer.status_code == 200, answer.text
        assert answer.json()["result"] == count
        assert set(answer.json()["timing_ms"]) == {"queue", "run", "total"}
    found = cells.client.post("/v1/find", content=data, headers=JPEG).json()["result"]
    assert found == find(data).to_dict()
    assert cells.client.post("/v1/sums", json={"rows": [[1, 2], [3]]}).json()["result"] == {
        "sums": [3.0, 3.0],
        "shape": [2],
    }


@pytest.mark.parametrize(
    ("path", "body", "status", "said"),
    [
        ("/v1/count", {}, 422, "image: Field required"),
        ("/v1/count", {"image": "%%%"}, 422, "image: Value error, not base64"),
        ("/v1/count", {"image": "AAAA"}, 422, "image data: not an image"),
        ("/v1/count", {"image": 3}, 422, "image: Value error, expected an image file in base64"),
        ("/v1/sums", {"rows": "x"}, 422, "rows: Input should be a valid"),
        ("/v1/sums", {"rows": [], "colour": "red"}, 422, "colour: Extra inputs are not permitted"),
        ("/v1/sums", [], 422, "Input should be an object"),
        ("/v1/hidden", {}, 404, "no such address"),
    ],
)
def test_what_does_not_fit_the_types_is_refused(cells, path, body, status, said):
    answer = cells.client.post(path, json=body)
    assert answer.status_code == status
    assert said in answer.json()["detail"]


def test_other_content_is_refused(cells, photo):
    assert cells.client.post("/v1/sums", content=photo, headers=JPEG).json()["code"] == "media-type-refused"
    assert cells.client.post("/v1/sums?rows=1", json={"rows": []}).json()["code"] == "request-invalid"
    assert cells.client.post("/v1/count?min_score=x", content=photo, headers=JPEG).json()["code"] == "request-invalid"
    assert cells.client.post("/v1/count?image=x", content=photo, headers=JPEG).status_code in (200, 422)


def test_the_document_has_the_types(cells):
    paths = cells.client.get("/openapi.json").json()["paths"]
    assert {path for path in paths if path.startswith("/v1/")} == {"/v1/count", "/v1/find", "/v1/sums"}
    count = paths["/v1/count"]["post"]
    assert count["summary"] == "Return how many cells an image shows"
    assert count["requestBody"]["content"]["application/json"]["schema"]["required"] == ["image"]
    assert count["responses"]["200"]["content"]["application/json"]["schema"]["properties"]["result"] == {
        "type": "integer"
    }
    assert "image/jpeg" in count["requestBody"]["content"]
    assert "image/jpeg" not in paths["/v1/sums"]["post"]["requestBody"]["content"]


def test_a_class_that_cannot_be_served_is_refused_when_it_is_written():
    with pytest.raises(UsageError, match="thing: x: an endpoint's parameters"):

        class Untyped(Service):
            @endpoint
            def thing(self, x):
                return x

    with pytest.raises(UsageError, match="an ordinary method"):

        class Awaited(Service):
            @endpoint
            async def thing(self) -> int:
                return 1

    class Empty(Service):
        def thing(self) -> int:
            return 1

    class Odd(Service):
        @endpoint
        def thing(self, x: type(print)) -> int:
            return 1

    with pytest.raises(UsageError, match="Empty: has no method marked with @endpoint"):
        endpoints(Empty, Limits())
    with pytest.raises(UsageError, match="thing: a parameter has a type that no JSON can be"):
        endpoints(Odd, Limits())


@pytest.mark.slow
def test_the_guide_s_example_runs(tmp_path, photo):
    example = (Path(__file__).parents[2] / "examples" / "service.py").read_text(encoding="utf-8")
    port = "from openlepton.serve.settings import Settings\n" + example.replace(
        ".run()", ".run(Settings(port=0, workers=1))"
    )
    assert port.count("Settings(") == 1
    (tmp_path / "service.py").write_text(port, encoding="utf-8")
    with running(command=(str(tmp_path / "service.py"),)) as server:
        answer = server.client.post("/v1/count?min_score=0.3", content=photo, headers=JPEG).json()
        found = openlepton.load("yolov5n-bccd", min_score=0.3)(photo)
        assert answer["result"] == {label: found.labels.count(label) for label in found.labels} != {}
