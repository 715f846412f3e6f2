"""Training a translator: the optimizer, the network against its twin in the engine, and a run from a folder to a model."""

import json
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("ctranslate2")
pytest.importorskip("sentencepiece")
pytest.importorskip("sacrebleu")

import torch

from openlepton import load
from openlepton.cli import run as command
from openlepton.errors import CheckpointRefused, DataError, DataInvalid, DataNotFound, UsageError
from openlepton.nets.transformer import EOS, Config, Transformer
from openlepton.train.muon import Muon, orthogonal
from openlepton.train.parallel import encoded, learn_pieces, open_tokenizer
from openlepton.train.translating import STATE, TranslateConfig, batches, fit, load_state, loss_of, pace
from openlepton.train.translator import TranslatorRun, read_pairs, train

PAIRS = [
    {"en": f"{a} {v} {o}.", "zh": f"{b}{w}{p}。"}
    for a, b in (("I", "我"), ("You", "你"), ("They", "他们"))
    for v, w in (("see", "看见"), ("like", "喜欢"))
    for o, p in (("a cat", "一只猫"), ("a dog", "一只狗"), ("a house", "一座房子"))
]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pairs")
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in PAIRS), encoding="utf-8")
    return folder


@pytest.fixture
def run(data, tmp_path):
    return TranslatorRun(
        data=str(data), out=str(tmp_path / "run"), source="en", target="zh", vocabulary=400, width=16,
        encoder_layers=1, decoder_layers=1, batch_tokens=256, epochs=2, name="two-epochs",
    )  # fmt: skip


@pytest.mark.parametrize("shape", [(2, 8, 8), (1, 6, 20), (3, 20, 6)])
def test_orthogonal_keeps_directions_and_brings_singular_values_near_1(shape):
    torch.manual_seed(0)
    matrices = torch.randn(shape)
    u, _, v = torch.linalg.svd(matrices, full_matrices=False)
    found = u.mT @ orthogonal(matrices) @ v.mT
    values = torch.diagonal(found, dim1=1, dim2=2)
    assert values.min() > 0.6
    assert values.max() < 1.3
    assert (found - torch.diag_embed(values)).abs().max() < 1e-4


def test_muon_moves_as_torch_s_does():
    torch.manual_seed(0)
    mine, theirs = ([torch.nn.Parameter(w.clone()) for w in s] for s in 2 * [[torch.randn(8, 4), torch.randn(4, 8)]])
    grads = [[torch.randn_like(p) for p in mine] for _ in range(3)]
    ours = Muon(mine, lr=0.1)
    reference = torch.optim.Muon(theirs, lr=0.1, weight_decay=0.01, adjust_lr_fn="original")
    for step in grads:
        for a, b, grad in zip(mine, theirs, step, strict=True):
            a.grad, b.grad = grad.clone(), grad.clone()
        ours.step()
        reference.step()
    for a, b in zip(mine, theirs, strict=True):
        assert (a - b).abs().max() < 0.03  # torch's goes through bfloat16


def test_batches_hold_every_short_pair_once_and_no_more_than_they_may():
    pairs = [([5] * (n % 30 + 1), [5] * (n % 7 + 1)) for n in range(200)]
    config = TranslateConfig(Config(10), batch_tokens=100, max_length=25)
    found = batches(pairs, config, np.random.default_rng(0))
    assert sorted(row for batch in found for row in batch) == [n for n in range(200) if n % 30 + 1 <= 25]
    assert all(max(len(pairs[row][0]) for row in batch) * len(batch) <= 100 for batch in found)


def test_the_rate_rises_falls_with_the_square_root_and_ends_at_0():
    config = TranslateConfig(Config(10), warmup=100, cooldown=0.5)
    assert [pace(config, step, 0) for step in (1, 100, 400)] == pytest.approx([0.01, 1, 0.5])
    assert [pace(config, 400, done) for done in (0.5, 0.75, 1)] == pytest.approx([0.5, 0.25, 0])


def test_padding_changes_no_loss():
    torch.manual_seed(0)
    network = Transformer(Config(40, width=16, heads=2, inner=32, encoder_layers=2, decoder_layers=2)).eval()
    pairs = [([5, 6, EOS], [7, EOS]), ([8] * 20 + [EOS], [9, 10, 11, 12, 13, EOS])]
    both, count = loss_of(network, pairs)
    alone = [loss_of(network, [pair]) for pair in pairs]
    assert count == 8
    assert both.item() == pytest.approx(sum(loss.item() for loss, _ in alone), rel=1e-5)


