"""Mask AP equals pycocotools', on random masks that press on every rule and on nuclei with real detections of them."""

import contextlib
import io
import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from openlepton.errors import ShapeError, UsageError
from openlepton.metrics import GroundTruth, evaluate_detections, evaluate_masks, match_detections, precision_at_recall
from openlepton.metrics.masks import HEADER
from openlepton.ops.masks import rle_of_mask, rle_of_text
from openlepton.results import Detections

coco = pytest.importorskip("pycocotools.coco")
cocoeval = pytest.importorskip("pycocotools.cocoeval")

NAMES = ["a", "b", "c"]
KINDS = {
    "plain": {},
    "crowds": {"crowd": 0.4},
    "ignored": {"ignore": 0.4},
    "equal scores": {"levels": 3, "crowd": 0.2},
    "empty masks": {"empty": 0.3},
    "more than a hundred": {"copies": 40, "images": 4},
    "nothing found": {"copies": 0},
    "nothing there": {"objects": 0},
}


def make_set(seed, *, images=8, objects=8, copies=3, crowd=0.0, ignore=0.0, empty=0.0, levels=0):
    """Return ellipses, and moved and grown copies of them as detections."""
    rng = np.random.default_rng(seed)
    truth, found = [], []
    for _ in range(images):
        size_hw = tuple(int(side) for side in rng.integers(60, 300, 2))
        there, seen, labels, guesses = [], [], [], []
        for _ in range(rng.integers(0, objects + 1)):
            mask = np.zeros(size_hw, np.uint8)
            centre, axes = rng.integers(0, size_hw[::-1]), rng.integers(2, 70, 2)
            cv2.ellipse(mask, centre.tolist(), axes.tolist(), float(rng.uniform(0, 180)), 0, 360, 1, -1)
            if not mask.any():
                continue
            there.append(rle_of_mask(mask > 0))
            labels.append(int(rng.integers(2)))
            for _ in range(rng.integers(0, copies + 1)):
                grown = cv2.dilate(mask, np.ones((3, 3)), iterations=int(rng.integers(3)))
                moved = np.roll(grown, rng.integers(-4, 5, 2), (0, 1)) > 0
                seen.append(rle_of_mask(moved & (rng.random() >= empty)))
                guesses.append(labels[-1] if rng.random() < 0.8 else int(rng.integers(2)))
        scores = rng.random(len(seen))
        scores = np.round(scores * levels) / levels if levels else scores
        crowded = rng.random(len(there)) < crowd
        truth.append(
            GroundTruth(
                np.array([mask.box() for mask in there]),
                labels,
                crowded,
                (rng.random(len(there)) < ignore) & ~crowded,
                np.array([mask.area for mask in there], float),
                there,
            )
        )
        boxes = np.array([mask.box() for mask in seen], np.float32)
        found.append(Detections(boxes, scores, guesses, NAMES, size_hw, seen))
    return truth, found, NAMES


def pycocotools(truth, found, names):
    annotations, results = [], []
    for index, (one, seen) in enumerate(zip(truth, found, strict=True), 1):
        ignore = np.zeros(len(one), bool) if one.ignore is None else one.ignore
        crowd = np.zeros(len(one), bool) if one.crowd is None else one.crowd
        for row, mask in enumerate(one.masks):
            annotations.append(
                {
                    "id": len(annotations) + 1, "image_id": index, "category_id": int(one.class_ids[row]) + 1,
                    "segmentation": mask.to_dict(), "iscrowd": int(crowd[row]), "bbox": [0, 0, 1, 1],
                    "area": -1.0 if ignore[row] else float(one.areas[row]),
                }
            )  # fmt: skip
        for mask, score, label in zip(seen.masks, seen.scores, seen.class_ids, strict=True):
            row = {"image_id": index, "category_id": int(label) + 1, "score": float(score)}
            results.append(row | {"segmentation": mask.to_dict()})
    with contextlib.redirect_stdout(io.StringIO()):
        reference = coco.COCO()
        reference.dataset = {
            "images": [
                {"id": i, "height": one.image_hw[0], "width": one.image_hw[1]} for i, one in enumerate(found, 1)
            ],
            "categories": [{"id": index, "name": name} for index, name in enumerate(names, 1)],
            "annotations": annotations,
        }
        reference.createIndex()
        loaded = reference.loadRes(results) if results else coco.COCO()
        if not results:
            loaded.dataset = {**reference.dataset, "annotations": []}
            loaded.createIndex()
        evaluation = cocoeval.COCOeval(reference, loaded, "segm")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


