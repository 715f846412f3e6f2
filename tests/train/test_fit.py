"""Whole trainings on small data sets."""

import csv
import json
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

import openlepton
from openlepton.card import open_folder
from openlepton.data.augment import PRESETS
from openlepton.errors import (
    CheckpointMismatch,
    CheckpointRefused,
    DataEmpty,
    DataNotFound,
    OutOfMemory,
    OutputError,
    TrainingDiverged,
    UsageError,
)
from openlepton.images import write_image
from openlepton.train import TrainConfig, fit, resume
from openlepton.train.checkpoint import LAST, load_checkpoint
from openlepton.train.watch import Epoch, Note, Step

pytestmark = pytest.mark.slow


def weights(folder) -> dict[str, torch.Tensor]:
    """Every tensor of a run's checkpoint: network, averages, the optimiser's memory, the state of chance."""
    return safetensors.torch.load((Path(folder) / LAST).read_bytes())


def differing(a, b) -> list[str]:
    first, second = weights(a), weights(b)
    assert first.keys() == second.keys()
    return [name for name in first if not torch.equal(first[name], second[name])]


@pytest.fixture(scope="module")
def whole(squares, tmp_path_factory):
    """A training that was never interrupted, with everything that it leaves."""
    config = TrainConfig(
        data=str(squares),
        out=str(tmp_path_factory.mktemp("runs") / "whole"),
        epochs=4,
        batch=4,
        nominal_batch=8,
        size=64,
        precision="float32",
        threads=1,
        warmup_steps=3,
        warmup_epochs=1.0,
        licence="Apache-2.0",
        command="openlepton train ...",
    )
    events = []
    return fit(config, watch=events.append), events, config


def test_the_same_seed_gives_the_same_weights_bit_for_bit(whole, tmp_path):
    trained, _, config = whole
    again = fit(replace(config, out=str(tmp_path / "again"), plots=False, workers=2))
    assert differing(trained.folder, again.folder) == []
    assert [row["train/box"] for row in again.history] == [row["train/box"] for row in trained.history]


def test_another_seed_gives_other_weights(whole, tmp_path):
    trained, _, config = whole
    other = fit(replace(config, out=str(tmp_path / "other"), plots=False, seed=1))
    assert "network/model.0.conv.weight" in differing(trained.folder, other.folder)


@pytest.mark.parametrize("stop", [(1, 3), (2, 2), (0, 1)], ids=["after an epoch", "within an epoch", "in warm-up"])
def test_a_training_that_was_interrupted_ends_in_the_same_weights_bit_for_bit(whole, tmp_path, stop):
    """Ctrl-C at any batch; the checkpoint may lie a batch later, where a step of the optimiser ends."""
    trained, _, config = whole

    def interrupt(event):
        if isinstance(event, Step) and (event.epoch, event.batch) == stop:
            signal.raise_signal(signal.SIGINT)

    out = tmp_path / "run"
    first = fit(replace(config, out=str(out), plots=False), watch=interrupt)
    assert first.interrupted
    assert len(first.history) < 4
    assert differing(trained.folder, out)
    second = resume(out)
    assert not second.interrupted
    assert differing(trained.folder, out) == []
    assert [row["val/ap"] for row in second.history] == [row["val/ap"] for row in trained.history]


def test_an_interrupt_leaves_a_model_and_says_how_to_go_on(config):
    said = []

    def watch(event):
        said.append(event)
        if isinstance(event, Epoch):
            signal.raise_signal(signal.SIGINT)

    trained = fit(config, watch=watch)
    assert trained.interrupted
    assert len(trained.history) == 1
    assert openlepton.load(trained.best).card.labels == ("red", "green")
    assert any(isinstance(event, Note) and f"--resume {trained.folder}" in event.text for event in said)


