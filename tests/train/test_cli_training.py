"""`openlepton train` and `openlepton evaluate` as whole commands."""

import json

import pytest

from openlepton.card import open_folder
from openlepton.cli import run
from openlepton.train.checkpoint import load_checkpoint

pytestmark = pytest.mark.slow

QUICK = ["--epochs", "1", "--batch", "4", "--imgsz", "64", "--threads", "1", "--precision", "float32"]


@pytest.fixture(scope="module")
def trained(squares, tmp_path_factory):
    """A run made by the command."""
    out = tmp_path_factory.mktemp("commands") / "mine"
    assert run(["train", "--data", str(squares), "--out", str(out), "--licence", "MIT", *QUICK]) == 0
    return out


def test_a_run_can_be_named_described_and_found_again(trained):
    card = open_folder(trained / "best").card
    assert (card.name, card.licence) == ("mine", "MIT")
    assert card.metrics[0].command.startswith("openlepton evaluate ")


def test_more_epochs_go_on_from_a_finished_run(trained, squares, capfd):
    assert run(["train", "--resume", str(trained), "--epochs", "2"]) == 0
    out, err = capfd.readouterr()
    assert "epoch 2/2" in err
    assert "epoch 1/2" not in err
    assert "use it: openlepton detect" in out
    assert load_checkpoint(trained).progress.epoch == 2


def test_the_card_is_reproduced_by_the_command(trained, squares, capfd):
    assert run(["evaluate", str(trained / "best"), str(squares), "--split", "val", "--json"]) == 0
    found = json.loads(capfd.readouterr().out)
    stated = {metric.name: metric.value for metric in open_folder(trained / "best").card.metrics}
    assert found["ap50"] == pytest.approx(stated["AP50"], abs=5e-5)
    assert found["ap"] == pytest.approx(stated["AP50-95"], abs=5e-5)
    assert (found["images"], found["split"], found["size"]) == (4, "val", 64)
    assert [one["name"] for one in found["classes"]] == ["red", "green"]
    assert found["timing"]["infer_ms"] > 0


def test_evaluation_prints_tables_and_writes_pictures(trained, squares, capfd, tmp_path):
    assert (
        run(["evaluate", str(trained / "best"), str(squares), "--plots", str(tmp_path / "curves"), "--limit", "2"]) == 0
    )
    out = capfd.readouterr().out
    for word in ("ap50", "precision", "red", "green", "2 images; median ms: prepare"):
        assert word in out
    assert (tmp_path / "curves" / "precision_recall.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["train"], 2, "--data: name a data set"),
        (["train", "--data", "DATA", "--augment", "wild"], 2, "augment: expected none, low, medium, high"),
        (["train", "--data", "DATA", "--optimizer", "adam"], 2, "optimizer: expected sgd or adamw"),
        (["train", "--data", "nowhere"], 1, "[data-not-found]"),
        (["train", "--resume", "nowhere"], 1, "[data-not-found]"),
        (["evaluate", "efficientnet-lite0", "DATA"], 1, "does not say what whole images show"),
        (["evaluate", "BEST", "DATA", "--split", "test"], 1, "no split 'test'"),
    ],
)
def test_what_makes_no_sense_is_said_in_one_line(
    trained, squares, tmp_path, monkeypatch, capfd, arguments, status, message
):
    monkeypatch.chdir(tmp_path)
    names = {"DATA": str(squares), "BEST": str(trained / "best")}
    assert run([names.get(argument, argument) for argument in arguments]) == status
    lines = capfd.readouterr().err.strip().splitlines()
    assert message in lines[-1]
    assert len(lines) == 1