def test_pieces_spell_every_character_even_those_never_seen():
    tokenizer = open_tokenizer(learn_pieces([text for row in PAIRS for text in row.values()], 400))
    ((source, target),) = encoded([("I like 鱻!", "我，喜欢")], tokenizer)
    assert source[-1] == target[-1] == EOS
    assert tokenizer.decode(list(source)).strip() == "I like 鱻!"
    assert tokenizer.decode(list(target)) == "我，喜欢"
    with pytest.raises(DataError, match="no tokenizer of 20 pieces"):
        learn_pieces(["abc"], 20)


def test_a_run_goes_on_where_it_stopped_and_ends_in_a_model(run, tmp_path):
    told = []
    first = train(replace(run, epochs=1), tell=told.append)
    assert any("18 pairs to learn from" in line for line in told)
    state = load_state(tmp_path / "run" / STATE, TranslateConfig(_network(tmp_path / "run")))
    card = train(run).card
    again = load_state(tmp_path / "run" / STATE, TranslateConfig(_network(tmp_path / "run")))
    assert again.step == 2 * state.step
    assert (card.name, card.task, first.card.name) == ("two-epochs", "translate", "two-epochs")
    assert card.parity.scores < 1e-4
    assert [metric.name for metric in card.metrics] == ["BLEU", "chrF"]
    assert card.metrics[0].note == "18 pairs, beam 4, sacrebleu, zh"
    found = load(tmp_path / "run" / "best", threads=1)("I see a cat.")
    assert found.target == "zh"


def _network(folder):
    import safetensors

    with safetensors.safe_open(folder / STATE, "pt") as opened:
        return Config(**json.loads(opened.metadata()["network"]))


def test_another_network_and_a_damaged_state_are_refused(run, tmp_path):
    config = TranslateConfig(Config(50, width=16, heads=2, inner=32, encoder_layers=1, decoder_layers=1), epochs=1)
    pairs = [([5, EOS], [6, EOS])] * 4
    list(fit(lambda _: pairs, pairs, config, tmp_path))
    with pytest.raises(CheckpointRefused, match="another network"):
        next(fit(lambda _: pairs, pairs, replace(config, network=replace(config.network, inner=64)), tmp_path))
    (tmp_path / STATE).write_bytes(b"nothing")
    with pytest.raises(CheckpointRefused, match="damaged"):
        next(fit(lambda _: pairs, pairs, config, tmp_path))
    with pytest.raises(DataError, match="at most 128 pieces"):
        next(fit(lambda _: [([5] * 200, [6])], pairs, config, tmp_path / "new"))


def test_a_folder_without_pairs_says_what_it_wants(tmp_path):
    with pytest.raises(DataNotFound, match=r"no train\.jsonl, \.csv or \.tsv"):
        read_pairs(tmp_path, ("train",), "en", "zh", print)
    (tmp_path / "train.csv").write_text("en,zh\nHi.,嗨。\nHi.,嗨。\n,空\n", encoding="utf-8")
    assert read_pairs(tmp_path, ("train",), "en", "zh", print) == [("Hi.", "嗨。")]
    with pytest.raises(DataInvalid, match="no column 'de'; columns: en, zh"):
        read_pairs(tmp_path, ("train",), "de", "zh", print)
    with pytest.raises(UsageError, match="both 'en'"):
        TranslatorRun(data="x", out="y", source="en", target="en")


def test_the_command_trains(data, tmp_path, capsys):
    options = "--vocabulary 400 --width 16 --layers 1 --epochs 1 --batch 256 --threads 1"
    arguments = ["train", "--task", "translate", "--data", str(data), "--from", "zh", "--to", "en"]
    assert command([*arguments, "--out", str(tmp_path / "zh-en"), *options.split()]) == 0
    said = capsys.readouterr()
    assert "BLEU" in said.out
    assert load(tmp_path / "zh-en" / "best", threads=1).pair == ("zh", "en")
    assert command(["train", "--task", "translate", "--data", str(data)]) == 2
