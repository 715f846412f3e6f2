"""Each rule on a moment that is made for it, and on the nearest moments that are not."""

from dataclasses import replace

import numpy as np
import pytest

from openlepton.apps import security
from openlepton.apps.rules import (
    Abandoned,
    Crowding,
    Fall,
    Intrusion,
    Loitering,
    Running,
    SuddenStop,
    WrongWay,
)
from openlepton.video.analytics import Crossing, Moment, Track
from openlepton.video.zones import Ground, Scene, Zone

HW = (400, 800)
YARD = Zone(name="yard", points=((0.0, 0.5), (1.0, 0.5), (1.0, 1.0), (0.0, 1.0)))
GROUND = Ground(  # 20 px a metre
    points=((0, 0), (800, 0), (800, 400), (0, 400)), metres=((0, 0), (40, 0), (40, 20), (0, 20)), units="pixels"
)
SCENE = Scene(zone=(YARD,), ground=GROUND)


def track(number, label="person", *, size=(40, 100), path=None, seconds=3.0, fps=10, at=(400, 300)):
    """A track whose foot follows `path(seconds before now)`, or stands at `at`; `size` may be a function of that too."""
    ago = np.arange(round(seconds * fps), -1, -1) / fps
    feet = np.array([at if path is None else path(before) for before in ago], np.float64)
    sizes = np.array([size(before) if callable(size) else size for before in ago], np.float64)
    boxes = np.column_stack(
        [feet[:, 0] - sizes[:, 0] / 2, feet[:, 1] - sizes[:, 1], feet[:, 0] + sizes[:, 0] / 2, feet[:, 1]]
    )
    return Track(number, label, 100 - ago, boxes)


def moment(*tracks, crossings=(), since=90.0):
    inside = {one.id: since for one in tracks if one.feet[-1][1] >= 200}
    return Moment(100.0, HW, SCENE, tracks, {"yard": inside}, tuple(crossings))


def ids(findings, *, starting=None):
    return [finding.track for finding in findings if starting is None or finding.starts == starting]


def test_intrusion_is_who_of_the_classes_has_its_foot_in_the_zone():
    rule = Intrusion(kind="intrusion", zone="yard")
    now = moment(track(1), track(2, "car"), track(3, at=(400, 150)))
    assert ids(security.intrusion(now, rule)) == [1]
    assert ids(security.intrusion(now, rule.model_copy(update={"classes": ("person", "car")}))) == [1, 2]


def test_wrong_way_is_the_forbidden_direction_of_that_line_alone():
    rule = WrongWay(kind="wrong-way", line="gate", forbidden="out", classes=("car",))
    crossings = [
        Crossing("gate", 1, "car", "out", 100.0),
        Crossing("gate", 2, "car", "in", 100.0),
        Crossing("other", 3, "car", "out", 100.0),
        Crossing("gate", 4, "person", "out", 100.0),
    ]
    assert ids(security.wrong_way(moment(crossings=crossings), rule)) == [1]


@pytest.mark.parametrize(("after_s", "found"), [(9.9, [1]), (10.0, [1]), (10.1, [])])
def test_loitering_begins_when_the_stay_is_long_enough_and_dates_from_its_beginning(after_s, found):
    findings = security.loitering(moment(track(1)), Loitering(kind="loitering", zone="yard", after_s=after_s))
    assert ids(findings) == found
    assert [finding.since_s for finding in findings] == [90.0] * len(found)


def test_crowding_needs_the_number_of_persons_in_the_zone_at_once():
    rule = Crowding(kind="crowding", zone="yard", count=3)
    crowd = [track(1), track(2), track(3, "car"), track(4, at=(400, 150)), track(5)]
    assert security.crowding(moment(*crowd[:4]), rule) == []
    found = security.crowding(moment(*crowd), rule)
    assert [(finding.track, finding.numbers) for finding in found] == [(None, {"count": 3, "limit": 3})]


@pytest.mark.parametrize(
    ("pace", "found", "starts"),
    [(0.8, [], None), (1.0, [], None), (1.2, [1], False), (1.49, [1], False), (1.51, [1], True)],
)
def test_running_is_one_and_a_half_heights_a_second_and_goes_on_above_seven_tenths_of_it(pace, found, starts):
    """1.2 is between: not enough to begin, enough to go on."""
    runner = track(1, path=lambda ago: (400 - 100 * pace * ago, 300))
    findings = security.running(moment(runner), Running(kind="running"))
    assert ids(findings) == found
    assert [finding.starts for finding in findings] == ([starts] if found else [])


@pytest.mark.parametrize(("kmh", "starts"), [(11.9, False), (12.1, True)])
def test_running_over_a_ground_is_in_kilometres_an_hour(kmh, starts):
    runner = track(1, path=lambda ago: (400 - 20 * kmh / 3.6 * ago, 300))
    findings = security.running(moment(runner), Running(kind="running", min_kmh=12))
    assert [finding.starts for finding in findings] == [starts]
    assert findings[0].numbers["kmh"] == pytest.approx(kmh)


def test_who_is_cut_off_by_the_edge_of_the_picture_does_not_run():
    """A box that grows into the picture moves its middle, not its feet."""
    entering = track(1, path=lambda ago: (20, 300), size=lambda ago: (40, 100))
    leaving = track(2, path=lambda ago: (700 - 200 * ago, 399.9))
    assert security.running(moment(entering, leaving), Running(kind="running", min_pace=0.01)) == []


