"""A Marian model of random weights: what comes out is what transformers wrote (tools/marian_fixture.py)."""

import json
import pickle
import shutil
from pathlib import Path

import pytest

pytest.importorskip("ctranslate2")
pytest.importorskip("sentencepiece")
pytest.importorskip("safetensors")

from openlepton import load
from openlepton.card import open_folder
from openlepton.cli import run
from openlepton.errors import CheckpointMismatch, CheckpointRefused, OutputError, UsageError
from openlepton.hub.marian import convert_marian
from openlepton.text.translate import open_translator

MARIAN = Path(__file__).parents[1] / "fixtures" / "translators" / "marian"
LONGEST = 40


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    out = tmp_path_factory.mktemp("marian") / "float32"
    card = convert_marian(MARIAN, out, licence="CC0-1.0", quantization="float32")
    return out, card


def test_greedy_search_writes_the_pieces_that_transformers_writes(converted):
    translator = open_translator(open_folder(converted[0]), beam=1, threads=1, compute="float32")
    wanted = json.loads((MARIAN / "greedy.json").read_text(encoding="utf-8"))
    assert len(wanted) == 5
    for sentence, found in wanted.items():
        (pieces,) = translator.pieces.encode([sentence])
        known = set(json.loads((MARIAN / "vocab.json").read_text(encoding="utf-8")))
        assert [piece if piece in known else "<unk>" for piece in pieces] == found["source"]
        (written,) = translator.engine.translate_batch([pieces], beam_size=1, max_decoding_length=LONGEST)
        greedy = found["greedy"][:-1] if found["greedy"][-1] == "</s>" else found["greedy"]
        assert written.hypotheses[0] == greedy


def test_the_card_says_what_it_is(converted):
    card = converted[1]
    assert card.text.max_tokens == 16  # of 64 positions: what is written may be three times as long
    assert (card.task, card.architecture, card.licence) == ("translate", "marian", "CC0-1.0")
    assert (card.translate.source, card.translate.target, card.translate.beam) == ("en", "zh", 4)
    assert set(card.files) == {"model.bin", "config.json", "shared_vocabulary.json", "source.spm", "target.spm"}


def test_random_weights_that_loop_come_to_an_end(converted):
    found = load(converted[0], threads=1)("I see a cat. They like big houses.")
    assert len(found.text) < 2000


def test_the_command_converts_to_int8_and_says_how_to_use_it(tmp_path, capsys):
    out = tmp_path / "mine"
    assert run(["convert", str(MARIAN), str(out), "--licence", "CC0-1.0", "--from", "en", "--to", "de"]) == 0
    assert "--from en --to de --model" in capsys.readouterr().out
    assert (out / "model.bin").stat().st_size < 110_000
    assert load(out, threads=1).pair == ("en", "de")
    assert run(["convert", str(MARIAN), str(out), "--licence", "CC0-1.0"]) == 1
    assert "the folder is not empty" in capsys.readouterr().err


def changed(tmp_path, name, change):
    folder = tmp_path / "opus-mt-en-zh"
    shutil.copytree(MARIAN, folder)
    config = json.loads((folder / name).read_text(encoding="utf-8"))
    change(config)
    (folder / name).write_text(json.dumps(config), encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        (lambda c: c.update(auto_map={"AutoModel": "x.Y"}), CheckpointRefused, "code of its own"),
        (lambda c: c.update(model_type="bart"), CheckpointRefused, "model_type is 'bart'"),
        (lambda c: c.update(activation_function="exec"), CheckpointRefused, "not known"),
        (lambda c: c.update(max_position_embeddings=40), CheckpointRefused, "at least 48 are needed"),
        (lambda c: c.update(d_model=64), CheckpointMismatch, "expected"),
        (lambda c: c.update(encoder_layers=10**9), CheckpointRefused, "encoder_layers: expected a whole number"),
    ],
)
def test_a_config_that_is_not_what_it_says_is_refused(tmp_path, change, error, said):
    with pytest.raises(error, match=said):
        convert_marian(changed(tmp_path, "config.json", change), tmp_path / "out", licence="MIT")
    assert not (tmp_path / "out").exists()


def test_a_vocabulary_with_gaps_is_refused(tmp_path):
    with pytest.raises(CheckpointMismatch, match="not numbered from 0 without gaps"):
        convert_marian(changed(tmp_path, "vocab.json", lambda v: v.update(new=10**6)), tmp_path / "out", licence="MIT")


def test_a_pickle_that_would_run_code_is_refused(tmp_path):
    folder = tmp_path / "opus-mt-en-zh"
    shutil.copytree(MARIAN, folder)
    (folder / "model.safetensors").unlink()
    mark = tmp_path / "ran"

    class Bad:
        def __reduce__(self):
            return Path.touch, (mark,)

    (folder / "pytorch_model.bin").write_bytes(pickle.dumps({"a": Bad()}))
    with pytest.raises(CheckpointRefused):
        convert_marian(folder, tmp_path / "out", licence="MIT")
    assert not mark.exists()


def test_languages_must_be_known_and_names_plain(tmp_path):
    folder = tmp_path / "mystery"
    shutil.copytree(MARIAN, folder)
    (folder / "tokenizer_config.json").unlink()
    with pytest.raises(UsageError, match="give both"):
        convert_marian(folder, tmp_path / "out", licence="MIT")
    with pytest.raises(UsageError, match="expected hf:OWNER/NAME"):
        convert_marian("hf:../../etc", tmp_path / "out", licence="MIT")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(OutputError, match="not empty"):
        convert_marian(MARIAN, tmp_path / "full", licence="MIT")
    with pytest.raises(UsageError, match="it has none"):
        convert_marian(MARIAN, tmp_path / "out", licence="MIT", prefix=">>cmn<<")
