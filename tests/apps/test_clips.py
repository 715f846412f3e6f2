"""The clips that ship, with their truth in place of a detector: every event, speed, distance and warning is known beforehand."""

import csv
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest

import openlepton
from openlepton.apps.dashcam import read_dashcam
from openlepton.apps.driving import Drive
from openlepton.apps.rules import read_rules
from openlepton.apps.watch import watch
from openlepton.results import Detections
from openlepton.video.analytics import Analytics, speed_kmh
from openlepton.video.stream import Frame, frames

ROOT = Path(__file__).resolve().parents[2]
CLIPS = Path(openlepton.__file__).parent / "assets" / "clips"
NAMES = ("person", "car", "stop", "speedlimit")
HW = (360, 640)


def truth(name):
    rows = defaultdict(list)
    with (ROOT / "tests" / "fixtures" / "clips" / f"{name}.csv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            rows[int(row["frame"])].append(row)
    return rows


def boxes_of(rows):
    return np.array([[float(row[side]) for side in ("x1", "y1", "x2", "y2")] for row in rows], np.float32).reshape(
        -1, 4
    )


def true_detections(rows, *, trembling=0.0, tracks=False, rng=None):
    boxes = boxes_of(rows)
    if trembling:
        boxes += rng.normal(0, trembling, boxes.shape) * (boxes[:, 3:] - boxes[:, 1:2])
    numbers = [int(row["track"]) for row in rows] if tracks else None
    return Detections(
        boxes, [0.9] * len(rows), [NAMES.index(row["label"]) for row in rows], NAMES, HW, track_ids=numbers
    )


@pytest.mark.parametrize(("name", "count"), [("yard", 130), ("road", 105)])
def test_a_clip_has_as_many_frames_as_its_truth_and_things_are_where_it_says(name, count):
    """Where the truth puts somebody who moves, the picture changes more than elsewhere."""
    pictures = [frame.image.astype(np.float32) for frame in frames(CLIPS / f"{name}.mp4")]
    rows = truth(name)
    assert len(pictures) == count
    assert {picture.shape for picture in pictures} == {(*HW, 3)}
    assert max(rows) == count - 1
    if name == "yard":  # its camera stands still
        for frame in range(30, 100, 10):
            change = np.abs(pictures[frame] - pictures[frame - 3]).max(axis=2)
            for row, (x1, y1, x2, y2) in zip(rows[frame], boxes_of(rows[frame]).astype(int), strict=True):
                if float(row["speed_ms"]) > 1 and x2 - x1 > 10:
                    assert change[y1:y2, x1:x2].mean() > 5 * change[:100, :60].mean(), (frame, row)


@pytest.mark.slow
def test_the_rules_find_in_the_yard_what_happens_there_and_nothing_else(tmp_path):
    rows, rng, at = truth("yard"), np.random.default_rng(0), iter(range(130))
    rules = read_rules(ROOT / "examples" / "rules.toml")
    steps = watch(
        {"yard": CLIPS / "yard.mp4"},
        rules,
        lambda _: true_detections(rows[next(at)], trembling=0.01, rng=rng),
        out=tmp_path,
    )
    last, events, owners = None, {}, {}
    for last in steps:
        for number, box in zip(last.found.track_ids.tolist(), last.found.boxes, strict=True):
            here = rows[last.frame.index]
            owners[number] = int(here[int(np.abs(boxes_of(here) - box).sum(axis=1).argmin())]["track"])
        events |= {event.rule: event for event in last.opened}
    told = {rule: (owners[event.track], event.start_s) for rule, event in events.items()}
    assert told == {
        "running": (2, pytest.approx(3.0, abs=0.5)),  # from 2.5 s on, 13 km/h
        "intrusion": (2, pytest.approx(4.7, abs=0.3)),  # stops in the square at 4.9 s
        "loitering": (2, pytest.approx(4.7, abs=0.3)),
        "fall": (3, pytest.approx(7.1, abs=0.3)),  # from 6.4 to 7.4 s
        "wrong-way": (5, pytest.approx(10.5, abs=0.3)),
    }
    assert last.totals["lines"]["road"]["car"] == {"in": 1, "out": 1}


def test_speeds_in_the_yard_are_those_of_the_actors_to_a_tenth():
    analytics, scene = (
        Analytics(read_rules(ROOT / "examples" / "rules.toml")),
        read_rules(ROOT / "examples" / "rules.toml"),
    )
    errors = []
    for frame, rows in sorted(truth("yard").items()):
        moment = analytics.update(true_detections(rows, tracks=True), frame / 10)
        for track, row in zip(moment.tracks, rows, strict=True):
            inside = float(row["x1"]) > 2 and float(row["x2"]) < 638
            if frame > 15 and inside and len(track.times) > 10 and row["track"] in "14":
                errors.append(speed_kmh(track, scene.ground, HW) / (3.6 * float(row["speed_ms"])) - 1)
    assert len(errors) > 50
    assert np.median(np.abs(errors)) < 0.05
    assert np.quantile(np.abs(errors), 0.9) < 0.1


def drive_road(*, trembling=0.0):
    """Return the steps of the drive, and pairs of what is true and what was measured."""
    rows, rng, frame = truth("road"), np.random.default_rng(0), 0
    following = Drive(
        [lambda _: true_detections(rows[frame], trembling=trembling, rng=rng)],
        read_dashcam(ROOT / "examples" / "camera.toml"),
    )
    image, steps, pairs = np.zeros((*HW, 3), np.uint8), [], defaultdict(list)
    for frame in range(105):
        steps.append(following.step(Frame(image, frame, frame / 10, 0.0, "road")))
        for user in steps[-1].users:
            same = [row for row in rows[frame] if row["label"] == user.label]
            row = same[int(np.abs(boxes_of(same) - user.box).sum(axis=1).argmin())]
            if user.distance_m is not None:
                pairs[user.label, user.method].append((float(row["distance_m"]), user.distance_m))
    return steps, {what: np.array(values) for what, values in pairs.items()}


@pytest.mark.parametrize(("trembling", "worst"), [(0.0, 0.04), (0.02, 0.08)])
def test_distances_on_the_road_are_right_to_a_few_percent(trembling, worst):
    _, pairs = drive_road(trembling=trembling)
    assert set(pairs) == {("car", "ground"), ("person", "ground"), ("stop", "height"), ("speedlimit", "height")}
    for what, values in pairs.items():
        assert np.median(np.abs(values[:, 1] / values[:, 0] - 1)) < worst, what


def test_the_road_gives_its_four_warnings_in_time():
    steps, _ = drive_road(trembling=0.01)
    warned = [(event.kind, event.start_s) for step in steps for event in step.warnings]
    assert warned == [
        ("speed-limit", pytest.approx(0.1, abs=0.11)),
        ("stop-sign", pytest.approx(0.1, abs=0.11)),
        # The car ahead slows down to 15 km/h at second 2, 20 m ahead: 4 s away at 2.9 s, measured over the last 0.8 s
        ("vehicle-closing", pytest.approx(3.3, abs=0.4)),
        ("pedestrian-ahead", pytest.approx(5.1, abs=0.3)),
    ]