def test_a_run_leaves_a_model_folder_whose_card_tells_all(whole):
    trained, _, config = whole
    card = open_folder(trained.best).card
    assert (card.name, card.architecture, card.licence) == ("whole", "yolov5n", "Apache-2.0")
    assert card.labels == ("red", "green")
    assert card.input.size == 64
    assert "openlepton train ..." in card.source
    assert "10 images" in card.source
    measured = {metric.name: metric for metric in card.metrics}
    assert measured["AP50"].value == pytest.approx(trained.report.ap50, abs=5e-5)
    assert measured["AP50"].command == f"openlepton evaluate {trained.best.as_posix()} {config.data} --split val"
    predictor = openlepton.load(trained.best, min_score=0.0)
    assert len(predictor(np.full((64, 64, 3), 114, np.uint8)).boxes) > 0


def test_a_run_leaves_tables_and_pictures(whole):
    trained, events, _ = whole
    with (trained.folder / "results.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2", "3", "4"]
    assert float(rows[-1]["train/box"]) == pytest.approx(trained.history[-1]["train/box"], rel=1e-5)
    assert json.loads((trained.folder / "config.json").read_text("utf-8"))["size"] == 64
    pictures = {path.stem for path in trained.folder.glob("*.png")}
    assert pictures >= {"accuracy", "losses", "confusion", "f1", "precision_recall", "predictions", "batch0", "batch2"}
    steps = [event for event in events if isinstance(event, Step)]
    assert [(event.epoch, event.batch) for event in steps] == [(e, b) for e in range(4) for b in (1, 2, 3)]
    assert steps[-1].eta_s == 0
    assert steps[0].eta_s > 0
    assert sum(isinstance(event, Epoch) for event in events) == 4


def test_tensorboard_gets_every_number_where_it_is_installed(config):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    trained = fit(replace(config, epochs=2))
    board = EventAccumulator(str(trained.folder)).Reload()
    for name, value in trained.history[-1].items():
        if name != "epoch":
            assert board.Scalars(name)[-1].value == pytest.approx(value, rel=1e-6)
            assert [event.step for event in board.Scalars(name)] == [1, 2]


def test_a_folder_with_a_run_is_not_trained_over(whole):
    _, _, config = whole
    with pytest.raises(OutputError, match="holds a run already"):
        fit(config)


def test_a_finished_run_goes_on_only_for_more_epochs(whole):
    trained, _, _ = whole
    with pytest.raises(UsageError, match="all of its 4 epochs are done"):
        resume(trained.folder)
    with pytest.raises(UsageError, match="no such setting: epoch"):
        resume(trained.folder, changes={"epoch": 9})


def test_there_is_nothing_to_resume_in_an_empty_folder(tmp_path):
    with pytest.raises(DataNotFound, match=r"no checkpoint last\.safetensors"):
        resume(tmp_path)


