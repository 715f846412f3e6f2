import json
import sqlite3
from dataclasses import replace
from pathlib import Path

import numpy as np

from openlepton.apps import recorder
from openlepton.apps.events import Event
from openlepton.apps.recorder import EventLog, Ring, Shot, take, write_clip
from openlepton.apps.rules import Clips
from openlepton.results import Detections
from openlepton.video.stream import frames

EVENT = Event(
    "R-cam-000001", "cam", "yard", "intrusion", "yard", 3, "person", 1.0, None, "2026-03-01T12:00:00.000Z", None, "why", "为何",
)  # fmt: skip


def shot(time_s, size=100):
    return Shot(time_s, bytes(size), Detections.empty(("person",), (48, 64)))


def test_an_event_is_one_row_that_gets_its_end_and_one_line_when_it_has_ended(tmp_path):
    log = EventLog(tmp_path)
    log.opened(EVENT)
    with sqlite3.connect(tmp_path / "events.sqlite") as base:
        assert base.execute("SELECT id, track, end_s FROM events").fetchall() == [("R-cam-000001", 3, None)]
    assert (tmp_path / "events.jsonl").read_text(encoding="utf-8") == ""
    closed = replace(EVENT, end_s=2.5, ended_at="2026-03-01T12:00:01.500Z")
    log.closed(closed)
    log.close()
    with sqlite3.connect(tmp_path / "events.sqlite") as base:
        assert base.execute("SELECT id, end_s, reason_zh FROM events").fetchall() == [("R-cam-000001", 2.5, "为何")]
    assert [json.loads(line) for line in (tmp_path / "events.jsonl").read_text(encoding="utf-8").splitlines()] == [
        closed.to_dict()
    ]


def test_a_second_run_adds_to_the_first(tmp_path):
    for number in (1, 2):
        log = EventLog(tmp_path)
        log.closed(replace(EVENT, id=f"R{number}-cam-000001", end_s=2.0))
        log.close()
    assert len((tmp_path / "events.jsonl").read_text(encoding="utf-8").splitlines()) == 2
    with sqlite3.connect(tmp_path / "events.sqlite") as base:
        assert base.execute("SELECT count(*) FROM events").fetchone() == (2,)


def test_a_clip_is_the_seconds_before_and_after_and_overlapping_ones_share_frames():
    written = {}
    ring = Ring(
        Clips(before_s=1, after_s=2), lambda path, shots: written.update({path.name: [one.time_s for one in shots]})
    )
    for frame in range(100):
        ring.add(shot(frame / 10))
        if frame in (30, 35):
            ring.begin(Path(f"{frame}.mp4"), frame / 10)
    assert written["30.mp4"] == [frame / 10 for frame in range(20, 51)]
    assert written["35.mp4"] == [frame / 10 for frame in range(25, 56)]


def test_a_clip_that_the_end_cuts_short_is_written_as_far_as_it_goes():
    written = {}
    ring = Ring(Clips(before_s=1, after_s=20), lambda path, shots: written.update({path.name: len(shots)}))
    for frame in range(50):
        ring.add(shot(frame / 10))
        if frame == 40:
            ring.begin(Path("a.mp4"), 4.0)
    ring.finish()
    ring.finish()
    assert written == {"a.mp4": 11 + 9}


def test_what_waits_in_memory_is_bounded_in_bytes_too(monkeypatch):
    monkeypatch.setattr(recorder, "RING_BYTES", 1000)
    kept = []
    ring = Ring(Clips(before_s=30, after_s=0), lambda _, shots: kept.append(len(shots)))
    for frame in range(200):
        ring.add(shot(frame / 10))
    ring.begin(Path("a.mp4"), 19.9)
    ring.finish()
    assert kept == [10]


def test_a_wide_frame_waits_smaller_with_its_boxes(tmp_path):
    image = np.zeros((400, 800, 3), np.uint8)
    image[100:300, 200:600] = (200, 50, 50)
    found = Detections([[200, 100, 600, 300]], [0.9], [0], ("person",), (400, 800), track_ids=[4])
    shots = [take(image, found, time_s, width=200) for time_s in (0.0, 0.1)]
    assert shots[0].found.boxes.tolist() == [[50, 25, 150, 75]]
    assert shots[0].found.image_hw == (100, 200)
    write_clip(tmp_path / "a.mp4", shots)
    played = [frame.image for frame in frames(tmp_path / "a.mp4")]
    assert [picture.shape for picture in played] == [(100, 200, 3)] * 2
    assert np.abs(played[0][50, 140].astype(int) - (200, 50, 50)).max() < 30
