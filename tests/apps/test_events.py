import itertools
import re
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openlepton.apps.events import WORDS, Episodes
from openlepton.apps.rules import Crowding, Intrusion, Running, WrongWay
from openlepton.apps.security import RULES, Finding

RULE = Intrusion(kind="intrusion", name="yard-closed", zone="yard", after_s=0.5, gap_s=1.0)
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def play(episodes, seen, *, fps=10):
    """Feed one flag a frame, True where the rule finds track 3; return `(frame, what, event)` for all that is told."""
    told = []
    for frame, there in enumerate(seen):
        found = [(RULE, Finding(3, "person"))] if there else []
        opened, closed = episodes.update(found, frame / fps, NOON + timedelta(seconds=frame / fps))
        told += [(frame, "opened", event) for event in opened] + [(frame, "closed", event) for event in closed]
    return told


def test_an_event_opens_after_the_rules_patience_and_closes_after_its_gap():
    told = play(Episodes("gate", run="R"), [0] * 10 + [1] * 20 + [0] * 20)
    assert [(frame, what) for frame, what, _ in told] == [(15, "opened"), (40, "closed")]
    opened, closed = told[0][2], told[1][2]
    assert (opened.start_s, opened.end_s, opened.ended_at) == (1.0, None, None)
    assert (closed.start_s, closed.end_s) == (1.0, 2.9)
    assert opened.started_at == closed.started_at == "2026-03-01T12:00:01.000Z"
    assert closed.ended_at == "2026-03-01T12:00:02.900Z"
    assert opened.id == closed.id == "R-gate-000001"
    assert (opened.rule, opened.kind, opened.zone, opened.track, opened.label) == (
        "yard-closed", "intrusion", "yard", 3, "person",
    )  # fmt: skip
    assert (opened.reason, opened.reason_zh) == ("person 3 is in yard", "person 3 进入了 yard")


def test_what_does_not_last_is_no_event():
    assert play(Episodes("gate", run="R"), ([1] * 4 + [0] * 20) * 5) == []


def test_an_interruption_within_the_gap_does_not_end_an_event():
    told = play(Episodes("gate", run="R"), [1] * 10 + [0] * 9 + [1] * 10 + [0] * 20)
    assert [(frame, what) for frame, what, _ in told] == [(5, "opened"), (39, "closed")]


def test_coming_back_later_is_another_event():
    told = play(Episodes("gate", run="R"), ([1] * 10 + [0] * 20) * 2)
    assert [event.id for _, what, event in told if what == "opened"] == ["R-gate-000001", "R-gate-000002"]


def test_what_goes_on_when_the_stream_ends_is_closed_with_its_last_sight():
    episodes = Episodes("gate", run="R")
    play(episodes, [1] * 10 + [0] * 3)
    closed = episodes.finish(1.2, NOON)
    assert [event.end_s for event in closed] == [0.9]
    assert episodes.finish(1.3, NOON) == []


@given(st.lists(st.lists(st.integers(0, 5), max_size=4), max_size=80))
def test_whatever_is_found_each_event_is_opened_once_and_closed_once_and_in_order(frames):
    episodes = Episodes("gate", run="R")
    opened, closed = [], []
    for frame, tracks in enumerate(frames):
        began, over = episodes.update([(RULE, Finding(track, "person")) for track in tracks], frame / 5, NOON)
        opened += began
        closed += over
        assert {event.id for event in closed} <= {event.id for event in opened}
    closed += episodes.finish(len(frames) / 5, NOON)
    assert sorted(event.id for event in closed) == [event.id for event in opened]
    assert [event.id for event in opened] == [f"R-gate-{number:06d}" for number in range(1, len(opened) + 1)]
    assert all(event.end_s - event.start_s >= RULE.after_s for event in closed)
    for track in range(6):  # one track is in one event at a time
        own = sorted((event.start_s, event.end_s) for event in closed if event.track == track)
        assert all(before[1] + RULE.gap_s < after[0] for before, after in itertools.pairwise(own))


def test_a_weaker_finding_goes_on_with_an_event_but_does_not_begin_one():
    rule = Running(kind="running", name="running", after_s=0.2, gap_s=0.5)
    weak, strong = (Finding(1, "person", {"pace": 1.2}, starts=starts) for starts in (False, True))
    episodes = Episodes("gate", run="R")
    told = [episodes.update([(rule, weak)], frame / 10, NOON) for frame in range(10)]
    assert told == [([], [])] * 10
    told = [
        episodes.update([(rule, strong)], 1.0, NOON),
        *(episodes.update([(rule, weak)], 1 + f / 10, NOON) for f in range(1, 20)),
    ]
    assert [len(opened) for opened, _ in told] == [0, 0, 1, *[0] * 17]
    assert episodes.finish(3, NOON)[0].end_s == 2.9


def test_a_crossing_is_an_event_of_no_length():
    rule = WrongWay(kind="wrong-way", name="wrong-way", line="gate", forbidden="out")
    episodes = Episodes("cam", run="R", labels_zh={"car": "汽车"})
    opened, _ = episodes.update([(rule, Finding(5, "car"))], 2.0, NOON)
    assert (opened[0].zone, opened[0].reason) == ("gate", "car 5 crossed gate the wrong way (out)")
    assert opened[0].reason_zh == "汽车 5 逆向越过了 gate（出）"
    _, closed = episodes.update([], 3.1, NOON)
    assert (closed[0].start_s, closed[0].end_s) == (2.0, 2.0)


def test_a_crowd_is_one_event_whoever_comes_and_goes():
    rule = Crowding(kind="crowding", name="crowding", zone="hall", count=3, after_s=0)
    episodes = Episodes("cam", run="R")
    opened = [
        episodes.update([(rule, Finding(numbers={"count": 3 + n % 2, "limit": 3}))], n / 5, NOON)[0] for n in range(9)
    ]
    assert [len(events) for events in opened] == [1] + [0] * 8
    assert (opened[0][0].track, opened[0][0].reason) == (None, "3 at once in hall; 3 are too many")
    assert opened[0][0].reason_zh == "hall 同时有 3 个目标，达到上限 3"


@pytest.mark.parametrize("kind", [*RULES, "abnormal"])
def test_every_kind_of_rule_has_its_words_in_both_languages(kind):
    english, chinese = WORDS[kind]
    assert not re.search(r"[一-鿿]", english)
    assert re.search(r"[一-鿿]", chinese)
    numbers = [set(re.findall(r"\{(\w+):", text)) for text in (english, chinese)]
    assert numbers[0] == numbers[1]
