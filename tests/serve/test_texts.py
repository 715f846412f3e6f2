"""Topics and sentiment with the models that ship: what the addresses say is what `load` says, in both languages."""

import numpy as np
import pytest
from serve_running import running

import openlepton
from openlepton.hub.index import find
from openlepton.runtimes.onnx import OnnxRuntime

pytest.importorskip("tokenizers")

REVIEWS = [
    "A wonderful film with a brilliant cast.",
    "I want my two hours back.",
    "这部电影非常精彩，值得一看。",
    "服务太差了，再也不会来。",
]
NEWS = [
    "Shares fell on Wall Street after the central bank raised interest rates.",
    "The striker scored twice in the cup final.",
    "股市今日大幅下跌，投资者忧心忡忡。",
]
INFER = "/v2/models/sentiment-en/infer"


@pytest.fixture(scope="module")
def server():
    with running("sentiment", "topics", "sentiment-en", "--workers", "1") as started:
        yield started


def classes(answer):
    return [(one["label"], one["label_id"], one["score"]) for one in answer["classes"]]


def close(answers, expected):
    for answer, result in zip(answers, expected, strict=True):
        wanted = classes(result.to_dict())
        assert [one[:2] for one in classes(answer)] == [one[:2] for one in wanted]
        assert [one[2] for one in classes(answer)] == pytest.approx([one[2] for one in wanted], abs=2e-5)


@pytest.mark.parametrize(
    ("address", "model", "texts"), [("sentiment", "sentiment", REVIEWS), ("classify-text", "topics", NEWS)]
)
def test_texts_get_what_load_says_of_them_alone_and_together(server, address, model, texts):
    expected = openlepton.load(model).batch(texts)
    together = server.client.post(f"/v1/{address}", json={"texts": texts})
    assert together.status_code == 200, together.text
    close(together.json()["results"], expected)
    alone = [server.client.post(f"/v1/{address}", json={"text": text}).json() for text in texts]
    close(alone, expected)
    assert {answer["model"]["name"] for answer in alone} == {model}
    assert {tuple(answer["timing_ms"]) for answer in alone} == {("queue", "run", "total")}


def test_what_is_good_and_bad_and_what_it_is_about_is_told(server):
    best = [
        server.client.post(f"/v1/{address}", json={"text": text}).json()["classes"][0]["label"]
        for address, texts in (("sentiment", REVIEWS), ("classify-text", NEWS[:2]))
        for text in texts
    ]
    assert best == ["positive", "negative", "positive", "negative", "business", "sports"]
    answer = server.client.post("/v1/classify-text?top=1&lang=zh", json={"text": NEWS[1]}).json()
    assert [one["label"] for one in answer["classes"]] == ["体育"]


def test_a_text_that_is_not_taken_spoils_no_other(server):
    texts = [REVIEWS[0], "a\x00b", "x" * 10_001, "", "😀"]
    results = server.client.post("/v1/sentiment", json={"texts": texts}).json()["results"]
    assert [one.get("error", {}).get("code") for one in results] == [
        None,
        "request-invalid",
        "request-too-large",
        None,
        None,
    ]
    close(results[:1] + results[3:], openlepton.load("sentiment").batch([texts[0], *texts[3:]]))
    assert results[3]["classes"][0]["score"] == 0.5  # nothing is known of nothing


def test_an_address_takes_the_models_and_options_that_fit_it(server):
    ask = server.client.post
    assert ask("/v1/sentiment?model=topics", json={"text": "x"}).json()["code"] == "model-not-found"
    refused = ask("/v1/sentiment?max_iou=0.5", json={"text": "x"})
    assert refused.status_code == 422
    assert "max_iou" in refused.json()["detail"]
    assert ask("/v1/sentiment", json={"texts": ["x"] * 65}).status_code == 413
    assert ask("/v1/sentiment", content=b"x", headers={"Content-Type": "text/plain"}).status_code == 415
    assert ask("/v1/sentiment?model=sentiment-en", json={"text": "x"}).json()["model"]["name"] == "sentiment-en"


def test_an_encoder_says_that_it_takes_integers_and_takes_them(server):
    told = server.client.get("/v2/models/sentiment-en").json()
    assert told["inputs"] == [
        {"name": "input_ids", "datatype": "INT64", "shape": [-1, -1]},
        {"name": "attention_mask", "datatype": "INT64", "shape": [-1, -1]},
    ]
    assert told["outputs"] == [{"name": "scores", "datatype": "FP32", "shape": [-1, 2]}]
    ids = np.array([[101, 2307, 3185, 102], [101, 6659, 102, 0]])
    inputs = {"input_ids": ids, "attention_mask": (ids > 0).astype(np.int64)}
    answer = server.client.post(INFER, json={"inputs": [described(name, value) for name, value in inputs.items()]})
    assert answer.status_code == 200, answer.text
    (scores,) = answer.json()["outputs"]
    expected = OnnxRuntime(find("sentiment-en"), threads=1)(inputs)["scores"]
    np.testing.assert_allclose(np.reshape(scores["data"], scores["shape"]), expected, atol=1e-5)
    assert server.client.get("/v2/models/topics").status_code == 404  # of two languages: no single graph


@pytest.mark.parametrize("ids", [[[101, 10**9, 102]], [[101] * 600]], ids=["no such word", "too many"])
def test_ids_that_the_graph_cannot_look_up_are_the_callers_fault(server, ids):
    ids = np.array(ids)
    inputs = [described("input_ids", ids), described("attention_mask", np.ones_like(ids))]
    answer = server.client.post(INFER, json={"inputs": inputs})
    assert (answer.status_code, answer.json()["code"]) == (422, "request-invalid")
    assert str(ids.shape) in answer.json()["error"]
    assert not any("model-failed" in line for line in server.lines)


def described(name, value):
    return {"name": name, "datatype": "INT64", "shape": list(value.shape), "data": value.ravel().tolist()}