def agree(data):
    report, reference = evaluate_detections(*data, masks=True), pycocotools(*data)
    twelve = np.nan_to_num(list(report.summary().values())[:12], nan=-1.0)
    assert twelve == pytest.approx(reference.stats, abs=1e-6)
    for index, one in enumerate(report.classes):
        theirs = reference.eval["precision"][:, :, index, 0, 2].mean()
        assert np.nan_to_num(one.ap, nan=-1.0) == pytest.approx(theirs, abs=1e-6)
    return report


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(3))
def test_all_twelve_numbers_and_every_class_equal_pycocotools(kind, seed):
    agree(make_set(seed, **KINDS[kind]))


def test_real_masks_of_a_network_give_what_pycocotools_gives():
    """Eight pictures of nuclei (BBBC038, CC0) with what a small network found in them."""
    truth, found = [], []
    for one in json.loads((Path(__file__).parent / "nuclei_masks.json").read_text()):
        size_hw = tuple(one["size"])
        there = [rle_of_text(text, size_hw) for text in one["truth"]]
        seen = [rle_of_text(text, size_hw) for _, text in one["found"]]
        boxes, ids = np.array([mask.box() for mask in there]), np.zeros(len(there), int)
        truth.append(GroundTruth(boxes, ids, areas=[mask.area for mask in there], masks=there))
        boxes, scores = np.array([mask.box() for mask in seen]), [score for score, _ in one["found"]]
        found.append(Detections(boxes, scores, np.zeros(len(seen), int), ["nucleus"], size_hw, seen))
    report = agree((truth, found, ["nucleus"]))
    assert report.images == 8
    assert sum(len(one) for one in found) > 150
    assert 0.3 < report.ap < 0.7


@pytest.mark.parametrize("kind", ["plain", "crowds", "ignored", "equal scores"])
def test_matches_give_the_same_ap_at_one_overlap(kind):
    data = make_set(7, **KINDS[kind])
    report = evaluate_detections(*data, masks=True)
    table = precision_at_recall(report.matches)
    for index, one in enumerate(report.classes):
        assert np.nan_to_num(table[index].mean(), nan=-1) == pytest.approx(np.nan_to_num(one.ap50, nan=-1), abs=1e-9)


def test_masks_and_boxes_stand_side_by_side():
    data = make_set(2)
    report = evaluate_masks(*data)
    assert report.masks.to_dict() == evaluate_detections(*data, masks=True).to_dict()
    assert report.boxes.to_dict() == evaluate_detections(*data).to_dict()
    assert report.boxes.ap != pytest.approx(report.masks.ap)
    summary = report.summary()
    assert summary["mask_ap50"] == report.masks.ap50
    assert summary["box_ap50"] == report.boxes.ap50
    assert list(summary)[-1] == "best_score"
    rows = list(report.rows())
    assert report.header == HEADER
    assert {len(row) for row in rows} == {len(HEADER)}
    assert rows[0][-4:] == (report.masks.ap50, report.masks.ap, report.boxes.ap50, report.boxes.ap)
    assert json.loads(json.dumps(report.to_dict()))["masks"]["ap"] == report.masks.ap


def test_what_has_no_masks_cannot_be_measured_by_them():
    truth, found, names = make_set(2)
    with pytest.raises(UsageError, match=r"image \d: the detections have no masks"):
        evaluate_detections(truth, [replace(one, masks=None) for one in found], names, masks=True)
    with pytest.raises(UsageError, match=r"image \d: the annotations have no masks"):
        evaluate_detections([replace(one, masks=None) for one in truth], found, names, masks=True)
    with pytest.raises(ShapeError, match="masks: expected 1, got 0"):
        GroundTruth(np.zeros((1, 4)), [0], masks=[])


def test_matching_by_boxes_takes_no_notice_of_masks():
    truth, found, names = make_set(4)
    plain = match_detections([replace(one, masks=None) for one in truth], found, names)
    assert np.array_equal(match_detections(truth, found, names).hit, plain.hit)
