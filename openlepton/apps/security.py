"""The rules of a watch: pure functions from a moment to what is wrong in it.

Each takes a `Moment` and its rule and returns findings; that a finding has to last, and that it may be interrupted for a moment,
is the business of `events.Episodes`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from openlepton.apps.abnormal import Normal
from openlepton.apps.rules import (
    Abandoned,
    Abnormal,
    AnyRule,
    Crowding,
    Fall,
    Intrusion,
    Loitering,
    Running,
    SuddenStop,
    WrongWay,
)
from openlepton.video.analytics import Moment, Track, pace, speed_kmh
from openlepton.video.zones import Ground

HOLD = 0.7
"""What is above this share of a threshold keeps going what has begun."""

UPRIGHT, LYING, SUNK = 1.4, 0.9, 0.65
"""A fall: height over width before and after, and how much of its height is left."""

STANDING = 0.2
"""Of its former speed: what is slower has stopped. Of its height: what has moved less has stood still."""


@dataclass(frozen=True)
class Finding:
    """That a rule applies now."""

    track: int | None = None
    """Whom it concerns; None for a zone as a whole."""
    label: str = ""
    numbers: Mapping[str, float] = field(default_factory=dict)
    """For the words of the reason."""
    starts: bool = True
    """False where it is enough to keep an event going, but not to begin one."""
    since_s: float | None = None
    """When it began, where that is known to be earlier than now."""


def intrusion(moment: Moment, rule: Intrusion) -> list[Finding]:
    """Return who is in the zone."""
    return [_about(track) for track in _chosen(moment, rule.zone, rule.classes)]


def wrong_way(moment: Moment, rule: WrongWay) -> list[Finding]:
    """Return who crosses the line in the forbidden direction."""
    return [
        Finding(crossing.track, crossing.label)
        for crossing in moment.crossings
        if crossing.line == rule.line and crossing.direction == rule.forbidden
        if rule.classes is None or crossing.label in rule.classes
    ]


def loitering(moment: Moment, rule: Loitering) -> list[Finding]:
    """Return who has been in the zone for as long as the rule says."""
    since = moment.inside.get(rule.zone, {})
    return [
        _about(track, since_s=since[track.id], stayed_s=moment.time_s - since[track.id])
        for track in _chosen(moment, rule.zone, rule.classes)
        if moment.time_s - since[track.id] >= rule.after_s
    ]


def crowding(moment: Moment, rule: Crowding) -> list[Finding]:
    """Return one finding for the zone if too many are in it."""
    count = len(_chosen(moment, rule.zone, rule.classes))
    return [Finding(numbers={"count": count, "limit": rule.count})] if count >= rule.count else []


def running(moment: Moment, rule: Running) -> list[Finding]:
    """Return who is fast."""
    found = []
    for track in _chosen(moment, rule.zone, rule.classes):
        if _cut_off(track, moment.image_hw):
            continue
        speed, limit = _speed(track, moment, rule.min_kmh, rule.min_pace, span_s=0.7)
        if speed >= HOLD * limit:  # not so for NaN
            found.append(_about(track, starts=speed >= limit, **_told(speed, rule.min_kmh)))
    return found


def abandoned(moment: Moment, rule: Abandoned) -> list[Finding]:
    """Return what stands still with none of its owners near."""
    owners = [track for track in moment.tracks if track.label in rule.owners]
    return [
        _about(thing, after=rule.after_s)
        for thing in _chosen(moment, rule.zone, rule.classes)
        if _still(thing) and not any(_near(owner, thing, rule.reach) for owner in owners)
    ]


def fall(moment: Moment, rule: Fall) -> list[Finding]:
    """Return whose box was upright up to 2.5 s ago and is wide and low now; it goes on while the box stays wide.

    Trackers often lose who falls: the upright past may be that of another track, which was lost a moment ago beside this one.
    """
    found = []
    for track in _chosen(moment, rule.zone, rule.classes):
        now = track.between(0.3)
        if _shape(now) > LYING or _cut_off(track, moment.image_hw):
            continue
        pasts = [track.between(2.5, 0.4), *(lost.between(1.5) for lost in moment.lost if _beside(track, lost))]
        before = next((past for past in pasts if len(past.times) > 2 and _shape(past) >= UPRIGHT), None)
        if before is not None and now.height <= SUNK * before.height:
            found.append(_about(track, before=_shape(before), now=_shape(now)))
        else:
            found.append(_about(track, starts=False))
    return found


def sudden_stop(moment: Moment, rule: SuddenStop) -> list[Finding]:
    """Return what was fast 0.6 to 1.6 s ago and stands now; it goes on while it stands."""
    found = []
    for track in _chosen(moment, rule.zone, rule.classes):
        if _cut_off(track, moment.image_hw):
            continue
        now, _ = _speed(track.between(0.5), moment, rule.min_kmh, rule.min_pace, span_s=0.5)
        before, limit = _speed(_until(track, 0.6), moment, rule.min_kmh, rule.min_pace, span_s=1.0)
        if now <= STANDING * limit:
            speeds = {**_told(before, rule.min_kmh), "now": now}
            found.append(_about(track, starts=before >= limit, **speeds))
    return found


def abnormal(moment: Moment, rule: Abnormal, normal: Normal) -> list[Finding]:
    """Return who moves as hardly anything did in the clip that `normal` was learned from."""
    found = []
    for track in _chosen(moment, rule.zone, rule.classes):
        score = normal.score(track, moment.image_hw)
        if score >= HOLD * normal.limit:
            found.append(_about(track, starts=score >= normal.limit, score=score, limit=normal.limit))
    return found


RULES: Mapping[str, Callable[[Moment, Any], list[Finding]]] = {
    "intrusion": intrusion,
    "wrong-way": wrong_way,
    "loitering": loitering,
    "crowding": crowding,
    "running": running,
    "abandoned": abandoned,
    "fall": fall,
    "sudden-stop": sudden_stop,
}
"""Every rule that needs nothing but the moment, by its kind; `abnormal` needs what was learned as well."""


def find(moment: Moment, rules: Sequence[AnyRule], normals: Mapping[str, Normal]) -> list[tuple[AnyRule, Finding]]:
    """Return what each rule finds in a moment; `normals` has what each rule of kind `abnormal` learned, by the rule's name."""
    found: list[tuple[AnyRule, Finding]] = []
    for rule in rules:
        if isinstance(rule, Abnormal):
            found += [(rule, finding) for finding in abnormal(moment, rule, normals[rule.name])]
        else:
            found += [(rule, finding) for finding in RULES[rule.kind](moment, rule)]
    return found


