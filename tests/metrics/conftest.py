"""Random sets that press on every rule, and pycocotools as it is as the reference."""

import contextlib
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from openlepton.metrics import GroundTruth
from openlepton.results import Detections

Set = tuple[list[GroundTruth], list[Detections], list[str]]

HERE = Path(__file__).parent

SIDES = (8, 32, 32, 60, 96, 96, 150)
"""Sides of objects: 32 x 32 and 96 x 96 lie on the borders of COCO's area ranges."""


def make_set(
    seed: int,
    *,
    images: int = 12,
    classes: int = 5,
    objects: int = 8,
    found: int = 30,
    crowd: float = 0.0,
    ignore: float = 0.0,
    levels: int = 0,
    jitter: float = 6.0,
) -> Set:
    """Return a set whose last class has neither objects nor detections; `levels` rounds scores, so that many are equal."""
    rng = np.random.default_rng(seed)
    names = [f"class {index}" for index in range(classes)]
    truth, results = [], []
    for _ in range(images):
        M, N = rng.integers(0, objects + 1), rng.integers(0, found + 1)
        corners = rng.integers(0, 200, (M, 2)).astype(np.float64)
        boxes = np.concatenate([corners, corners + rng.choice(SIDES, (M, 1)) * np.array([1, 1])], axis=1)
        labels = rng.integers(0, classes - 1, M)
        crowded = rng.random(M) < crowd
        boxes[crowded, 2:] += 80
        truth.append(GroundTruth(boxes, labels, crowd=crowded, ignore=rng.random(M) < ignore))
        if M:
            near = rng.integers(0, M, N)
            moved = boxes[near] + rng.normal(0, jitter, (N, 4)) * (rng.random((N, 1)) < 0.8)
            ids = np.where(rng.random(N) < 0.8, labels[near], rng.integers(0, classes - 1, N))
        else:
            moved = rng.uniform(0, 200, (N, 4))
            ids = rng.integers(0, classes - 1, N)
        moved = np.concatenate([np.minimum(moved[:, :2], moved[:, 2:]), np.maximum(moved[:, :2], moved[:, 2:])], axis=1)
        scores = rng.random(N)
        if levels:
            scores = np.round(scores * levels) / levels
        results.append(Detections(moved, scores, ids, names, (400, 500)))
    return truth, results, names


def run_pycocotools(
    truth: Sequence[GroundTruth],
    found: Sequence[Detections],
    names: Sequence[str],
    max_detections: Sequence[int] = (1, 10, 100),
) -> Any:
    """Return pycocotools' own precision, recall, its twelve numbers and its matches at IoU 0.5."""
    coco = pytest.importorskip("pycocotools.coco")
    cocoeval = pytest.importorskip("pycocotools.cocoeval")
    annotations = []
    for index, one in enumerate(truth, 1):
        sizes = (
            one.areas
            if one.areas is not None
            else (one.boxes[:, 2] - one.boxes[:, 0]) * (one.boxes[:, 3] - one.boxes[:, 1])
        )
        crowd = one.crowd if one.crowd is not None else np.zeros(len(one), bool)
        ignore = one.ignore if one.ignore is not None else np.zeros(len(one), bool)
        for row, (x1, y1, x2, y2) in enumerate(one.boxes.tolist()):
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": index,
                    "category_id": int(one.class_ids[row]) + 1,
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "iscrowd": int(crowd[row]),
                    # pycocotools overwrites `ignore`; it ignores without the crowd's rule what lies outside all areas
                    "area": -1.0 if ignore[row] and not crowd[row] else float(sizes[row]),
                }
            )
    with contextlib.redirect_stdout(io.StringIO()):
        reference = coco.COCO()
        reference.dataset = {
            "images": [{"id": index} for index in range(1, len(truth) + 1)],
            "categories": [{"id": index, "name": name} for index, name in enumerate(names, 1)],
            "annotations": annotations,
        }
        reference.createIndex()
        rows = [
            [index, *(float(value) for value in (x1, y1, x2 - x1, y2 - y1)), float(score), int(label) + 1]
            for index, one in enumerate(found, 1)
            for (x1, y1, x2, y2), score, label in zip(
                one.boxes.astype(np.float64).tolist(), one.scores, one.class_ids, strict=True
            )
        ]
        results = coco.COCO()
        results.dataset = {**reference.dataset, "annotations": []}
        if rows:  # `loadRes` cannot load nothing
            results = reference.loadRes(np.array(rows))
        else:
            results.createIndex()
        evaluation = cocoeval.COCOeval(reference, results, "bbox")
        evaluation.params.maxDets = list(max_detections)
        evaluation.evaluate()
        evaluation.accumulate()
        if tuple(max_detections) == (1, 10, 100):
            evaluation.summarize()
    return SimpleNamespace(
        precision=evaluation.eval["precision"],
        recall=evaluation.eval["recall"],
        stats=np.array(evaluation.stats),
        images=evaluation.evalImgs,
    )


@pytest.fixture(scope="session")
def random_set() -> Callable[..., Set]:
    """How to make a set of images with annotations and detections."""
    return make_set


@pytest.fixture(scope="session")
def pycocotools() -> Callable[..., Any]:
    """How to evaluate a set with the reference."""
    return run_pycocotools


@pytest.fixture(scope="session")
def real_set() -> Set:
    """48 photographs of 20 classes with the detections of a small network (YOLOX-Nano, scores from 0.02)."""
    truth = np.loadtxt(HERE / "voc20_truth.csv", delimiter=",", skiprows=1)
    found = np.loadtxt(HERE / "voc20_found.csv", delimiter=",", skiprows=1)
    names = [f"class {index}" for index in range(20)]
    objects, results = [], []
    for index in range(48):
        mine, theirs = truth[truth[:, 0] == index], found[found[:, 0] == index]
        width, height = mine[0, 1:3].astype(int).tolist()
        objects.append(GroundTruth(mine[:, 4:], mine[:, 3]))
        results.append(Detections(theirs[:, 3:], theirs[:, 2], theirs[:, 1], names, (height, width)))
    return objects, results, names
