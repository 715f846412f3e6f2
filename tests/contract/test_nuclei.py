"""The models of nuclei, on eight of the validation images (BBBC038, CC0): they say there what they said when they were shipped."""

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from openlepton import draw, load, read_image
from openlepton.cli import run
from openlepton.ops.masks import rle_of_text
from openlepton.runtimes.onnx import OnnxRuntime

NUCLEI = Path(__file__).resolve().parents[1] / "fixtures" / "nuclei"
IMAGES = sorted((NUCLEI / "images").glob("*.jpg"))
ONE_THREAD = partial(OnnxRuntime, threads=1)


@pytest.fixture(scope="module")
def segment():
    return load("yolov5n-seg-nuclei", runtime=ONE_THREAD)


@pytest.mark.slow
def test_the_segmenter_reaches_on_a_few_images_what_it_reached_there(segment):
    lessons = pytest.importorskip("openlepton.train.lessons")
    lesson = lessons.lesson_for("segment")
    done = lesson.evaluate(segment, lesson.open(NUCLEI)["val"])
    assert done.metrics == pytest.approx(
        {"mask AP50-95": 0.522, "mask AP50": 0.833, "mask AP75": 0.596, "box AP50-95": 0.509, "box AP50": 0.827},
        abs=0.005,
    )
    card = {metric.name: metric.value for metric in segment.card.metrics}
    assert card["mask AP50"] >= 0.70
    assert set(done.metrics) == set(card)


@pytest.mark.parametrize("path", IMAGES, ids=lambda path: path.stem)
def test_masks_lie_inside_their_boxes_and_cover_what_is_annotated(segment, path):
    cv2 = pytest.importorskip("cv2")
    there = cv2.imread(str(NUCLEI / "masks" / f"{path.stem}.png"), cv2.IMREAD_UNCHANGED) > 0
    found = segment(path)
    assert len(found) > 0
    together = np.zeros(found.image_hw, np.bool_)
    for one in found:
        rows, columns = np.nonzero(one.mask.mask())
        x1, y1, x2, y2 = one.box
        assert len(rows) > 0
        assert x1 <= columns.min() + 0.5 <= columns.max() + 0.5 <= x2
        assert y1 <= rows.min() + 0.5 <= rows.max() + 0.5 <= y2
        together[rows, columns] = True
    assert (together & there).sum() / (together | there).sum() > 0.6
    assert draw(read_image(path), found).shape == (*found.image_hw, 3)


def test_segment_without_a_model_outlines_nuclei_and_says_so_in_chinese(capsys):
    assert run(["segment", str(IMAGES[1]), "--json", "--lang", "zh"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["model"] == {"name": "yolov5n-seg-nuclei", "version": "1"}
    assert {row["label"] for row in printed["detections"]} == {"细胞核"}
    for row in printed["detections"]:
        assert rle_of_text(row["mask"]["counts"], tuple(row["mask"]["size"])).area > 0


def test_a_photograph_without_nuclei_gives_masks_of_its_size_or_nothing(segment, photos):
    found = segment(photos[0])
    assert all(one.mask.size_hw == found.image_hw == read_image(photos[0]).shape[:2] for one in found)


@pytest.fixture(scope="module")
def paint():
    return load("unet-lite0-nuclei", runtime=ONE_THREAD)


@pytest.mark.slow
def test_the_class_map_reaches_on_a_few_images_what_it_reached_there(paint):
    lessons = pytest.importorskip("openlepton.train.lessons")
    lesson = lessons.lesson_for("semantic")
    done = lesson.evaluate(paint, lesson.open(NUCLEI)["val"])
    assert done.report.names == ("background", "nucleus", "boundary")
    assert done.metrics == pytest.approx(
        {"mIoU": 0.734, "pixel accuracy": 0.945, "IoU background": 0.960, "IoU nucleus": 0.800, "IoU boundary": 0.442},
        abs=0.005,
    )
    card = {metric.name: metric.value for metric in paint.card.metrics}
    assert card["mIoU"] >= 0.70
    assert set(done.metrics) == set(card)


@pytest.mark.parametrize("path", IMAGES, ids=lambda path: path.stem)
def test_nuclei_are_painted_where_they_are_annotated(paint, path):
    cv2 = pytest.importorskip("cv2")
    there = cv2.imread(str(NUCLEI / "masks" / f"{path.stem}.png"), cv2.IMREAD_UNCHANGED) > 0
    painted = paint(path).class_map > 0  # nucleus, or its boundary
    assert (painted & there).sum() / (painted | there).sum() > 0.6


def test_segment_with_the_class_map_writes_ids_and_draws_a_legend(tmp_path, capsys):
    cv2 = pytest.importorskip("cv2")
    out = ["--model", "unet-lite0-nuclei", "--save-masks", "--save-txt", "--out", str(tmp_path)]
    assert run(["segment", str(IMAGES[1]), *out]) == 0
    shown = capsys.readouterr().out
    ids = cv2.imread(str(tmp_path / "masks" / f"{IMAGES[1].stem}.png"), cv2.IMREAD_UNCHANGED)
    image = read_image(IMAGES[1])
    assert ids.shape == image.shape[:2]
    assert np.unique(ids).tolist() == [0, 1, 2]
    for index, name in enumerate(("background", "nucleus", "boundary")):
        assert f"{(ids == index).mean():.0%} {name}" in shown
    drawn = read_image(tmp_path / IMAGES[1].name).astype(int)
    rest = (np.abs(drawn - image).max(2) > 25) & (ids == 0)  # nothing of the background changes but under the legend
    corner = slice(3 * ids.shape[0] // 4, None), slice(0, ids.shape[1] // 2)
    assert rest[corner].sum() > 300
    assert rest.sum() - rest[corner].sum() < 20
    rows = (tmp_path / "labels" / f"{IMAGES[1].stem}.txt").read_text().splitlines()
    assert sum(float(row.split()[0]) for row in rows) == pytest.approx(1, abs=1e-4)


def test_an_option_that_class_maps_do_not_have_is_said_so(capsys):
    assert run(["segment", str(IMAGES[1]), "--model", "unet-lite0-nuclei", "--min-score", "0.5"]) == 2
    assert "min_score: makes no sense for unet-lite0-nuclei" in capsys.readouterr().err
