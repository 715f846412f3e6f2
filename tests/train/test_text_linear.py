import json

import numpy as np
import pytest

from openlepton.card import open_folder
from openlepton.errors import DataEmpty, ModelCorrupt, ModelFormatRefused, UsageError
from openlepton.metrics.calibration import expected_calibration_error
from openlepton.predictor import load
from openlepton.text.labelled import Labelled
from openlepton.train.classifying_text import TextRun, train_linear
from openlepton.train.text_linear import LinearConfig, fit_linear

GOOD, BAD = ("lovely", "great", "fine", "superb", "warm"), ("awful", "dull", "poor", "bleak", "cold")
THINGS = ("film", "book", "room", "meal", "song", "play")
SMALL = LinearConfig(words=2, chars=3, buckets=1 << 16, l2=(1e-2, 1e-3), steps=20)


def reviews(count, seed, noise=0.0):
    random = np.random.default_rng(seed)
    rows = []
    for _ in range(count):
        good = bool(random.integers(2))
        words = [str(random.choice(GOOD if good else BAD)), str(random.choice(THINGS)), str(random.choice(THINGS))]
        rows.append(
            {"text": " ".join(words), "label": ("positive" if good != (random.random() < noise) else "negative")}
        )
    return rows


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    data = tmp_path_factory.mktemp("reviews")
    for split, count, seed in (("train", 400, 0), ("dev", 400, 1), ("test", 400, 2)):
        rows = reviews(count, seed, noise=0.2)
        (data / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    out = tmp_path_factory.mktemp("out") / "Reviews"
    return train_linear(TextRun(data=str(data), out=str(out), licence="CC0-1.0"), SMALL)


def test_it_learns_what_there_is_to_learn_and_its_card_says_so(run):
    accuracy = run.card.metrics[0].value
    assert (run.card.name, run.card.task, run.card.labels) == ("reviews", "classify-text", ("negative", "positive"))
    assert accuracy == pytest.approx(run.report.top1, abs=1e-4)
    assert accuracy > 0.74  # a fifth of the labels are wrong
    assert run.card.text.languages == ("en",)


def test_its_probabilities_are_as_right_as_they_say(run):
    error = next(metric.value for metric in run.card.metrics if metric.name == "ECE")
    assert error < 0.08
    model = load(run.folder)
    assert 0.6 < model("a superb song").score < 0.95


def test_rounding_to_int8_changes_little(run):
    folder = open_folder(run.folder)
    splits = {"train": _labelled(400, 0, 0.2), "dev": _labelled(400, 1, 0.2)}
    linear = fit_linear(splits["train"], splits["dev"], SMALL).linear
    exact = linear.table[:-1] / linear.scale
    assert np.abs(exact - np.rint(exact)).max() < 1e-3
    assert np.abs(exact).max() == pytest.approx(127, abs=1e-3)
    assert folder.card.files["model.safetensors"].size < 10 * len(linear.buckets) + 1000


def test_a_batch_gives_what_each_text_gives_alone(run):
    model = load(run.folder)
    texts = ["lovely film", "", "awful", "🙂", "x " * 50_000, "中文", "great \x00 meal", "\ud800 odd"]
    together = model.batch(texts)
    for text, many in zip(texts, together, strict=True):
        np.testing.assert_allclose(many.scores, model(text).scores, atol=1e-6)
    assert together[1].scores.tolist() == [0.5, 0.5]


def test_a_threshold_leaves_the_unsure_without_a_label(run):
    assert load(run.folder, min_score=0.95)("dull book").labels == []
    assert load(run.folder)("dull book").labels == ["negative"]
    with pytest.raises(UsageError, match="min_score: expected 0 to 1, got 1.5"):
        load(run.folder, min_score=1.5)
    with pytest.raises(UsageError, match="size: makes no sense"):
        load(run.folder, size=64)


def test_a_stream_carries_errors_through_and_goes_on(run):
    model, broken = load(run.folder), UsageError("line 2: broken")
    first, second, third, fourth = model.stream(["great film", broken, 7, "awful film"])
    assert (first.label, fourth.label) == ("positive", "negative")
    assert second is broken
    assert "expected a string, got int" in str(third)


def test_a_stream_reads_no_further_ahead_than_a_group(run):
    taken = 0

    def endless():
        nonlocal taken
        while True:
            taken += 1
            yield "fine"

    assert next(load(run.folder).stream(endless())).label == "positive"
    assert taken <= 256


def test_tags_need_not_exclude_each_other(tmp_path):
    random = np.random.default_rng(0)
    rows = []
    for _ in range(300):
        has = [word for word in ("cheap", "clean", "quiet") if random.integers(2)]
        rows.append({"text": " ".join([*has, "hotel"]), "label": has})
    (tmp_path / "tags.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    run = TextRun(data=str(tmp_path / "tags.jsonl"), out=str(tmp_path / "tags"), multi_label=True)
    trained = train_linear(run, SMALL)
    assert trained.report.exact > 0.95
    model = load(trained.folder)
    assert sorted(model("a quiet and clean hotel").labels) == ["clean", "quiet"]
    assert model("hotel").labels == []
    assert model(" ").scores.tolist() == [0, 0, 0]


def test_many_classes_sum_to_one(tmp_path):
    rows = [{"text": f"{thing} {n}", "label": thing} for thing in THINGS for n in range(30)]
    (tmp_path / "things.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    trained = train_linear(TextRun(data=str(tmp_path / "things.jsonl"), out=str(tmp_path / "things")), SMALL)
    found = load(trained.folder)("the meal")
    assert found.label == "meal"
    assert found.scores.sum() == pytest.approx(1, abs=1e-5)


def test_texts_without_a_common_ngram_teach_nothing():
    alone = Labelled(["ab", "cd"], np.array([0, 1]), ("a", "b"))
    with pytest.raises(DataEmpty, match="no n-gram occurs in 2 of the 2 texts"):
        fit_linear(alone, alone, LinearConfig(words=1, chars=0))


def test_a_file_that_is_not_the_cards_is_refused(run, tmp_path):
    from openlepton.text.linear import read_tensors

    good = (run.folder / "model.safetensors").read_bytes()
    for broken in (b"", good[:100], good.replace(b'"I8"', b'"I4"'), b"\x80\x04pickle" * 20):
        with pytest.raises(ModelFormatRefused, match="not the weights of a linear classifier"):
            read_tensors(broken, "model.safetensors")
    for file in run.folder.iterdir():
        if file.is_file():
            (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "model.safetensors").write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    with pytest.raises(ModelCorrupt, match="sha256 differs"):
        load(tmp_path)


def test_calibration_error_is_what_it_is_by_hand():
    scores = np.array([[0.9, 0.1], [0.9, 0.1], [0.4, 0.6], [0.4, 0.6]], np.float32)
    truth = np.array([0, 1, 1, 1])
    assert expected_calibration_error(scores, truth) == pytest.approx(
        (2 * abs(0.5 - 0.9) + 2 * abs(1 - 0.6)) / 4, abs=1e-6
    )


def _labelled(count, seed, noise):
    rows = reviews(count, seed, noise)
    truth = np.array([row["label"] == "positive" for row in rows], np.int64)
    return Labelled([row["text"] for row in rows], truth, ("negative", "positive"))
