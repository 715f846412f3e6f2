"""The Open Inference Protocol: tensors through the bare graph, equal to the runtime's own."""

import json

import numpy as np
import pytest

import openlepton
from openlepton.hub.index import find
from openlepton.runtimes.onnx import OnnxRuntime

INFER = "/v2/models/yolov5n-bccd/infer"

FP32 = {"name": "images", "datatype": "FP32"}
ONES = [1] * 3072
GOOD = {**FP32, "shape": [1, 3, 32, 32], "data": ONES}


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).random((2, 3, 64, 96), dtype=np.float32)


@pytest.fixture(scope="module")
def expected(images):
    return OnnxRuntime(find("yolov5n-bccd"), threads=1)({"images": images})


def described(images, **more):
    return {"name": "images", "datatype": "FP32", "shape": list(images.shape), **more}


def close(outputs, expected):
    for name, value in outputs.items():
        np.testing.assert_allclose(value, expected[name], rtol=1e-5, atol=1e-4)


def test_tensors_in_json_give_what_the_graph_gives(server, images, expected):
    for data in (images.tolist(), images.ravel().tolist()):
        answer = server.client.post(INFER, json={"id": "42", "inputs": [described(images, data=data)]})
        assert answer.status_code == 200, answer.text
        told = answer.json()
        assert {key: told[key] for key in ("model_name", "model_version", "id")} == {
            "model_name": "yolov5n-bccd",
            "model_version": "1",
            "id": "42",
        }
        assert [(one["name"], one["datatype"], one["shape"]) for one in told["outputs"]] == [
            ("boxes", "FP32", list(expected["boxes"].shape)),
            ("scores", "FP32", list(expected["scores"].shape)),
        ]
        close({one["name"]: np.array(one["data"]).reshape(one["shape"]) for one in told["outputs"]}, expected)


def test_tensors_as_bytes_give_the_same_bytes(server, images, expected):
    data = images.astype("<f4").tobytes()
    request = {
        "inputs": [described(images, parameters={"binary_data_size": len(data)})],
        "outputs": [{"name": "scores", "parameters": {"binary_data": True}}, {"name": "boxes"}],
    }
    text = json.dumps(request).encode()
    headers = {"Inference-Header-Content-Length": str(len(text)), "Content-Type": "application/octet-stream"}
    answer = server.client.post("/v2/models/yolov5n-bccd/versions/1/infer", content=text + data, headers=headers)
    assert answer.status_code == 200, answer.text
    size = int(answer.headers["inference-header-content-length"])
    scores, boxes = json.loads(answer.content[:size])["outputs"]
    assert scores["parameters"] == {"binary_data_size": len(answer.content) - size}
    found = {
        "scores": np.frombuffer(answer.content[size:], "<f4").reshape(scores["shape"]),
        "boxes": np.array(boxes["data"]).reshape(boxes["shape"]),
    }
    close(found, expected)


def test_server_and_models_are_described_as_the_protocol_says(server):
    assert server.client.get("/v2").json() == {
        "name": "openlepton",
        "version": openlepton.__version__,
        "extensions": ["binary_tensor_data"],
    }
    told = server.client.get("/v2/models/yolov5n-bccd").json()
    assert told == server.client.get("/v2/models/yolov5n-bccd/versions/1").json()
    assert told["inputs"] == [{"name": "images", "datatype": "FP32", "shape": [-1, 3, -1, -1]}]
    assert told["outputs"] == [
        {"name": "boxes", "datatype": "FP32", "shape": [-1, -1, 4]},
        {"name": "scores", "datatype": "FP32", "shape": [-1, -1, 3]},
    ]
    assert server.client.get("/v2/health/live").json() == {"live": True}
    assert server.client.get("/v2/models/yolov5n-bccd/ready").json() == {"name": "yolov5n-bccd", "ready": True}
    for path in ("/v2/models/nothing", "/v2/models/yolov5n-bccd/versions/9", "/v2/models/nothing/ready"):
        answer = server.client.get(path)
        assert answer.status_code == 404
        assert answer.json()["error"] == answer.json()["detail"]


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        ({}, "expected an object with a list of inputs"),
        ({"inputs": [3]}, "inputs: expected objects"),
        ({"inputs": []}, "inputs: expected images, got none"),
        ({"inputs": [{"name": "images", "datatype": "FP16", "shape": [1], "data": [1]}]}, "datatype: expected one of"),
        ({"inputs": [{**FP32, "shape": [0], "data": []}]}, "shape: expected"),
        ({"inputs": [{**FP32, "shape": [True], "data": [1]}]}, "shape: expected"),
        ({"inputs": [{**FP32, "shape": [1] * 9, "data": [1]}]}, "shape: expected"),
        ({"inputs": [{**FP32, "shape": [2**30, 2**30], "data": [1]}]}, "data: expected 1152921504606846976 numbers"),
        ({"inputs": [{**FP32, "shape": [2], "data": ["a", "b"]}]}, "data: expected 2 numbers"),
        ({"inputs": [{**FP32, "shape": [2], "data": [[1], [2, 3]]}]}, "data: expected 2 numbers"),
        ({"inputs": [{**FP32, "shape": [1], "data": None}]}, "data: expected 1 numbers"),
        ({"inputs": [{**FP32, "shape": [1], "data": [1]}] * 2}, "'images' comes twice"),
        (
            {"inputs": [{"name": "other", "datatype": "FP32", "shape": [1], "data": [1]}]},
            "inputs: expected images, got other",
        ),
        (
            {"inputs": [{"name": "images", "datatype": "INT64", "shape": [1, 3, 32, 32], "data": ONES}]},
            "images: expected a float32 array",
        ),
        ({"inputs": [{**FP32, "shape": [1, 1, 32, 32], "data": [1] * 1024}]}, "images: expected (B, 3, H, W)"),
        (
            {"inputs": [{**FP32, "shape": [1], "parameters": {"binary_data_size": 4}}]},
            "binary_data_size: not what the shape says",
        ),
        ({"inputs": [{**FP32, "shape": [1], "parameters": 3}]}, "parameters: expected an object"),
        ({"id": 3, "inputs": []}, "id: expected a string"),
        ({"inputs": [GOOD], "outputs": [{"name": "masks"}]}, "outputs: no output 'masks'"),
        ({"inputs": [GOOD], "outputs": "scores"}, "outputs: expected objects"),
    ],
)
def test_a_request_that_makes_no_sense_is_refused_by_name(server, request_, said):
    answer = server.client.post(INFER, json=request_)
    assert answer.status_code == 422
    assert said in answer.json()["error"]


def test_json_that_would_fill_the_memory_is_refused(server):
    large = server.client.post(INFER, content=b'{"inputs": [' + b"0.1," * 3_000_000 + b"0]}")
    assert (large.status_code, large.json()["code"]) == (413, "request-too-large")
    deep = server.client.post(INFER, content=b'{"inputs": ' + b"[" * 100_000)
    assert deep.status_code == 422
    for said in ("x", "-1", "99999999", "1e3"):
        answer = server.client.post(INFER, content=b"{}", headers={"Inference-Header-Content-Length": said})
        assert answer.status_code == 422
    assert server.client.post(INFER, content=b'{"inputs": [NaN]}').status_code == 422
