"""Tiles, variants and several models around a runtime that finds bright rectangles exactly."""

import json
import tracemalloc
from dataclasses import replace
from functools import partial

import cv2
import numpy as np
import pytest

import openlepton
from openlepton.card import ImageInput
from openlepton.cli import run
from openlepton.combine import combine
from openlepton.errors import ImageNotFound, OpenLeptonError, UsageError
from openlepton.hub.index import find
from openlepton.predictor import Predictor
from openlepton.vision.detect import Detect

CARD = find("yolov5n-bccd").card
SIDE = 256


def bright_rectangles(inputs, least=1):
    """Return boxes around what is brighter than 0.6 and wide enough: class 0 where it is red, class 1 where it is not."""
    rows = []
    for image in inputs["images"]:
        bright = (image.max(0) > 0.6).astype(np.uint8)
        count, _, stats, _ = cv2.connectedComponentsWithStats(bright, connectivity=4)
        boxes = np.zeros((64, 4), np.float32)
        scores = np.zeros((64, 2), np.float32)
        for row in range(1, count):
            x, y, w, h, area = (int(value) for value in stats[row])
            if min(w, h) < least:
                continue
            boxes[row] = x, y, x + w, y + h
            scores[row, int(image[1, y + h // 2, x + w // 2] > 0.6)] = 0.5 + min(area, 10_000) / 40_000
        rows.append((boxes, scores))
    boxes, scores = zip(*rows, strict=True)
    return {"boxes": np.stack(boxes), "scores": np.stack(scores)}


def seer(names=("red", "white"), size=SIDE):
    facts = ImageInput(size=size, resize="letterbox", multiple=32, fill=0)
    card = CARD.model_copy(update={"labels": names, "input": facts})
    return Predictor(card, Detect(facts, names), bright_rectangles)


def picture(*rectangles, size_hw=(900, 1400), colour=(255, 0, 0)):
    image = np.zeros((*size_hw, 3), np.uint8)
    for x1, y1, x2, y2 in rectangles:
        image[y1:y2, x1:x2] = colour
    return image


def rectangles_of(found):
    return sorted([round(float(value)) for value in box] for box in found.boxes)


def close(found, expected, within):
    got = rectangles_of(found)
    assert len(got) == len(expected), got
    assert np.abs(np.array(got) - np.array(sorted(map(list, expected)))).max() <= within


def test_small_objects_that_the_whole_image_hides_are_found_in_tiles():
    small = [(100 + 150 * i, 80 + 90 * j, 106 + 150 * i, 86 + 90 * j) for i in range(8) for j in range(8)]
    image = picture(*small, size_hw=(900, 1400))
    coarse = replace(seer(), runtime=partial(bright_rectangles, least=5))  # networks have a smallest object too
    assert len(coarse(image)) == 0
    close(combine(coarse, tile=SIDE)(image), small, 0)


@pytest.mark.parametrize("overlap", [0.0, 0.2, 0.5])
def test_an_object_that_tile_borders_cut_comes_out_once(overlap):
    # From one smaller than the overlap to one that spans many tiles, at places where borders certainly are.
    rectangles = [
        (240, 30, 275, 60),
        (190, 200, 330, 330),
        (400, 100, 1300, 180),
        (40, 400, 120, 880),
        (500, 300, 1100, 820),
    ]
    close(combine(seer(), tile=SIDE, overlap=overlap)(picture(*rectangles)), rectangles, 6)


@pytest.mark.parametrize("seed", range(8))
def test_rectangles_anywhere_come_out_once_each(seed):
    rng = np.random.default_rng(seed)
    rectangles = []
    while len(rectangles) < 12:
        x, y = rng.integers(0, 1250), rng.integers(0, 780)
        w, h = rng.integers(12, 140, 2)
        one = (int(x), int(y), int(min(x + w, 1400)), int(min(y + h, 900)))
        if all(
            one[2] + 20 < a[0] or a[2] + 20 < one[0] or one[3] + 20 < a[1] or a[3] + 20 < one[1] for a in rectangles
        ):
            rectangles.append(one)
    close(combine(seer(), tile=SIDE, overlap=0.2)(picture(*rectangles)), rectangles, 6)


def test_an_image_no_larger_than_a_tile_is_looked_at_once():
    calls = []

    def counting(inputs):
        calls.append(len(inputs["images"]))
        return bright_rectangles(inputs)

    image = picture((20, 20, 60, 70), size_hw=(200, 200))
    found = combine(replace(seer(), runtime=counting), tile=256)(image)
    assert calls == [1]
    assert rectangles_of(found) == rectangles_of(seer()(image))


def test_an_empty_image_has_nothing_in_it():
    for options in ({"tile": 128}, {"augment": True}, {"augment": True, "merge": "wbf", "tile": 128}):
        assert len(combine(seer(), **options)(picture())) == 0


@pytest.mark.parametrize("merge", ["nms", "wbf"])
def test_what_is_seen_mirrored_and_smaller_comes_back_to_its_place(merge):
    rectangles = [(100, 80, 400, 330), (700, 500, 1200, 860)]
    found = combine(seer(), augment=True, merge=merge)(picture(*rectangles))
    close(found, rectangles, 6)
    assert found.scores.min() > 0.5


def test_a_variant_alone_is_mirrored_back_exactly():
    image = picture((0, 32, 64, 96), size_hw=(SIDE, SIDE))
    combined = combine(seer(), augment=True)
    found = combined._seen(combined.predictors[0], image, 1.0, True)
    assert rectangles_of(found) == [[0, 32, 64, 96]]


def test_models_with_other_names_for_their_classes_are_aligned_by_name():
    image = picture((100, 80, 400, 330), size_hw=(SIDE * 2, SIDE * 2), colour=(255, 255, 255))
    first, second = seer(("cat", "dog")), seer(("bird", "DOG"))
    found = combine(first, second)(image)
    assert found.names == ("cat", "dog", "bird")
    assert found.labels == ["dog"]
    fused = combine(first, second, merge="wbf")(image)
    assert fused.scores == pytest.approx(found.scores, abs=1e-6)
    alone = combine(first, seer(("cat", "fox")), merge="wbf")(image)
    assert sorted(alone.labels) == ["dog", "fox"]
    assert alone.scores == pytest.approx(found.scores[[0, 0]] / 2, abs=1e-6)  # found by one of two


def test_a_combination_has_one_name_and_works_through_a_stream():
    combined = combine(seer(), seer())
    assert combined.card.name == "yolov5n-bccd+yolov5n-bccd"
    image = picture((100, 80, 400, 330))
    one, missing = combined.stream([image, "no-such-file.jpg"])
    assert isinstance(missing, ImageNotFound)
    assert isinstance(missing, OpenLeptonError)
    assert rectangles_of(one) == rectangles_of(combined.batch([image])[0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tile": 16}, "tile: expected 32"),
        ({"overlap": 1.0}, "overlap: expected"),
        ({"merge": "mean"}, "merge: expected nms or wbf"),
        ({"max_iou": 2.0}, "max_iou: expected"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(UsageError, match=message):
        combine(seer(), **options)


def test_a_classifier_cannot_be_combined():
    with pytest.raises(UsageError, match="expected detect or segment"):
        combine(openlepton.load("efficientnet-lite0"))
    with pytest.raises(UsageError, match="at least one"):
        combine()


@pytest.mark.slow
def test_tiles_of_a_large_picture_take_bounded_memory():
    image = picture((2000, 1500, 2100, 1600), size_hw=(3000, 4000))
    combined = combine(seer(size=640), tile=640)
    combined(image[:700, :700])
    tracemalloc.start()
    found = combined(image)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    close(found, [(2000, 1500, 2100, 1600)], 6)
    assert (
        peak < 16 * 640 * 640 * 3 * 4 * 3 + 20e6
    )  # one batch of tensors, stacked and as the runtime sees it, not 35 tiles


def test_a_real_model_finds_at_least_as_much_in_tiles():
    detect = openlepton.load("yolov5n-bccd", min_score=0.3)
    image = np.ascontiguousarray(cv2.resize(openlepton.read_image("openlepton/assets/photos/coffee.jpg"), (900, 700)))
    alone = detect(image)
    both = combine(detect, tile=320)(image)
    assert both.image_hw == alone.image_hw
    assert len(both) >= len(alone)


@pytest.mark.slow
def test_the_command_line_looks_in_tiles_at_variants_and_with_two_models(capsys):
    photo = "openlepton/assets/photos/coffee.jpg"
    looks = ["--tile", "320", "--overlap", "0.3", "--augment", "--merge", "wbf", "--json"]
    assert run(["detect", photo, "--model", "yolov5n-bccd", "--model", "yolov5n-bccd", *looks]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["model"]["name"] == "yolov5n-bccd+yolov5n-bccd"
    detect = openlepton.load("yolov5n-bccd")
    expected = combine(detect, detect, tile=320, overlap=0.3, augment=True, merge="wbf")(photo).to_dict()
    assert printed["detections"] == expected["detections"]


def test_the_command_line_refuses_a_tile_of_nothing(capsys):
    photo = "openlepton/assets/photos/coffee.jpg"
    assert run(["detect", photo, "--model", "yolov5n-bccd", "--tile", "8"]) == 2
    assert "tile: expected 32 pixels or more" in capsys.readouterr().err