def _chosen(moment: Moment, zone: str | None, classes: Sequence[str] | None) -> list[Track]:
    return [track for track in moment.within(zone) if classes is None or track.label in classes]


def _about(track: Track, *, starts: bool = True, since_s: float | None = None, **numbers: float) -> Finding:
    return Finding(track.id, track.label, numbers, starts, since_s)


def _speed(
    track: Track, moment: Moment, min_kmh: float | None, min_pace: float, *, span_s: float
) -> tuple[float, float]:
    """Return a speed and its threshold, both in km/h or both in heights a second."""
    if not len(track.times):
        return float("nan"), min_kmh or min_pace
    if min_kmh is not None:
        return speed_kmh(track, _ground(moment), moment.image_hw, span_s=span_s), min_kmh
    return pace(track, span_s=span_s), min_pace


def _told(speed: float, min_kmh: float | None) -> dict[str, float]:
    return {"pace": speed} if min_kmh is None else {"kmh": speed}


def _ground(moment: Moment) -> Ground:
    assert moment.scene.ground is not None, "the rules' file is checked for it"
    return moment.scene.ground


def _until(track: Track, newest_s: float) -> Track:
    return track.between(float("inf"), newest_s)


def _still(track: Track) -> bool:
    if track.times[-1] - track.times[0] < 1.0:
        return False
    moved = np.ptp(track.between(1.0).centres, axis=0).max()
    return bool(moved <= STANDING * track.height)


def _near(owner: Track, thing: Track, reach: float) -> bool:
    return bool(np.hypot(*(owner.feet[-1] - thing.feet[-1])) <= reach * owner.height)


def _beside(track: Track, lost: Track) -> bool:
    """Return whether a track is where another one was lost, within one of its heights."""
    away = np.maximum(np.maximum(track.boxes[0, :2] - lost.feet[-1], lost.feet[-1] - track.boxes[0, 2:]), 0)
    return track.label == lost.label and bool(np.hypot(*away) <= lost.height)


def _shape(track: Track) -> float:
    """Return the median height over width; infinite for nothing."""
    if not len(track.times):
        return float("inf")
    sides = track.boxes[:, 2:] - track.boxes[:, :2]
    return float(np.median(sides[:, 1] / np.maximum(sides[:, 0], 1e-9)))


def _cut_off(track: Track, image_hw: tuple[int, int]) -> bool:
    """Return whether the picture's edge cuts the object off, so that its shape and its foot are not its own."""
    x1, y1, x2, y2 = track.boxes[-1]
    slack = 0.005 * max(image_hw)
    return bool(x1 <= slack or y1 <= slack or x2 >= image_hw[1] - slack or y2 >= image_hw[0] - slack)
