"""`classify-text` and `sentiment`, as a person or a pipe uses them, with the models that ship."""

import csv
import io
import json
import sys

import pytest

from openlepton.cli import run
from openlepton.predictor import load

NEWS = ["湖人击败火箭", "央行下调存款准备金率", "新款手机发布", "高考志愿填报开始"]
MEGABYTE = "湖人击败火箭，" * 50_000  # 1.05 MB of UTF-8
ODD = [
    "",
    " \t ",
    "🙂🙂🙂",
    "\x00\x07\x1b[31m",
    "\ufeff\u200b",
    "湖人 beat 火箭 yesterday",
    "a\x00b",
    "x" * 100_000,
    "\ufffd",
]


@pytest.fixture
def command(capsys, monkeypatch):
    pytest.importorskip("tokenizers")

    def call(*arguments, stdin=b""):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin), encoding="utf-8"))
        status = run([*map(str, arguments), "--threads", "1"])
        said = capsys.readouterr()
        return status, said.out, said.err

    return call


@pytest.fixture
def classify(command):
    """What `classify-text` says with the linear model of Chinese topics."""
    return lambda *arguments, **options: command("classify-text", "--model", "topics-zh", *arguments, **options)


@pytest.fixture(scope="module")
def topics():
    return load("topics-zh")


