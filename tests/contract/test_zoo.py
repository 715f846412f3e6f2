"""What every model that ships must hold to, whatever it is; a new folder in the zoo is found by itself."""

from functools import cache, partial
from pathlib import Path

import numpy as np
import pytest
from fontTools.ttLib import TTFont

from openlepton.card import CARD_NAME, CONTRACT, TEXT_TASKS, format_card, parse_card
from openlepton.hub.index import ZOO, find, models
from openlepton.nets import NETS
from openlepton.predictor import load
from openlepton.runtimes.onnx import FILE_NAME, OnnxRuntime
from openlepton.runtimes.onnx_check import check_onnx

NAMES = sorted(path.name for path in ZOO.iterdir() if path.is_dir())
PHOTOS = sorted((ZOO.parent / "assets" / "photos").glob("*.jpg"))
PERMISSIVE = {"Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "CC0-1.0", "MIT"}
MAX_WHEEL_BYTES = 90_000_000

ARCHITECTURES = {*NETS, "bert", "by-language", "linear-ngrams", "transformer"}
CLASSIFY_TEXT = [name for name in NAMES if find(name).card.task == "classify-text"]

every_model = pytest.mark.parametrize("name", NAMES)
every_image_model = pytest.mark.parametrize("name", [name for name in NAMES if find(name).card.task not in TEXT_TASKS])
every_text_classifier = pytest.mark.parametrize("name", CLASSIFY_TEXT)


@cache
def predictor(name):
    return load(name, runtime=partial(OnnxRuntime, threads=1))


def test_the_zoo_and_the_photographs_are_there():
    assert [model.card.name for model in models()] == NAMES
    assert len(NAMES) >= 1
    assert len(PHOTOS) >= 3


@every_model
def test_the_folder_is_called_as_its_card_and_holds_what_the_card_names(name):
    folder = find(name)
    assert folder.card.name == name
    assert {path.name for path in folder.path.iterdir()} == {CARD_NAME, *folder.card.files}


@every_model
def test_every_file_has_the_size_and_hash_of_the_card(name):
    folder = find(name)
    for file, facts in folder.card.files.items():
        assert len(folder.read(file)) == facts.size


@every_model
def test_the_card_is_written_as_the_package_writes_cards(name):
    folder = find(name)
    text = (folder.path / CARD_NAME).read_text("utf-8")
    assert text == format_card(folder.card)
    assert parse_card(text) == folder.card
    assert folder.card.contract == CONTRACT


@every_model
def test_the_licence_lets_anybody_use_it_for_anything(name):
    assert find(name).card.licence in PERMISSIVE


@every_model
def test_the_architecture_is_one_that_the_package_builds(name):
    assert find(name).card.architecture in ARCHITECTURES


@every_model
def test_labels_are_distinct_in_both_languages_and_clean(name):
    card = find(name).card
    assert (card.labels_zh is None) == (card.task == "translate")
    for labels in (card.labels, card.labels_zh or ()):
        assert len({label.casefold() for label in labels}) == len(labels) == len(card.labels)
        assert all(label == label.strip() and label.isprintable() and label for label in labels)


@every_model
def test_the_bundled_font_draws_every_label(name):
    card = find(name).card
    with TTFont(ZOO.parent / "assets" / "sans.ttf") as font:
        drawn = font.getBestCmap()
    assert [
        label for label in (*card.labels, *(card.labels_zh or ())) if any(ord(letter) not in drawn for letter in label)
    ] == []


@every_model
def test_metrics_say_what_they_were_measured_on_and_how_or_that_they_were_not(name):
    card = find(name).card
    assert bool(card.metrics) == (card.members is None)
    assert (card.parity is not None) == (FILE_NAME in card.files or card.translate is not None)
    for metric in card.metrics:
        assert metric.command.startswith(("python ", "openlepton ")) or "not measured again" in metric.note


@every_image_model
def test_the_graph_has_the_inputs_and_outputs_of_the_contract(name):
    folder = find(name)
    facts = check_onnx(folder.read(FILE_NAME))
    (images,) = facts.inputs
    assert (images.name, images.element_type, images.dims[1]) == ("images", "float32", 3)
    assert isinstance(images.dims[0], str), "the batch is fixed"
    found = {port.name: port.element_type for port in facts.outputs}
    wanted = {
        "classify": {"scores"},
        "detect": {"boxes", "scores"},
        "segment": {"boxes", "scores", "coeffs", "protos"},
        "semantic": {"scores"},
    }[folder.card.task]
    assert found == dict.fromkeys(wanted, "float32")


@every_image_model
@pytest.mark.parametrize("photo", PHOTOS, ids=lambda path: path.stem)
def test_a_photograph_gives_what_the_contract_says(name, photo):
    model = predictor(name)
    inputs, _ = model.task.prepare(photo)
    images = inputs["images"]
    assert images.dtype == np.float32
    assert 0 <= images.min() < images.max() <= 1
    outputs = model.runtime({"images": images[None]})
    scores = outputs["scores"]
    assert scores.shape[0] == 1
    assert scores.shape[1 if model.card.task == "semantic" else -1] == len(model.card.labels)
    assert np.isfinite(scores).all()
    assert scores.min() >= 0
    assert scores.max() <= 1
    if model.card.task == "semantic":
        assert scores.shape[2:] == tuple(side // 2 for side in images.shape[1:])
        np.testing.assert_allclose(scores.sum(1), 1, atol=1e-4)
    elif model.card.task == "classify":
        assert scores.sum() == pytest.approx(1, abs=1e-4)
    elif model.card.task in ("detect", "segment"):
        assert outputs["boxes"].shape == (*scores.shape[:2], 4)
        assert np.isfinite(outputs["boxes"]).all()


@every_image_model
def test_a_batch_gives_what_each_image_gives_alone(name):
    model = predictor(name)
    images = np.stack([model.task.prepare(photo)[0]["images"] for photo in _of_one_shape(model)])
    assert len(images) >= 2
    together = model.runtime({"images": images})
    for index in range(len(images)):
        alone = model.runtime({"images": images[index : index + 1]})
        np.testing.assert_allclose(together["scores"][index], alone["scores"][0], rtol=0, atol=1e-5)


@every_image_model
def test_the_first_channel_is_red_and_the_order_matters(name):
    model = predictor(name)
    red = np.zeros((300, 300, 3), np.uint8)
    red[:, :, 0] = 255
    tensor = model.task.prepare(red)[0]["images"]
    assert tensor[:, tensor.shape[1] // 2, tensor.shape[2] // 2].tolist() == [1, 0, 0]
    photo = model.task.prepare(PHOTOS[0])[0]["images"]
    scores, swapped = (model.runtime({"images": x[None].copy()})["scores"] for x in (photo, photo[::-1]))
    assert np.abs(scores - swapped).max() > 1e-3


@every_model
def test_card_and_weights_read_as_data_only(name):
    """No archive, pickle or script ships: a card, graphs, arrays, tokenizers."""
    card = find(name).card
    text = {".safetensors", ".json", ".model", ".bin"} if card.task in TEXT_TASKS else set()
    assert {Path(file).suffix for file in card.files} <= {".onnx"} | text


TEXTS = ["这家酒店很好，下次还来。", "A dull, lifeless film.", "", "🙂🙂", "x" * 999, "Oil prices rise", "湖人击败火箭"]


@every_text_classifier
def test_texts_give_what_they_give_alone_whatever_the_batch(name):
    model = load(name, threads=1)
    alone = [model(text) for text in TEXTS]
    together = model.batch(TEXTS[::-1])[::-1]
    for one, many in zip(alone, together, strict=True):
        assert set(one.names) <= set(model.card.labels)
        assert one.scores.sum() == pytest.approx(1, abs=1e-4)
        np.testing.assert_allclose(many.scores, one.scores, atol=1e-5)


def test_the_zoo_fits_into_a_wheel():
    assert sum(path.stat().st_size for path in ZOO.rglob("*") if path.is_file()) < MAX_WHEEL_BYTES


def _of_one_shape(model):
    shapes: dict[tuple[int, ...], list[Path]] = {}
    for photo in [*PHOTOS, *PHOTOS[:1]]:
        shapes.setdefault(model.task.prepare(photo)[0]["images"].shape, []).append(photo)
    return max(shapes.values(), key=len)[:3]
