"""The lesson of classification: whole trainings of both families, the head alone, any number of labels, and what is measured."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from openlepton.card import open_folder  # noqa: E402
from openlepton.cli import run  # noqa: E402
from openlepton.data.crops import CROPS  # noqa: E402
from openlepton.errors import DataEmpty, DataInvalid, UsageError  # noqa: E402
from openlepton.images import read_image, write_image  # noqa: E402
from openlepton.nets.classifier_loss import ClassifierLoss, ClassTargets  # noqa: E402
from openlepton.predictor import load  # noqa: E402
from openlepton.train import LossConfig, fit, suited  # noqa: E402
from openlepton.train.fewshot import DECAYS, _adopt, _solve  # noqa: E402

CLASSES = ("checks", "dots", "stripes")
SIDE = 64
QUICK = {"size": SIDE, "threads": 1, "workers": 0, "precision": "float32"}


def picture(kind: str, rng: np.random.Generator) -> np.ndarray:
    """Return a pattern in two colours, of some scale and at some place."""
    step, dx, dy = (int(value) for value in rng.integers((8, 0, 0), (16, 16, 16)))
    y, x = np.mgrid[:SIDE, :SIDE]
    down, across = (y + dy) // step % 2, (x + dx) // step % 2
    centre = np.hypot((y + dy) % (2 * step) - step, (x + dx) % (2 * step) - step)
    mask = {"checks": down ^ across, "stripes": down, "dots": centre < 0.6 * step}[kind].astype(bool)
    dark, bright = rng.integers(0, 90, 3), rng.integers(150, 256, 3)
    return np.where(mask[..., None], bright, dark).astype(np.uint8)


def write_folders(root: Path, counts: dict[str, int], seed: int = 0) -> Path:
    """Write a folder for each split and in it one for each class."""
    rng = np.random.default_rng(seed)
    for split, count in counts.items():
        for kind in CLASSES:
            (root / split / kind).mkdir(parents=True)
            for index in range(count):
                write_image(root / split / kind / f"{index}.png", picture(kind, rng))
    return root


@pytest.fixture(scope="module")
def patterns(tmp_path_factory):
    return write_folders(tmp_path_factory.mktemp("patterns"), {"train": 8, "val": 4})


@pytest.fixture(scope="module")
def headed(patterns, tmp_path_factory):
    """The head alone, trained by the command."""
    out = tmp_path_factory.mktemp("runs") / "mine"
    given = ["--task", "classify", "--data", str(patterns), "--freeze", "backbone", "--out", str(out)]
    assert run(["train", *given, "--imgsz", str(SIDE), "--threads", "1", "--licence", "MIT"]) == 0
    return out


@pytest.mark.slow
def test_the_head_alone_learns_from_a_few_images_and_says_how(headed, patterns):
    card = open_folder(headed / "best").card
    assert (card.task, card.architecture, card.labels) == ("classify", "efficientnet-lite0", CLASSES)
    assert card.source.startswith("trained on from efficientnet-lite0 1.0 (Apache-2.0)")
    assert "in its last layer alone" in card.source
    assert {metric.name: metric.value for metric in card.metrics} == {"top-1 accuracy": 1.0}
    rows = list(csv.DictReader((headed / "results.csv").open()))
    assert [float(row["decay"]) for row in rows] == list(DECAYS)
    assert {path.name for path in headed.glob("*.png")} >= {"predictions.png", "confusion.png"}
    classify = load(headed / "best")
    for kind in CLASSES:
        assert classify(patterns / "val" / kind / "0.png").label == kind


@pytest.mark.slow
def test_a_frozen_backbone_is_that_of_the_model_it_came_from(headed):
    import safetensors.torch

    from openlepton.train.start import read_weights

    given, _ = read_weights("efficientnet-lite0")
    found = safetensors.torch.load((headed / "best.safetensors").read_bytes())
    convolutions = [name for name in given if name.endswith("conv.weight")]
    assert len(convolutions) == 49
    for name in convolutions:
        assert torch.equal(found[name], given[name].to(found[name]))


@pytest.mark.slow
def test_the_card_is_reproduced_by_the_command_with_a_report_of_each_class(headed, patterns, capfd):
    assert run(["evaluate", str(headed / "best"), str(patterns), "--json"]) == 0
    found = json.loads(capfd.readouterr().out)
    assert (found["top-1"], found["top-5"], found["images"]) == (1.0, 1.0, 12)
    assert found["confusion"] == (4 * np.eye(3, dtype=int)).tolist()
    assert found["classes"] == [
        {"class": kind, "images": 4, "precision": 1.0, "recall": 1.0, "f1": 1.0} for kind in CLASSES
    ]


@pytest.mark.parametrize("decay", [0.1, 0.003])
def test_the_head_is_the_optimum_that_scikit_learn_finds(decay):
    linear = pytest.importorskip("sklearn.linear_model")
    rng = np.random.default_rng(0)
    inputs, truth = rng.normal(size=(60, 8)).astype(np.float32), rng.integers(0, 3, 60)
    inputs[np.arange(60), truth] += 1
    wanted = linear.LogisticRegression(C=1 / (decay * 60), tol=1e-8, max_iter=2000).fit(inputs, truth)
    targets = ClassTargets(torch.arange(60), torch.from_numpy(truth), torch.ones(60))
    last = torch.nn.Linear(8, 3)
    torch.nn.init.zeros_(last.weight)
    torch.nn.init.zeros_(last.bias)
    _solve(last, torch.from_numpy(inputs), targets, ClassifierLoss(LossConfig(), multi_label=False), decay)
    with torch.no_grad():
        found = last(torch.from_numpy(inputs)).softmax(1).numpy()
    np.testing.assert_allclose(found, wanted.predict_proba(inputs), atol=2e-3)


def test_the_head_sees_features_as_the_network_gives_them():
    from openlepton.nets import NETS

    network = NETS["yolov5n-cls"].build(classes=3).eval()
    features, mean, deviation = torch.randn(5, 1280), np.full(1280, 2.0, np.float32), np.full(1280, 3.0, np.float32)
    last = torch.nn.Linear(1280, 3)
    _adopt(network, last, mean, deviation)
    with torch.no_grad():
        torch.testing.assert_close(network.classify(features), last((features - 2) / 3), atol=1e-5, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(("model", "epochs", "lr"), [("efficientnet-lite0", 3, 2e-3), ("yolov5n-cls", 4, 2e-3)])
def test_a_whole_network_learns_from_blended_images_with_smoothed_labels(model, epochs, lr, patterns, tmp_path):
    out = tmp_path / "run"
    given = {"batch": 8, "nominal_batch": 8, "epochs": epochs, "lr": lr, "warmup_steps": 2, "warmup_epochs": 0.0}
    config = suited("classify", model, data=str(patterns), out=str(out), augment="high", **given, **QUICK)
    assert (config.augment.mixup, config.augment.cutmix, config.loss.smoothing) == (0.2, 1.0, 0.1)
    trained = fit(config)
    losses = [row["train/cls"] for row in trained.history]
    assert losses[-1] < losses[0]
    card = open_folder(trained.best).card
    assert (card.architecture, card.input.size, card.labels) == (model, SIDE, CLASSES)
    assert trained.report.confusion.sum() == 12
    if config.pretrained:  # three epochs are not enough for one that has seen nothing
        assert trained.report.top1 >= 0.75
    assert {path.name for path in out.glob("*.png")} >= {"batch0.png", "predictions.png", "confusion.png"}
    header = (out / "results.csv").read_text().splitlines()[0].split(",")
    assert {"train/cls", "val/top1", "val/top5"} <= set(header)


@pytest.fixture(scope="module")
def tagged(tmp_path_factory):
    """Two patterns beside each other; the table says which, and every ninth image shows none."""
    root, rng = tmp_path_factory.mktemp("tagged"), np.random.default_rng(1)
    (root / "images").mkdir()
    rows = ["image,labels,split"]
    for index in range(54):
        shown = [CLASSES[index % 3], CLASSES[index // 3 % 3]] if index % 9 != 8 else []
        image = np.full((SIDE, SIDE, 3), 120, np.uint8)
        for place, kind in enumerate(shown):
            half = slice(place * SIDE // 2, (place + 1) * SIDE // 2)
            image[:, half] = picture(kind, rng)[:, half]
        write_image(root / "images" / f"{index}.png", image)
        rows.append(f"images/{index}.png,{';'.join(sorted(set(shown)))},{'val' if index % 5 == 4 else 'train'}")
    (root / "labels.csv").write_text("\n".join(rows) + "\n", "utf-8")
    return root


@pytest.mark.slow
def test_an_image_may_have_any_number_of_classes(tagged, tmp_path):
    config = suited(
        "classify", data=str(tagged), out=str(tmp_path / "run"), freeze="backbone", multi_label=True, **QUICK
    )
    trained = fit(config)
    assert trained.report.map > 0.8
    card = open_folder(trained.best).card
    assert card.classify.min_score == 0.5
    assert {metric.name for metric in card.metrics} == {"mAP", "F1"}
    found = load(trained.best)(tagged / "images" / "4.png")
    assert found.scores.sum() != pytest.approx(1, abs=1e-3)  # they do not exclude each other
    assert found.min_score == 0.5


def test_several_classes_for_one_image_are_an_error_unless_asked_for(tagged, tmp_path):
    with pytest.raises(DataInvalid, match=r"expected one: train with multi_label \(--multi-label\)"):
        fit(suited("classify", data=str(tagged), out=str(tmp_path / "run"), freeze="backbone", **QUICK))
    assert not (tmp_path / "run").exists()


def test_a_data_set_of_boxes_is_refused(squares, tmp_path):
    with pytest.raises(DataInvalid, match="does not say what whole images show"):
        fit(suited("classify", data=str(squares), out=str(tmp_path / "run"), **QUICK))


@pytest.mark.slow
def test_a_class_without_an_image_is_an_error_unless_allowed(tmp_path):
    root = write_folders(tmp_path / "data", {"train": 1, "val": 1})
    (root / "train" / "dots" / "0.png").unlink()
    config = {"data": str(root), "freeze": "backbone", **QUICK}
    with pytest.raises(DataEmpty, match="split train has no image of class dots"):
        fit(suited("classify", out=str(tmp_path / "run"), **config))
    trained = fit(suited("classify", out=str(tmp_path / "run"), allow_empty_classes=True, **config))
    assert trained.report.names == CLASSES


def test_images_are_not_varied_where_the_head_alone_learns_and_are_where_all_does():
    assert suited("classify", freeze="backbone", data="", out="").augment == CROPS["none"]
    assert suited("classify", data="", out="").augment == CROPS["medium"]
    with pytest.raises(UsageError, match="yolov5n is for detect, not to classify"):
        suited("classify", "yolov5n", data="", out="")


def test_a_model_of_imagenet_is_measured_on_folders_that_are_called_as_its_classes(tmp_path, photos, capfd):
    named = {path.stem: path for path in photos}
    for label, photo in (("espresso", named["coffee"]), ("goldfish", named["coffee"])):
        (tmp_path / "val" / label).mkdir(parents=True)
        write_image(tmp_path / "val" / label / "one.png", read_image(photo))
    assert run(["evaluate", "efficientnet-lite0", str(tmp_path), "--json"]) == 0
    found = json.loads(capfd.readouterr().out)
    assert (found["top-1"], found["images"]) == (0.5, 2)
    assert [row["recall"] for row in found["classes"]] == [1.0, 0.0]
