import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openlepton.card import CARD_NAME, ModelCard, file_facts, format_card, format_toml, open_folder, parse_card
from openlepton.errors import CardInvalid, ModelCorrupt, ModelFormatRefused, ModelNotFound, UsageError

WEIGHTS = b"not really a graph"
EN_ZH = {"source": "en", "target": "zh"}


def fields(**changes):
    made = {
        "contract": 1,
        "name": "yolov5n-demo",
        "version": "1",
        "task": "detect",
        "architecture": "yolov5n",
        "description": 'A "quoted" line\nand a second with \\ and 汉字.',
        "licence": "Apache-2.0",
        "source": "trained here",
        "labels": ["person", "traffic light"],
        "labels_zh": ["人", "红绿灯"],
        "input": {"size": 640, "resize": "letterbox"},
        "detect": {"strides": [8, 16], "anchors": [[[10, 13], [16.5, 30]], [[30, 61], [62, 45]]]},
        "files": {"model.onnx": file_facts(WEIGHTS).model_dump()},
        "metrics": [{"name": "mAP50", "value": 0.61, "data": "voc20 val", "command": "openlepton evaluate"}],
    }
    return {key: value for key, value in (made | changes).items() if value is not None}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / CARD_NAME).write_text(format_card(ModelCard.model_validate(fields())), encoding="utf-8")
    (tmp_path / "model.onnx").write_bytes(WEIGHTS)
    return tmp_path


def test_a_card_reads_back_as_it_was_written():
    card = ModelCard.model_validate(fields())
    assert parse_card(format_card(card)) == card


@given(st.text(min_size=1).filter(lambda text: text.strip() == text), st.lists(st.text(), min_size=1, max_size=5))
def test_any_text_survives_the_card(description, labels):
    card = ModelCard.model_validate(fields(description=description, labels=labels, labels_zh=None))
    assert parse_card(format_card(card)) == card


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"contract": 2}, "contract 2 is not known"),
        ({"name": "../etc"}, "name: String should match pattern"),
        ({"licence": None}, "licence: Field required"),
        ({"surprise": 1}, "surprise: Extra inputs"),
        ({"labels": []}, "labels: a model whose task is detect names at least 1 class"),
        ({"labels_zh": ["人"]}, "labels_zh has 1 names, labels has 2"),
        ({"detect": None}, r"\[detect\] table exactly when"),
        ({"task": "dance"}, "task: Input should be"),
        ({"files": {"../model.onnx": {"size": 1, "sha256": "0" * 64}}}, "not a plain file name"),
        ({"files": {"model.onnx": {"size": 1, "sha256": "xyz"}}}, "sha256: String should match"),
        ({"input": {"size": 640, "resize": "magic"}}, "input.resize: Input should be"),
    ],
)
def test_a_card_with_a_fault_is_refused_by_name(change, message):
    with pytest.raises(CardInvalid, match=message):
        parse_card(format_toml(fields(**change)))


def test_what_is_not_toml_is_refused():
    with pytest.raises(CardInvalid, match=r"my card: not TOML"):
        parse_card("= nonsense", "my card")


def test_a_file_that_is_as_the_card_says_is_read(folder):
    opened = open_folder(folder)
    assert opened.read("model.onnx") == WEIGHTS
    opened.copy("model.onnx", folder / "copy")
    assert (folder / "copy").read_bytes() == WEIGHTS
    assert opened.card.files["model.onnx"].sha256 == hashlib.sha256(WEIGHTS).hexdigest()
    with pytest.raises(CardInvalid, match="other.onnx is not named"):
        opened.read("other.onnx")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "found 0"),
        (WEIGHTS[:-1], "says 18 bytes, found 17"),
        (WEIGHTS + b"!", "found more"),
        (WEIGHTS.replace(b"r", b"R"), "sha256 differs"),
    ],
)
def test_a_file_that_was_changed_is_refused(folder, data, message):
    (folder / "model.onnx").write_bytes(data)
    with pytest.raises(ModelCorrupt, match=message):
        open_folder(folder).read("model.onnx")
    with pytest.raises(ModelCorrupt, match=message):
        open_folder(folder).copy("model.onnx", folder / "copy")


def test_missing_folders_cards_and_files_are_named(folder, tmp_path):
    with pytest.raises(ModelNotFound, match="nowhere: no such model folder"):
        open_folder(tmp_path / "nowhere")
    (folder / "model.onnx").unlink()
    with pytest.raises(ModelCorrupt, match="model.onnx"):
        open_folder(folder).read("model.onnx")
    (folder / CARD_NAME).write_bytes(b"\xff\xfe\x00")
    with pytest.raises(CardInvalid, match="not UTF-8"):
        open_folder(folder)
    (folder / CARD_NAME).write_bytes(b"#" * (4 * 1024 * 1024 + 1))
    with pytest.raises(ModelFormatRefused, match="at most"):
        open_folder(folder)
    (folder / CARD_NAME).unlink()
    with pytest.raises(CardInvalid, match="needs a card"):
        open_folder(folder)


def text_fields(**changes):
    card = fields() | {"task": "classify-text", "labels_zh": None, "text": {"languages": ["en"]}} | changes
    return {key: value for key, value in card.items() if key not in ("input", "detect") or key in changes}


def test_a_text_card_survives_toml_and_has_no_image_input():
    card = ModelCard.model_validate(text_fields(ngrams={"buckets": 1024, "words": 2, "chars": 4}))
    assert parse_card(format_card(card)) == card
    with pytest.raises(UsageError, match="takes text, not images"):
        card.image_input  # noqa: B018


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"text": None}, r"has a \[text\] table and no \[input\]"),
        ({"input": {"size": 640, "resize": "letterbox"}}, r"has a \[text\] table and no \[input\]"),
        ({"text": {"languages": ["English"]}}, r"text.languages.0: String should match"),
        ({"task": "detect", "detect": {}}, r"has a \[input\] table and no \[text\]"),
        ({"task": "translate"}, r"a \[translate\] table exactly when"),
        (
            {"task": "translate", "translate": EN_ZH, "ngrams": {"buckets": 2, "words": 1, "chars": 0}},
            r"\[ngrams\] table",
        ),
    ],
)
def test_a_text_card_that_contradicts_itself_is_refused(changes, expected):
    with pytest.raises(CardInvalid, match=expected):
        parse_card(format_toml({key: value for key, value in text_fields(**changes).items() if value is not None}))
