"""`openlepton segment` as a user meets it."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from openlepton import read_image
from openlepton.cli import run
from openlepton.ops.masks import rle_of_polygon, rle_of_text

CHECKPOINT = Path(__file__).parent / "fixtures" / "yolov5" / "yolov5n-seg-nc5.pt"


@pytest.fixture
def lepton(tmp_path, monkeypatch, capsys):
    """Run the command line in an empty folder; return its status, standard output and standard error."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        status = run([str(argument) for argument in arguments])
        return status, *capsys.readouterr()

    return call


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    pytest.importorskip("torch")
    from openlepton.hub.convert import convert

    folder = tmp_path_factory.mktemp("model") / "segmenter"
    convert(CHECKPOINT, folder, licence="AGPL-3.0-only")
    return folder


def found_in(lepton, photo, model, *more):
    status, out, err = lepton("segment", photo, "--model", model, "--max-detections", 6, "--json", *more)
    assert (status, err) == (0, "")
    return json.loads(out)


def test_json_has_a_mask_for_each_detection_that_coco_reads(lepton, photos, model):
    coco = pytest.importorskip("pycocotools.mask")
    result = found_in(lepton, photos[0], model)
    height, width = read_image(photos[0]).shape[:2]
    assert len(result["detections"]) == 6
    for row in result["detections"]:
        assert set(row) == {"label", "label_id", "score", "box", "mask"}
        assert row["mask"]["size"] == [height, width]
        mask = coco.decode({"size": row["mask"]["size"], "counts": row["mask"]["counts"].encode()})
        x, y, w, h = coco.toBbox({"size": row["mask"]["size"], "counts": row["mask"]["counts"].encode()})
        if mask.any():
            assert row["box"]["x1"] - 0.51 <= x <= x + w <= row["box"]["x2"] + 0.51
            assert row["box"]["y1"] - 0.51 <= y <= y + h <= row["box"]["y2"] + 0.51


def test_outlines_in_yolo_text_are_the_masks_to_the_pixel(lepton, photos, model, tmp_path):
    result = found_in(lepton, photos[0], model, "--save-txt", "--save-conf", "--out", "seen")
    masks = [rle_of_text(row["mask"]["counts"], tuple(row["mask"]["size"])) for row in result["detections"]]
    masks = [(row, mask) for row, mask in zip(result["detections"], masks, strict=True) if mask.area]
    lines = (tmp_path / "seen" / "labels" / f"{photos[0].stem}.txt").read_text().splitlines()
    assert len(lines) == len(masks)
    for line, (row, mask) in zip(lines, masks, strict=True):
        label, *numbers, score = line.split()
        assert int(label) == row["label_id"]
        assert float(score) == pytest.approx(row["score"], abs=1e-5)
        height, width = mask.size_hw
        polygon = np.array(numbers, float).reshape(-1, 2) * (width, height)
        assert rle_of_polygon(polygon, mask.size_hw).text() == mask.text()


def test_masks_are_drawn(lepton, photos, model, tmp_path):
    status, out, err = lepton("segment", photos[0], "--model", model, "--max-detections", 6, "--out", "seen")
    assert (status, err) == (0, "")
    assert "found" in out
    assert (read_image(tmp_path / "seen" / photos[0].name) != read_image(photos[0])).any()


def test_nothing_found_is_an_empty_result(lepton, model, tmp_path):
    cv2.imwrite(str(tmp_path / "grey.png"), np.full((40, 60, 3), 114, np.uint8))
    options = ("--model", model, "--min-score", 1, "--save-txt", "--save-crops", "--out", "seen")
    status, out, err = lepton("segment", tmp_path / "grey.png", *options)
    assert (status, err) == (0, "")
    assert "nothing" in out
    assert (tmp_path / "seen" / "labels" / "grey.txt").read_text() == ""
    status, out, _ = lepton("segment", tmp_path / "grey.png", *options, "--json", "--overwrite")
    assert json.loads(out)["detections"] == []


def test_a_detector_is_not_a_segmenter(lepton, photos, model):
    status, _, err = lepton("detect", photos[0], "--model", model)
    assert status == 2
    assert "is a model to segment with: openlepton segment" in err
