"""Encoders as classifiers of texts: read from the Hugging Face layout, trained, published, loaded; and what is refused on the way.

`tests/fixtures/encoder` is a BERT of random weights that transformers 5.24 saved, 64 wide, and what it says to four texts.
"""

import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest

from openlepton.card import open_folder, parse_card
from openlepton.cli import run
from openlepton.errors import (
    CardInvalid,
    CheckpointMismatch,
    CheckpointRefused,
    ModelCorrupt,
    ModelFormatRefused,
    ModelNotFound,
)
from openlepton.hub.folder import write_card
from openlepton.predictor import load
from openlepton.text.encode import BATCH_TOKENS, groups, padded

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")
pytest.importorskip("tokenizers")

from openlepton.hub.encoder_folder import read_encoder  # noqa: E402 - after what they need
from openlepton.nets.export_text import export_encoder, in_int8, text_parity  # noqa: E402
from openlepton.text.encode import Encoder  # noqa: E402
from openlepton.text.labelled import read_labelled  # noqa: E402
from openlepton.text.tokens import read_tokens  # noqa: E402
from openlepton.train.classifying_text import TextRun, _Session, train_encoder  # noqa: E402
from openlepton.train.text_encoder import STATE, EncoderConfig, build, fit, load_network, logits_of  # noqa: E402
from openlepton.train.text_encoder import padded as pad  # noqa: E402

