"""The default classifier against timm's network (Apache-2.0) with the published float32 weights.

`python tests/contract/test_efficientnet_lite0.py CHECKPOINT.pth`, where timm is installed, writes the reference again (last:
timm 1.0.31, torch 2.13; the checkpoint is the one that `recipes/efficientnet_lite0.py` reads).
"""

import csv
import re
import sys
from pathlib import Path

import numpy as np
import pytest

from openlepton.hub.index import find
from openlepton.predictor import load
from openlepton.runtimes.onnx import OnnxRuntime
from openlepton.vision.classify import Classify

ROOT = Path(__file__).parents[2]
PHOTOS = ROOT / "openlepton" / "assets" / "photos"
REFERENCE = Path(__file__).with_name("efficientnet_lite0_reference.npz")
MODEL = "efficientnet-lite0"


@pytest.fixture(scope="module")
def card():
    return find(MODEL).card


def test_scores_equal_those_of_timm_but_for_the_rounding_of_the_weights():
    reference = np.load(REFERENCE)
    scores = OnnxRuntime(find(MODEL), threads=1)({"images": reference["images"].astype(np.float32) / 255})["scores"]
    assert reference["scores"].shape == scores.shape == (len(reference["names"]), 1000)
    assert reference["scores"].max() > 0.9
    np.testing.assert_allclose(scores, reference["scores"], rtol=0, atol=5e-3)
    assert (scores.argmax(1) == reference["scores"].argmax(1)).all()


def test_photographs_are_prepared_as_when_the_reference_was_made():
    """Decoders of JPEG differ by a level or two."""
    reference = np.load(REFERENCE)
    task = Classify(find(MODEL).card.input, find(MODEL).card.labels)
    for name, image in zip(reference["names"], reference["images"], strict=True):
        prepared = task.prepare(PHOTOS / str(name))[0]["images"] * 255
        assert np.abs(prepared - image).mean() < 0.5, name


@pytest.mark.parametrize(
    ("photo", "kind"),
    [("cat.jpg", {"tabby", "tiger cat", "Egyptian cat"}), ("coffee.jpg", {"espresso"}), ("rocket.jpg", {"missile"})],
)
def test_the_best_class_is_what_the_photograph_shows(photo, kind):
    assert load(MODEL)(PHOTOS / photo).label in kind


def test_the_best_class_has_its_chinese_name():
    assert load(MODEL, language="zh")(PHOTOS / "coffee.jpg").label == "浓缩咖啡"


def test_the_labels_are_those_of_the_recipe(card):
    with (ROOT / "recipes" / "imagenet_labels.tsv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader((line for line in file if not line.startswith("#")), delimiter="\t"))
    assert [int(row["id"]) for row in rows] == list(range(1000))
    assert card.labels == tuple(row["en"] for row in rows)
    assert card.labels_zh == tuple(row["zh"] for row in rows)


@pytest.mark.parametrize(
    ("index", "en", "zh"),
    [
        (0, "tench", "丁鱥"),
        (134, "crane (bird)", "鹤"),
        (207, "golden retriever", "金毛寻回犬"),
        (285, "Egyptian cat", "埃及猫"),
        (388, "giant panda", "大熊猫"),
        (404, "airliner", "客机"),
        (517, "crane (machine)", "起重机"),
        (638, "maillot", "紧身连体衣"),
        (639, "tank suit", "连体泳衣"),
        (817, "sports car", "跑车"),
        (954, "banana", "香蕉"),
        (967, "espresso", "浓缩咖啡"),
        (999, "toilet paper", "卫生纸"),
    ],
)
def test_labels_stand_where_imagenet_has_them(card, index, en, zh):
    assert (card.labels[index], card.labels_zh[index]) == (en, zh)


def test_chinese_names_are_chinese(card):
    """Of 1,000, four have Latin letters, which they have in Chinese too."""
    latin = [name for name in card.labels_zh if not re.fullmatch(r"[\u3400-\u9fff]+", name)]
    assert latin == ["CD 播放机", "iPod", "T恤", "福特T型车"]


if __name__ == "__main__":
    import timm
    import torch

    network = timm.create_model("tf_efficientnet_lite0").eval()
    published = torch.load(sys.argv[1], weights_only=True)
    network.load_state_dict(dict(zip(network.state_dict(), published.values(), strict=True)))
    names = ["cat.jpg", "coffee.jpg"]
    task = Classify(find(MODEL).card.input, find(MODEL).card.labels)
    images = np.stack([task.prepare(PHOTOS / name)[0]["images"] for name in names])
    pixels = np.rint(images * 255).astype(np.uint8)
    with torch.no_grad():
        scores = network((torch.from_numpy(pixels).float() - 127) / 128).softmax(1).numpy()
    np.savez_compressed(REFERENCE, names=names, images=pixels, scores=scores)