def test_a_damaged_checkpoint_is_refused(whole, tmp_path):
    data = (whole[0].folder / LAST).read_bytes()
    (tmp_path / LAST).write_bytes(data[: len(data) // 2])
    with pytest.raises(CheckpointRefused, match="damaged"):
        resume(tmp_path)
    (tmp_path / LAST).write_bytes((whole[0].folder / "best.safetensors").read_bytes())
    with pytest.raises(CheckpointRefused, match="not a checkpoint of a training"):
        resume(tmp_path)


def test_a_loss_that_is_not_finite_ends_the_training_and_spares_the_checkpoint(config):
    with pytest.raises(TrainingDiverged, match="lower learning rate"):
        fit(replace(config, lr=1e9, warmup_epochs=0, clip_norm=1e12, epochs=20))
    kept = load_checkpoint(Path(config.out))
    assert all(torch.isfinite(value).all() for value in kept.network.values() if value.is_floating_point())


@pytest.mark.skipif(sys.platform == "win32", reason="limits on file sizes are POSIX's")
def test_a_full_disk_ends_the_training_and_spares_the_checkpoint(config, tmp_path):
    """A limit on the size of files stands for the disk: writing fails half-way, as it does when a disk is full."""
    script = tmp_path / "run.py"
    script.write_text(
        "import resource, sys\n"
        "from openlepton.errors import OutputError\n"
        "from openlepton.train import TrainConfig, fit\n"
        "from openlepton.train.watch import Step\n"
        "def watch(event):\n"
        "    if isinstance(event, Step) and (event.epoch, event.batch) == (1, 3):\n"
        "        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))\n"
        "try:\n"
        "    fit(TrainConfig.from_json(sys.argv[1]), watch=watch)\n"
        "except OutputError as error:\n"
        "    print(error)\n",
        encoding="utf-8",
    )
    done = subprocess.run(
        [sys.executable, str(script), config.to_json()], capture_output=True, text=True, check=True, timeout=120
    )
    assert "cannot be written" in done.stdout
    out = Path(config.out)
    assert load_checkpoint(out).progress.epoch == 1
    assert list(out.glob(".*")) == []


def test_a_batch_that_does_not_fit_into_memory_is_said_so(config):
    with pytest.raises(OutOfMemory, match=r"4 images at 1000000 px does not fit .* smaller batch"):
        fit(replace(config, size=1_000_000))


def test_a_class_without_a_box_is_an_error_unless_allowed(config, squares, tmp_path):
    shutil.copytree(squares, tmp_path / "data")
    (tmp_path / "data" / "classes.txt").write_text("red\ngreen\nblue\n", encoding="utf-8")
    config = replace(config, data=str(tmp_path / "data"), epochs=1)
    with pytest.raises(DataEmpty, match="no box of class blue"):
        fit(config)
    assert fit(replace(config, allow_empty_classes=True)).report is not None


def test_an_empty_data_set_is_an_error_before_anything_is_written(config, squares, tmp_path):
    shutil.copytree(squares, tmp_path / "data")
    for label in (tmp_path / "data" / "labels" / "train").iterdir():
        label.write_text("", encoding="utf-8")
    with pytest.raises(DataEmpty, match="no labelled object"):
        fit(replace(config, data=str(tmp_path / "data")))
    with pytest.raises(DataNotFound):
        fit(replace(config, data=str(tmp_path / "nowhere")))
    assert not Path(config.out).exists()


def test_one_image_of_one_class_is_enough(config, tmp_path):
    """Without a split to measure on, which is said; with blanks and letters of two scripts in its path."""
    root = tmp_path / "einzelnes Bild 数据"
    for kind in ("images", "labels"):
        (root / kind / "train").mkdir(parents=True)
    (root / "classes.txt").write_text("猫\n", encoding="utf-8")
    write_image(root / "images" / "train" / "ein Bild é.png", np.full((48, 80, 3), 90, np.uint8))
    (root / "labels" / "train" / "ein Bild é.txt").write_text("0 0.5 0.5 0.4 0.4\n", encoding="utf-8")
    said = []
    trained = fit(replace(config, data=str(root), out=str(root / "Lauf 一"), epochs=2), watch=said.append)
    assert any(isinstance(event, Note) and "measured on the training images" in event.text for event in said)
    assert openlepton.load(trained.best).card.labels == ("猫",)


def test_images_of_four_thousand_pixels_work(config, tmp_path):
    root = tmp_path / "large"
    for kind in ("images", "labels"):
        (root / kind / "train").mkdir(parents=True)
    (root / "classes.txt").write_text("thing\n", encoding="utf-8")
    for index in range(2):
        write_image(root / "images" / "train" / f"{index}.jpg", np.full((3000, 4000, 3), 90 + index, np.uint8))
        (root / "labels" / "train" / f"{index}.txt").write_text("0 0.5 0.5 0.4 0.4\n" * (1 - index), encoding="utf-8")
    trained = fit(replace(config, data=str(root), epochs=1, batch=2))
    assert trained.report.images == 2


def test_training_starts_from_a_model_with_other_classes(whole, config, tmp_path):
    source = whole[0].best
    data = tmp_path / "one"
    shutil.copytree(config.data, data)
    (data / "classes.txt").write_text("square\n", encoding="utf-8")
    for label in data.glob("labels/*/*.txt"):
        label.write_text(label.read_text("utf-8").replace("1 0.", "0 0.").replace("\n1 ", "\n0 "), encoding="utf-8")
    trained = fit(replace(config, data=str(data), pretrained=str(source), epochs=1, lr=1e-12))
    before = safetensors.torch.load((source / "model.safetensors").read_bytes())
    after = load_checkpoint(trained.folder).network
    assert torch.allclose(after["model.9.cv1.conv.weight"], before["model.9.cv1.conv.weight"], atol=1e-6)
    assert after["model.24.m.0.weight"].shape[0] == 18
    assert before["model.24.m.0.weight"].shape[0] == 21
    assert "342 of its tensors" in open_folder(trained.best).card.source


def test_a_frozen_backbone_stays_as_it_is(whole, config):
    source = whole[0].best
    trained = fit(replace(config, pretrained=str(source), freeze="backbone", epochs=2))
    before = safetensors.torch.load((source / "model.safetensors").read_bytes())
    after = load_checkpoint(trained.folder).network
    same = {name for name, value in before.items() if torch.equal(value, after[name])}
    layers = {int(name.split(".")[1]) for name in same if not name.endswith("num_batches_tracked")}
    assert set(range(10)) <= layers
    assert all(name in same for name in before if int(name.split(".")[1]) < 10)
    assert "model.10.conv.weight" not in same
    assert "model.10.bn.running_mean" not in same


def test_nothing_that_fits_is_an_error(config, tmp_path):
    path = tmp_path / "other.safetensors"
    path.write_bytes(safetensors.torch.save({"model.0.conv.weight": torch.zeros(1, 1, 1, 1)}))
    with pytest.raises(CheckpointMismatch, match="no kernel in it fits"):
        fit(replace(config, pretrained=str(path)))


def test_patience_ends_a_training_that_gets_no_better(config):
    said = []
    trained = fit(replace(config, epochs=50, patience=2, ema_decay=1.0, ema_ramp=1e-9), watch=said.append)
    assert len(trained.history) == 3  # the averages stand still, so the first epoch stays the best
    assert not trained.interrupted
    assert any(isinstance(event, Note) and "enough" in event.text for event in said)


def test_multiple_scales_train_and_are_drawn_from_the_seed(config):
    a = fit(replace(config, epochs=1, multi_scale=0.5))
    b = fit(replace(config, epochs=1, multi_scale=0.5, out=config.out + "2"))
    assert differing(a.folder, b.folder) == []


def test_a_training_learns_what_it_is_shown(able):
    first, last = able.history[0], able.history[-1]
    assert last["train/box"] < 0.5 * first["train/box"]
    assert last["train/cls"] < 0.1 * first["train/cls"]
    assert able.report.ap50 > 0.6


@pytest.mark.slow
@pytest.mark.parametrize("change", [{}, {"precision": "bfloat16"}], ids=["float32", "bfloat16"])
def test_the_published_settings_make_the_losses_fall(config, change):
    plain = replace(config, augment=PRESETS["none"], nominal_batch=4, epochs=30, evaluate_every=30)
    history = fit(replace(plain, **change)).history
    for part in ("box", "cls"):
        losses = [row[f"train/{part}"] for row in history]
        assert sum(losses[-4:]) < 0.9 * sum(losses[:4]), losses


def test_a_config_survives_its_json(config):
    assert TrainConfig.from_json(config.to_json()) == config


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": 0}, "epochs: expected 1 or more"),
        ({"freeze": "neck"}, "freeze: expected backbone or a number"),
        ({"precision": "int8"}, "precision: expected auto"),
        ({"multi_scale": 1.0}, "multi_scale"),
        ({"lr": float("nan")}, "lr: expected more than 0"),
    ],
)
def test_a_config_that_makes_no_sense_is_refused(config, change, message):
    with pytest.raises(UsageError, match=message):
        replace(config, **change)


def test_what_there_is_not_is_refused_before_training(config):
    with pytest.raises(UsageError, match="model: expected one of .*yolov5n"):
        fit(replace(config, model="yolov9000"))
    with pytest.raises(UsageError, match="cannot be used here"):
        fit(replace(config, device="cuda:77"))
    with pytest.raises(UsageError, match="leave nothing to train"):
        fit(replace(config, freeze="25"))