FIXTURE = Path(__file__).parents[1] / "fixtures" / "encoder"
GOOD, BAD = ("lovely", "great", "fine", "superb", "warm"), ("awful", "dull", "poor", "bleak", "cold")
THINGS = ("film", "book", "room", "meal", "song", "play")
ODD = ["", "🙂", "a lovely film " * 200, "a\x00b", "\ud800", "一部好电影"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder, random = tmp_path_factory.mktemp("reviews"), np.random.default_rng(0)
    for split, count in (("train", 320), ("dev", 96), ("test", 96)):
        rows = []
        for _ in range(count):
            good = bool(random.integers(2))
            words = [random.choice(GOOD if good else BAD), random.choice(THINGS), *["very"] * random.integers(6)]
            rows.append({"text": f"the {' '.join(words)} .", "label": "positive" if good else "negative"})
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    """A model folder, made on the command line."""
    out = tmp_path_factory.mktemp("out") / "reviews"
    command = ["train", "--task", "classify-text", "--data", data, "--model", FIXTURE, "--out", out, "--licence", "MIT"]
    options = ["--epochs", 8, "--lr", 2e-3, "--threads", 1]
    threads = torch.get_num_threads()
    assert run([str(part) for part in [*command, *options]]) == 0
    torch.set_num_threads(threads)
    return out


@pytest.fixture
def copy(tmp_path):
    """Return a function that gives an encoder folder of one's own, with other files."""

    def made(**files):
        folder = tmp_path / "encoder"
        shutil.copytree(FIXTURE, folder)
        for name, value in files.items():
            path = folder / name.replace("__", ".")
            path.unlink(missing_ok=True)
            if value is not None:
                path.write_bytes(value)
        return folder

    return made


def config(**changes):
    return json.dumps(json.loads((FIXTURE / "config.json").read_bytes()) | changes).encode()


def test_a_folder_of_hugging_face_s_gives_what_it_gives_there():
    found, reference = read_encoder(FIXTURE), json.loads((FIXTURE / "reference.json").read_text())
    network = build({**found.sizes, "dropout": 0.0}, found.weights, EncoderConfig(dropout=0.0))
    assert found.labels == ("bad", "fair", "good")
    encoded = read_tokens(found.tokenizer, 40).encode(reference["texts"])
    assert logits_of(network, encoded) == pytest.approx(np.array(reference["logits"]), abs=2e-5)


def test_it_learns_on_the_command_line_and_its_card_says_how_well(trained):
    card = open_folder(trained).card
    numbers = {metric.name: metric.value for metric in card.metrics}
    assert (card.architecture, card.task, card.labels) == ("bert", "classify-text", ("negative", "positive"))
    assert (card.licence, card.text.max_tokens, card.text.languages) == ("MIT", 40, ("en",))
    assert numbers["accuracy"] > 0.95
    assert numbers["ECE"] < 0.1
    assert card.parity.scores < 1e-5
    found = load(trained).batch([f"the {word} {thing} ." for word in GOOD + BAD for thing in THINGS])
    right = [one.label == ("positive" if row < len(found) // 2 else "negative") for row, one in enumerate(found)]
    assert np.mean(right) > 0.8


def test_the_float32_graph_gives_what_the_network_gives_and_int8_what_is_close(trained, data):
    network = load_network(trained / "training" / STATE)
    part = read_labelled(data)["test"]
    tokens = read_tokens((FIXTURE / "tokenizer.json").read_bytes(), 40)
    graph, encoded = export_encoder(network), tokens.encode(part.texts)
    assert text_parity(network, graph, [pad(encoded[:32]), pad(encoded[32:])], tolerance=1e-5) < 1e-5
    with torch.no_grad():
        wanted = network.decode(torch.from_numpy(logits_of(network, encoded))).numpy()
    exact, rounded = (Encoder(tokens, _Session(one), 2)(list(part.texts)) for one in (graph, in_int8(graph)))
    np.testing.assert_allclose(exact, wanted, atol=1e-5)
    assert 0 < np.abs(rounded - exact).max() < 0.05
    assert (rounded.argmax(1) == exact.argmax(1)).mean() > 0.97


def test_what_is_published_is_int8_and_its_products_are_of_integers(trained):
    graph = onnx.load_from_string(open_folder(trained).read("model.onnx")).graph
    types = {tuple(one.dims): one.data_type for one in graph.initializer if len(one.dims) == 2}
    assert types[64, 64] == types[64, 128] == types[128, 64] == onnx.TensorProto.INT8
    kinds = [node.op_type for node in graph.node]
    assert kinds.count("MatMulInteger") == 2 * 6
    largest = [
        np.abs(onnx.numpy_helper.to_array(one)).max()
        for one in graph.initializer
        if "MatMul" in one.name and one.name.endswith(".int8")
    ]
    assert set(largest) == {64}
    size = open_folder(trained).card.files["model.onnx"].size
    assert size < len(export_encoder(load_network(trained / "training" / STATE))) / 2


@pytest.mark.parametrize("threads", [1, 3])
def test_neither_neighbours_nor_order_nor_threads_change_a_score(trained, threads):
    model = load(trained, threads=threads)
    assert (model.scorer.workers, model.runtime.threads) == (threads, 1)
    texts = [
        f"the {one} {'very ' * (row % 9)}{thing}"
        for row, (one, thing) in enumerate(zip(GOOD * 9, THINGS * 8, strict=False))
    ]
    texts = [*ODD, *texts, "superb " * 500]
    one_by_one = load(trained, threads=1)
    alone = [one_by_one(text).scores for text in texts]
    together, backwards = model.batch(texts), model.batch(texts[::-1])[::-1]
    for one, many, other in zip(alone, together, backwards, strict=True):
        np.testing.assert_allclose(many.scores, one, rtol=0, atol=1e-6)
        np.testing.assert_allclose(other.scores, one, rtol=0, atol=1e-6)


def test_texts_of_like_length_go_together_and_are_padded_by_little():
    lengths = [*range(2, 129)] * 5
    assert all(length <= padded(length) <= max(length + 3, length * 9 // 8) for length in lengths)
    given = [padded(length) for length in lengths]
    found = groups(given)
    assert sorted(row for rows in found for row in rows) == list(range(len(lengths)))
    for rows in found:
        (length,) = {given[row] for row in rows}
        assert len(rows) * length <= max(BATCH_TOKENS, length)


def test_a_training_that_was_interrupted_ends_as_it_would_have(data, tmp_path):
    found, splits = read_encoder(FIXTURE), read_labelled(data)
    tokens, settings = read_tokens(found.tokenizer, 40), EncoderConfig(epochs=1, batch=32)

    def train(out, steps):
        network = build({**found.sizes, "classes": 2, "layers": 1}, found.weights, settings)
        for row in fit(network, tokens, splits["train"], splits["dev"], settings, out, every_s=-1):
            if row["step"] == steps:
                break
        return network

    whole = train(tmp_path / "whole", 10)
    train(tmp_path / "parts", 4)
    parts = train(tmp_path / "parts", 10)
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(parts.state_dict()[name], value, rtol=0, atol=1e-6)
    with pytest.raises(CheckpointRefused, match="holds another network"):
        next(
            fit(
                build({**found.sizes, "classes": 3}, found.weights, settings),
                tokens,
                splits["train"],
                splits["dev"],
                settings,
                tmp_path / "whole",
            )
        )


def test_labels_need_not_exclude_each_other(tmp_path):
    random, rows = np.random.default_rng(0), []
    for _ in range(512):
        has = [word for word in THINGS[:3] if random.integers(2)]
        rows.append({"text": f"the {' '.join(has)} .", "label": has})
    (tmp_path / "tags.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    made = TextRun(data=str(tmp_path / "tags.jsonl"), out=str(tmp_path / "tags"), model=str(FIXTURE), multi_label=True)
    report = train_encoder(made, EncoderConfig(epochs=10, lr=2e-3)).report
    assert report.exact > 0.9
    found = load(tmp_path / "tags").batch(["the film book .", "the room .", "the .", ""])
    assert [sorted(one.labels) for one in found] == [["book", "film"], ["room"], [], []]
    assert found[0].scores.sum() > 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"auto_map": {"AutoModel": "modeling.Net"}}, "auto_map: the model wants code of its own to be run"),
        ({"trust_remote_code": True}, "trust_remote_code: the model wants code"),
        ({"custom_pipelines": {"x": {"impl": "x.X"}}}, "custom_pipelines: the model wants code"),
        ({"model_type": "gpt2"}, "model_type: expected bert, got 'gpt2'"),
        ({"hidden_act": "relu"}, "expected hidden_act gelu"),
        ({"hidden_size": -1}, "hidden_size: expected a number of 1 and more, got -1"),
    ],
)
def test_a_configuration_that_asks_for_code_or_for_another_network_is_refused(copy, changes, message):
    folder = copy(config__json=config(**changes))
    (folder / "modeling.py").write_text("raise SystemExit('it was run')")
    with pytest.raises(ModelFormatRefused, match=message):
        read_encoder(folder)


class _Runs:
    """Writes a file when it is unpickled by a reader that calls what it finds."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_a_pickle_that_would_run_code_is_refused_and_nothing_of_it_is_run(copy, tmp_path):
    marker = tmp_path / "it was run"
    torch.save({"bert.x": _Runs(marker)}, tmp_path / "archive")
    for data in (pickle.dumps(_Runs(marker)), (tmp_path / "archive").read_bytes()):
        folder = copy(model__safetensors=None, pytorch_model__bin=data)
        with pytest.raises(CheckpointRefused):
            read_encoder(folder)
        shutil.rmtree(folder)
    assert not marker.exists()
    folder = copy(model__safetensors=pickle.dumps(_Runs(marker)))
    with pytest.raises(CheckpointRefused, match="not a safetensors file"):
        read_encoder(folder)
    assert not marker.exists()


def test_a_pickle_of_plain_tensors_is_read_as_data(copy):
    state = {f"bert.{name}": torch.from_numpy(value) for name, value in _theirs().items()}
    folder = copy(model__safetensors=None)
    torch.save(state, folder / "pytorch_model.bin")
    weights, wanted = read_encoder(folder).weights, read_encoder(FIXTURE).weights
    assert weights.keys() == {name for name in wanted if not name.startswith(("pooler", "classifier"))}
    for name, value in weights.items():
        np.testing.assert_array_equal(value, wanted[name])


def _theirs():
    from safetensors.numpy import load as read

    return {
        name.removeprefix("bert."): value
        for name, value in read((FIXTURE / "model.safetensors").read_bytes()).items()
        if not name.startswith("classifier")
    }


def test_weights_of_another_network_and_missing_files_are_named(copy):
    with pytest.raises(CheckpointMismatch, match=r"embeddings\.tokens\.weight: expected \(36, 32\), got \(36, 64\)"):
        read_encoder(copy(config__json=config(hidden_size=32)))


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
def test_a_file_that_is_missing_is_named(copy, name):
    with pytest.raises(ModelNotFound, match=rf"{name}.*an encoder folder needs|an encoder folder needs its weights"):
        read_encoder(copy(**{name.replace(".", "__"): None}))


def test_a_file_that_is_not_the_card_s_is_refused_before_it_is_read(trained, tmp_path):
    for name in ("model.onnx", "tokenizer.json"):
        folder = tmp_path / name
        shutil.copytree(trained, folder, ignore=shutil.ignore_patterns("training"))
        data = bytearray((folder / name).read_bytes())
        data[len(data) // 2] ^= 1
        (folder / name).write_bytes(data)
        with pytest.raises(ModelCorrupt, match=f"{name}: sha256 differs"):
            load(folder)


@pytest.mark.parametrize("kind", ["pickle", "code", "words"])
def test_a_tokenizer_that_is_more_than_data_is_refused(trained, tmp_path, kind):
    from openlepton.card import file_facts

    marker = tmp_path / "it was run"
    plain = json.loads((FIXTURE / "tokenizer.json").read_bytes())
    data = {
        "pickle": pickle.dumps(_Runs(marker)),
        "code": json.dumps(plain | {"pre_tokenizer": {"type": "Custom", "code": "import os"}}).encode(),
        "words": b"the lovely film",
    }[kind]
    folder = tmp_path / "model"
    shutil.copytree(trained, folder, ignore=shutil.ignore_patterns("training"))
    (folder / "tokenizer.json").write_bytes(data)
    card = parse_card((folder / "card.toml").read_text("utf-8"))
    write_card(folder, card.model_copy(update={"files": {**card.files, "tokenizer.json": file_facts(data)}}))
    with pytest.raises(ModelFormatRefused, match=r"tokenizer\.json: not a tokenizer"):
        load(folder)
    assert not marker.exists()


def test_a_folder_of_hugging_face_s_is_no_model_folder():
    with pytest.raises(CardInvalid, match=r"card\.toml: .* a model folder needs a card"):
        load(FIXTURE)