def table(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_texts_of_two_languages_are_judged_in_their_order(command):
    given = [
        "A gripping, beautifully acted film.",
        "房间很脏，再也不会来了。",
        "A dull, lifeless mess.",
        "服务很好，下次还来。",
    ]
    status, out, err = command("sentiment", *given)
    found = [line.split("\t") for line in out.splitlines()]
    assert (status, err) == (0, "")
    assert [one[0] for one in found] == ["positive", "negative", "negative", "positive"]
    assert [one[2] for one in found] == given
    assert all(0.5 <= float(one[1]) <= 1 for one in found)


def test_class_names_come_in_chinese_too_and_an_unsure_answer_is_the_user_s(command, classify):
    assert command("sentiment", "服务很好", "--lang", "zh")[1].startswith("正面\t")
    assert command("sentiment", "不好不坏", "服务很好", "--min-score", "0.995")[1].startswith("neutral\t")
    assert classify("的", "--min-score", "0.9")[1].startswith("unsure\t")
    assert classify("的", "--min-score", "1.5")[0] == 2
    status, _, err = classify("的", "--lang", "de")
    assert (status, "lang: expected en or zh, got de" in err) == (2, True)


def test_standard_input_comes_out_line_by_line_as_json(classify, topics):
    status, out, _ = classify("--json", "--top", "2", stdin="\n".join(NEWS).encode())
    found = [json.loads(line) for line in out.splitlines()]
    wanted = topics.batch(NEWS)
    assert status == 0
    assert [one["label"] for one in found] == [one.label for one in wanted]
    assert [one["score"] for one in found] == pytest.approx([one.score for one in wanted], abs=1e-5)
    assert all(len(one["classes"]) == 2 for one in found)


def test_odd_texts_get_an_answer_each_and_cost_the_others_nothing(classify, topics, tmp_path):
    given = [NEWS[0], *ODD, MEGABYTE, NEWS[1]]
    path, out = tmp_path / "odd.jsonl", tmp_path / "out.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in given), encoding="utf-8")
    assert classify("--file", path, "--out", out) == (0, "", "")
    found = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert [one["text"] for one in found] == given
    for text, one in zip(given, found, strict=True):
        alone = topics(text)
        assert (one["label"], one["score"]) == (alone.label, pytest.approx(alone.score, abs=1e-5))
    assert found[1]["score"] == found[2]["score"] == found[5]["score"] == 0.1  # of ten classes: nothing is known
    assert (found[0]["label"], found[-1]["label"]) == ("sports", "finance")


def test_the_encoder_takes_odd_texts_as_well(command, tmp_path):
    given = ["A gripping film.", *ODD, "awful " * 180_000, "A dull, lifeless mess."]
    path = tmp_path / "odd.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in given), encoding="utf-8")
    status, out, err = command("sentiment", "--model", "sentiment-en", "--file", path)
    found = [json.loads(line) for line in out.splitlines()]
    assert (status, err, len(found)) == (0, "", len(given))
    model = load("sentiment-en", threads=1)
    assert [one["score"] for one in found] == pytest.approx([model(text).score for text in given], abs=2e-5)
    assert (found[0]["label"], found[-2]["label"], found[-1]["label"]) == ("positive", "negative", "negative")
    assert found[1]["score"] == found[2]["score"] == found[5]["score"] == 0.5


@pytest.mark.parametrize("name", ["in.txt", "in.jsonl", "in.csv"])
def test_a_byte_that_is_no_utf8_is_named_and_the_other_rows_are_judged(classify, tmp_path, name):
    rows = {
        "in.txt": [text.encode() for text in NEWS],
        "in.jsonl": [json.dumps({"text": text}, ensure_ascii=False).encode() for text in NEWS],
        "in.csv": [b"text", *(text.encode() for text in NEWS)],
    }[name]
    broken = [*rows[:2], b"bad \xff byte", *rows[2:]]
    path = tmp_path / name
    path.write_bytes(b"\n".join(broken) + b"\n")
    status, out, err = classify("--file", path, "--json")
    at = len(b"\n".join(rows[:2])) + 5
    assert status == 1
    assert f"{path}: line 3: not UTF-8 text: byte {at} of the file is 0xff" in err
    assert len(out.splitlines()) == len(NEWS)
    good = tmp_path / f"good-{name}"
    good.write_bytes(b"\n".join(rows) + b"\n")
    assert classify("--file", good, "--json")[:2] == (0, out)


def test_a_table_keeps_its_columns_and_its_order(classify, topics, tmp_path):
    path, out = tmp_path / "in.csv", tmp_path / "out.csv"
    path.write_text(
        "id,review\n" + "".join(f'{row},"{text}, 报道"\n' for row, text in enumerate(NEWS * 80)), encoding="utf-8"
    )
    assert classify("--file", path, "--column", "review", "--out", out)[0] == 0
    found = table(out)
    assert list(found[0]) == ["id", "review", "label", "score"]
    assert [one["id"] for one in found] == [str(row) for row in range(320)]
    assert [one["label"] for one in found] == [
        one.label for one in topics.batch([f"{text}, 报道" for text in NEWS])
    ] * 80


def test_columns_that_are_there_stay_whatever_they_are_called(classify, tmp_path):
    path, out = tmp_path / "in.csv", tmp_path / "out.csv"
    path.write_text(f"text,label\n{NEWS[0]},mine\n", encoding="utf-8")
    assert classify("--file", path, "--out", out)[0] == 0
    (found,) = table(out)
    assert (found["label"], found["predicted_label"]) == ("mine", "sports")
    assert 0.5 < float(found["score"]) <= 1


def test_every_form_goes_into_every_form(classify, tmp_path):
    lines = tmp_path / "in.jsonl"
    lines.write_text('{"id": 7, "text": "湖人击败火箭"}\n{"id": 8}\n"央行下调利率"\n', encoding="utf-8")
    status, out, err = classify("--file", lines)  # as it came: JSON lines
    first, second = (json.loads(line) for line in out.splitlines())
    assert (status, first["id"], first["label"], second["text"]) == (1, 7, "sports", "央行下调利率")
    assert f"{lines}: line 2: text: expected text, got NoneType" in err
    assert classify("--file", lines, "--out", tmp_path / "out.tsv")[0] == 1
    assert "湖人击败火箭\tsports\t" in (tmp_path / "out.tsv").read_text(encoding="utf-8")
    plain = tmp_path / "in.txt"
    plain.write_text("湖人击败火箭\n央行下调利率\n", encoding="utf-8")
    assert classify("--file", plain, "--out", tmp_path / "out.csv")[0] == 0
    assert [row["label"] for row in table(tmp_path / "out.csv")] == ["sports", "finance"]
    assert classify("--file", plain)[1].splitlines()[0].startswith("sports\t")


def test_what_cannot_be_done_is_said(classify, command, tmp_path):
    path = tmp_path / "in.csv"
    path.write_text("id,review\n1,湖人\n", encoding="utf-8")
    status, _, err = classify("--file", path)
    assert (status, "no column 'text'; columns: id, review" in err) == (1, True)
    status, _, err = classify("湖人", "--file", path)
    assert (status, "texts or --file, not both" in err) == (2, True)
    out = tmp_path / "out.csv"
    out.write_text("before", encoding="utf-8")
    assert classify("--file", path, "--column", "review", "--out", out)[0] == 1
    assert out.read_text(encoding="utf-8") == "before"
    assert classify("--file", path, "--column", "review", "--out", out, "--overwrite")[0] == 0
    assert table(out)[0]["review"] == "湖人"
    status, _, err = classify("--file", path, "--column", "review", "--out", path, "--overwrite")
    assert (status, "is the file that is read" in err) == (2, True)
    status, _, err = command("sentiment", "湖人", "--model", "yolov5n-bccd")
    assert (status, "it does not classify texts" in err) == (2, True)
    status, _, err = classify("--file", tmp_path / "none.txt")
    assert (status, "none.txt: No such file" in err) == (1, True)


class _Endless(io.RawIOBase):
    """Lines without an end, which count how many were taken while how many answers had been written."""

    def __init__(self, written, most):
        self.written, self.most, self.taken, self.ahead = written, most, 0, 0

    def readable(self):
        return True

    def readinto(self, buffer):
        if self.taken >= self.most:
            return 0
        line = f"{NEWS[self.taken % len(NEWS)]}\n".encode()
        buffer[: len(line)] = line
        self.taken += 1
        self.ahead = max(self.ahead, self.taken - self.written())
        return len(line)


@pytest.mark.parametrize("form", ["lines", "json"])
def test_no_more_than_a_few_hundred_rows_are_held_at_a_time(monkeypatch, form):
    answers = io.StringIO()
    source = _Endless(lambda: answers.getvalue().count("\n"), 3000)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(source, 64), encoding="utf-8"))
    monkeypatch.setattr(sys, "stdout", answers)
    assert run(["classify-text", "--model", "topics-zh", *(["--json"] if form == "json" else [])]) == 0
    assert len(answers.getvalue().splitlines()) == 3000
    assert 1 <= source.ahead <= 2 * 256
