"""The address that translates, with the translator of the tests."""

from pathlib import Path

import pytest
from serve_running import running

pytest.importorskip("ctranslate2")
pytest.importorskip("sentencepiece")

TOY = Path(__file__).parents[1] / "fixtures" / "translators" / "toy-en-zh"


@pytest.fixture(scope="module")
def server():
    with running(TOY, "--workers", "1") as started:
        yield started


def test_a_text_is_translated_and_the_model_named(server):
    answer = server.client.post("/v1/translate", json={"text": "I see a cat.", "source": "en", "target": "zh"})
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert (found["text"], found["model"]["name"], found["target"]) == ("我看见一只猫。", "toy-en-zh", "zh")
    assert 0.3 < found["score"] <= 1


def test_texts_keep_their_order(server):
    texts = ["We have a bird.", "😀", "I see a cat."]
    answer = server.client.post("/v1/translate", json={"texts": texts})
    assert [one["text"] for one in answer.json()["results"]] == ["我们有一只鸟。", "😀", "我看见一只猫。"]


def test_a_pair_that_is_not_there_lists_those_that_are(server):
    answer = server.client.post("/v1/translate", json={"text": "x", "source": "zh", "target": "en"})
    assert (answer.status_code, answer.json()["code"]) == (422, "request-invalid")
    assert "en to zh" in answer.json()["detail"]


def test_options_of_other_tasks_and_bare_tensors_are_refused(server):
    answer = server.client.post("/v1/translate?min_score=0.5", json={"text": "x"})
    assert answer.status_code == 422
    assert "min_score" in answer.json()["detail"]
    assert server.client.post("/v2/models/toy-en-zh/infer", json={"inputs": []}).status_code == 404