def test_abandoned_stands_still_with_no_owner_near():
    rule = Abandoned(kind="abandoned")
    bag = track(1, "suitcase", size=(30, 40), at=(400, 300))
    assert ids(security.abandoned(moment(bag), rule)) == [1]
    assert security.abandoned(moment(bag, track(2, at=(540, 300))), rule) == []  # 140 px are 1.4 heights of 100
    assert ids(security.abandoned(moment(bag, track(2, at=(560, 300))), rule)) == [1]
    assert ids(security.abandoned(moment(bag, track(2, "car", at=(410, 300))), rule)) == [1]
    carried = track(1, "suitcase", size=(30, 40), path=lambda ago: (400 - 30 * ago, 300))
    assert security.abandoned(moment(carried), rule) == []
    new = track(1, "suitcase", size=(30, 40), seconds=0.8)
    assert security.abandoned(moment(new), rule) == []


def test_a_fall_is_upright_before_and_wide_and_low_now():
    rule = Fall(kind="fall")
    fallen = track(1, size=lambda ago: (40, 100) if ago > 0.8 else (110, 45))
    findings = security.fall(moment(fallen), rule)
    assert ids(findings, starting=True) == [1]
    assert findings[0].numbers == {"before": pytest.approx(2.5), "now": pytest.approx(45 / 110)}


@pytest.mark.parametrize(
    "size",
    [
        pytest.param((40, 100), id="stands"),
        pytest.param(lambda ago: (40, 100) if ago > 0.8 else (55, 60), id="sits or bends"),
        pytest.param(lambda ago: (40, 100) if ago > 0.8 else (110, 95), id="spreads the arms"),
        pytest.param(lambda ago: (40, 100) if ago > 0.1 else (110, 45), id="one bad box"),
    ],
)
def test_no_fall(size):
    assert ids(security.fall(moment(track(1, size=size)), Fall(kind="fall")), starting=True) == []


def test_a_fall_is_seen_though_the_tracker_lost_who_fell():
    lying = track(2, size=(110, 45), seconds=0.3)
    stood = track(1, seconds=2.0)
    stood = Track(1, "person", stood.times - 0.5, stood.boxes)
    for lost, starts in (([stood], True), ([], False), ([Track(1, "person", stood.times, stood.boxes + 200)], False)):
        now = replace(moment(lying), lost=tuple(lost))
        assert [finding.starts for finding in security.fall(now, Fall(kind="fall"))] == [starts]


def test_who_lies_keeps_a_fall_going_but_does_not_begin_one():
    assert ids(security.fall(moment(track(1, size=(110, 45))), Fall(kind="fall")), starting=False) == [1]


def test_who_leaves_through_the_lower_edge_has_not_fallen():
    sinking = track(1, path=lambda ago: (400, 399), size=lambda ago: (40, 100) if ago > 0.8 else (40, 30))
    assert security.fall(moment(sinking), Fall(kind="fall")) == []


def brake(before_s, speed=120, fps=10):
    """A car that stood at x = 600 since `before_s`, after driving at `speed` pixels a second."""
    return track(1, "car", size=(90, 60), path=lambda ago: (600 - speed * max(ago - before_s, 0), 300))


def test_a_sudden_stop_is_fast_a_second_ago_and_standing_now():
    rule = SuddenStop(kind="sudden-stop")
    findings = security.sudden_stop(moment(brake(0.6)), rule)
    assert ids(findings, starting=True) == [1]
    assert findings[0].numbers["pace"] == pytest.approx(2.0, abs=0.01)
    assert security.sudden_stop(moment(brake(0.0)), rule) == []  # it still drives
    assert ids(security.sudden_stop(moment(brake(3.0)), rule), starting=True) == []  # it stood all the time
    assert ids(security.sudden_stop(moment(brake(3.0)), rule), starting=False) == [1]
    assert ids(security.sudden_stop(moment(brake(0.6, speed=50)), rule), starting=True) == []  # it was slow


def test_slowing_down_over_four_seconds_is_not_sudden():
    gentle = track(1, "car", size=(90, 60), path=lambda ago: (600 - 15 * ago**2, 300))  # 30 px/s less each second
    assert ids(security.sudden_stop(moment(gentle), SuddenStop(kind="sudden-stop")), starting=True) == []


def test_a_sudden_stop_over_a_ground_is_in_kilometres_an_hour():
    findings = security.sudden_stop(moment(brake(0.6)), SuddenStop(kind="sudden-stop", min_kmh=20))
    assert ids(findings, starting=True) == [1]
    assert findings[0].numbers["kmh"] == pytest.approx(21.6, rel=0.01)  # 120 px/s are 6 m/s
    assert (
        ids(security.sudden_stop(moment(brake(0.6)), SuddenStop(kind="sudden-stop", min_kmh=23)), starting=True) == []
    )


def test_all_rules_look_only_where_they_are_told():
    outside = [track(number, at=(400, 150), path=None) for number in (1, 2, 3)]
    yard = {"zone": "yard"}
    for rule in (
        Intrusion(kind="intrusion", **yard),
        Loitering(kind="loitering", after_s=1, **yard),
        Crowding(kind="crowding", count=2, **yard),
        Abandoned(kind="abandoned", classes=("person",), owners=("car",), **yard),
    ):
        assert security.find(moment(*outside), [rule], {}) == []
        inside = [track(number) for number in (1, 2, 3)]
        assert security.find(moment(*inside), [rule], {}) != []


def test_no_rule_minds_a_track_of_one_frame():
    fresh = Track(1, "person", np.array([100.0]), np.array([[380.0, 200, 420, 300]]))
    rules = [Running(kind="running"), Fall(kind="fall"), SuddenStop(kind="sudden-stop", classes=("person",)),
             Abandoned(kind="abandoned", classes=("person",)), Running(kind="running", min_kmh=3)]  # fmt: skip
    for rule in rules:
        assert security.find(moment(fresh), [rule], {}) == []
