"""The command, as a person or a pipe uses it."""

import csv
import io
import json
import sys

import pytest

from openlepton.cli import run


@pytest.fixture
def command(toy, capsys, monkeypatch):
    def call(*arguments, stdin=b""):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin), encoding="utf-8"))
        status = run(["translate", *map(str, arguments), "--model", str(toy), "--threads", "1"])
        said = capsys.readouterr()
        return status, said.out, said.err

    return call


def test_texts_and_standard_input_come_out_line_by_line(command):
    assert command("I see a cat.", "We have a bird.") == (0, "我看见一只猫。\n我们有一只鸟。\n", "")
    status, out, _ = command("--from", "en", "--to", "zh", stdin=b"I see a cat.\n\nI see a dog.\n")
    assert (status, out) == (0, "我看见一只猫。\n\n我看见一只狗。\n")


def test_json_says_how_sure_it_is(command):
    _, out, _ = command("--json", "I see a cat.")
    found = json.loads(out)
    assert (found["text"], found["source"], found["target"], found["complete"]) == ("我看见一只猫。", "en", "zh", True)
    assert 0.3 < found["score"] <= 1


def test_a_bad_byte_is_named_and_the_other_lines_are_translated(command, tmp_path):
    path = tmp_path / "in.txt"
    path.write_bytes(b"I see a cat.\nbad \xff\nI see a dog.\n")
    status, out, err = command("--file", path)
    assert (status, out) == (1, "我看见一只猫。\n\n我看见一只狗。\n")
    assert f"{path}: line 2: not UTF-8 text: byte 17 of the file is 0xff" in err


def test_tables_and_json_lines_keep_their_columns(command, tmp_path):
    table = tmp_path / "in.csv"
    table.write_text("id,review\n1,I see a cat.\n2,I see a dog.\n", encoding="utf-8")
    assert command("--file", table, "--column", "review", "--out", tmp_path / "out.csv")[0] == 0
    rows = list(csv.DictReader((tmp_path / "out.csv").read_text(encoding="utf-8").splitlines()))
    assert [(row["id"], row["review"], row["translation"]) for row in rows] == [
        ("1", "I see a cat.", "我看见一只猫。"),
        ("2", "I see a dog.", "我看见一只狗。"),
    ]
    lines = tmp_path / "in.jsonl"
    lines.write_text('{"text": "I see a cat.", "id": 7}\n{"text": 3}\n', encoding="utf-8")
    status, _, err = command("--file", lines, "--out", tmp_path / "out.jsonl")
    found = json.loads((tmp_path / "out.jsonl").read_text(encoding="utf-8"))
    assert (status, found["id"], found["translation"]) == (1, 7, "我看见一只猫。")
    assert "line 2: text: expected text, got int" in err


def test_subtitles_and_catalogues_keep_what_surrounds_the_words(command, tmp_path):
    film = tmp_path / "film.srt"
    film.write_bytes(b"1\r\n00:00:01,000 --> 00:00:02,000\r\n<i>I see a cat.</i>\r\n")
    assert command("--file", film, "--out", tmp_path / "zh.srt")[0] == 0
    wanted = "1\r\n00:00:01,000 --> 00:00:02,000\r\n<i>我看见一只猫。</i>\r\n"
    assert (tmp_path / "zh.srt").read_bytes().decode() == wanted
    messages = tmp_path / "zh.po"
    messages.write_text('msgid "I see a cat."\nmsgstr ""\n', encoding="utf-8")
    assert command("--file", messages)[1] == '#, fuzzy\nmsgid "I see a cat."\nmsgstr "我看见一只猫。"\n'
    film.write_bytes(b"1\n00:00:01,000 --> 00:00:02,000\n\xff\n")
    status, _, err = command("--file", film)
    assert status == 1
    assert f"{film}: line 3: not UTF-8 text: byte 32 of the file is 0xff" in err


def test_nothing_that_exists_is_replaced_unasked_and_never_the_input(command, tmp_path):
    path, out = tmp_path / "in.txt", tmp_path / "out.txt"
    path.write_text("I see a cat.\n", encoding="utf-8")
    out.write_text("before", encoding="utf-8")
    assert command("--file", path, "--out", out)[0] == 1
    assert out.read_text(encoding="utf-8") == "before"
    assert command("--file", path, "--out", out, "--overwrite")[0] == 0
    assert out.read_text(encoding="utf-8") == "我看见一只猫。\n"
    status, _, err = command("--file", path, "--out", path, "--overwrite")
    assert (status, "is the file that is read" in err) == (2, True)


def test_the_pair_must_be_the_model_s(command, capsys):
    status, _, err = command("--from", "zh", "--to", "en", "x")
    assert (status, "toy-en-zh: translates en to zh, not zh to en" in err) == (2, True)
    assert run(["translate", "--from", "en", "--to", "tlh", "x"]) == 1
    assert "no model ships that translates 'en' to 'tlh'; pairs:" in capsys.readouterr().err
    assert run(["translate", "x"]) == 2
    assert "say from which language to which" in capsys.readouterr().err
