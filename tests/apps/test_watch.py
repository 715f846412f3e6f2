"""The whole watch on clips of coloured rectangles, which a threshold finds exactly: the detector cannot err, the rest is real."""

import json
import sqlite3
import threading

import cv2
import numpy as np
import pytest

from openlepton.apps.keeper import Keeper
from openlepton.apps.rules import Rules
from openlepton.apps.watch import learn, watch
from openlepton.errors import OutputError, RulesInvalid, VideoNotFound
from openlepton.images import read_image
from openlepton.results import Detections
from openlepton.video.stream import VideoWriter, frames

NAMES = ("person", "car")
COLORS = {0: (220, 30, 30), 1: (30, 30, 220)}
HW = (120, 160)


def find_rectangles(image):
    """Return red rectangles as persons and blue ones as cars."""
    boxes, classes = [], []
    for index, color in COLORS.items():
        other = 2 - np.argmax(color)
        mask = (image[..., np.argmax(color)] > 130) & (image[..., other] < 110) & (image[..., 1] < 110)
        count, _, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
        for x, y, w, h, area in stats[1:count]:
            if area > 30:
                boxes.append((x, y, x + w, y + h))
                classes.append(index)
    return Detections(
        np.array(boxes, np.float32).reshape(-1, 4), np.full(len(boxes), 0.9), classes, NAMES, image.shape[:2]
    )


def paint(*objects, hw=HW):
    """Return a picture with `(class, foot x, foot y, width, height)` on grey."""
    image = np.full((*hw, 3), 128, np.uint8)
    for index, x, y, w, h in objects:
        image[max(0, round(y - h)) : max(0, round(y)), max(0, round(x - w / 2)) : max(0, round(x + w / 2))] = COLORS[
            index
        ]
    return image


def write_clip(path, pictures, fps=10):
    with VideoWriter(path, fps=fps) as writer:
        for picture in pictures:
            writer.write(picture)
    return path


@pytest.fixture
def walk(tmp_path):
    """A clip of 6 s: somebody walks from the left to the right, through the middle from about second 2 to second 4."""
    pictures = [paint((0, 10 + 140 * frame / 59, 100, 16, 40)) for frame in range(60)]
    return write_clip(tmp_path / "walk.mp4", pictures)


ZONE = {"name": "middle", "points": [(0.33, 0), (0.67, 0), (0.67, 1), (0.33, 1)]}
LINE = {"name": "door", "points": [(0.5, 1), (0.5, 0)]}


def rules(*rule, **tables):
    return Rules.model_validate({"zone": [ZONE], "line": [LINE], "rule": rule, **tables})


INTRUSION = {"kind": "intrusion", "zone": "middle"}


def run(sources, checked, out, **options):
    return list(watch(sources, checked, find_rectangles, out=out, **options))


def rows(out):
    with sqlite3.connect(out / "events.sqlite") as base:
        base.row_factory = sqlite3.Row
        return [dict(row) for row in base.execute("SELECT * FROM events ORDER BY id")]


def lines(out):
    return [json.loads(line) for line in (out / "events.jsonl").read_text(encoding="utf-8").splitlines()]


def test_an_event_is_found_written_pictured_and_filmed(tmp_path, walk):
    checked = rules(INTRUSION, clips={"before_s": 1, "after_s": 1})
    steps = run({"cam": walk}, checked, tmp_path / "out", video=True)
    opened = [event for step in steps for event in step.opened]
    assert len(steps) == 60
    assert len(opened) == 1
    event = lines(tmp_path / "out")[0]
    # foot x = 10 + 2.373 per frame: inside 52.8 <= x < 107.2 for frames 19 to 40 (the tracker reports from its second frame on)
    assert (event["start_s"], event["end_s"]) == (pytest.approx(1.9, abs=0.11), pytest.approx(4.0, abs=0.11))
    assert (event["rule"], event["zone"], event["label"], event["source"]) == ("intrusion", "middle", "person", "cam")
    assert rows(tmp_path / "out") == [event]
    assert read_image(tmp_path / "out" / event["snapshot"]).shape == (*HW, 3)
    clip = list(frames(tmp_path / "out" / event["clip"]))
    assert len(clip) == 21  # a second before it began, the frame, a second after
    assert clip[-1].time_s == pytest.approx(2.0, abs=0.01)
    whole = list(frames(tmp_path / "out" / "cam.mp4"))
    assert (len(whole), whole[-1].time_s) == (60, pytest.approx(5.9, abs=0.01))
    summary = json.loads((tmp_path / "out" / "summary.json").read_text(encoding="utf-8"))["sources"]["cam"]
    assert summary["lines"] == {"door": {"person": {"in": 1, "out": 0}}}
    assert summary["events"] == {"intrusion": 1}
    assert summary["frames"]["frames"] == 60
    assert summary["zones"]["middle"]["dwell"]["person"]["count"] == 1
    assert read_image(tmp_path / "out" / "cam.heat.jpg").shape == (*HW, 3)


def test_sources_are_watched_apart(tmp_path, walk):
    still = write_clip(tmp_path / "still.mp4", [paint((1, 80, 100, 30, 20)) for _ in range(40)])
    checked = rules(
        INTRUSION,
        {"kind": "loitering", "zone": "middle", "classes": ["car"], "after_s": 2},
        clips={"before_s": 0, "after_s": 0},
    )
    run({"a": walk, "b": walk, "c": still}, checked, tmp_path / "out")
    told = sorted((event["source"], event["rule"], event["track"]) for event in lines(tmp_path / "out"))
    assert told == [("a", "intrusion", 1), ("b", "intrusion", 1), ("c", "loitering", 1)]
    assert all(event["clip"] is None for event in lines(tmp_path / "out"))
    assert list((tmp_path / "out" / "clips").iterdir()) == []
    assert not list((tmp_path / "out").glob("*.mp4"))


def test_who_leaves_the_loop_gets_whole_files(tmp_path, walk):
    """As after an interrupt: the event that goes on is closed, its clip and the video play."""
    checked = rules(INTRUSION, clips={"before_s": 1, "after_s": 30})
    for step in watch({"cam": walk}, checked, find_rectangles, out=tmp_path / "out", video=True):
        if step.frame.index == 30:
            break
    del step
    event = lines(tmp_path / "out")[0]
    assert event["end_s"] == pytest.approx(3.0, abs=0.01)
    assert rows(tmp_path / "out") == [event]
    assert len(list(frames(tmp_path / "out" / event["clip"]))) == pytest.approx(17, abs=1)
    assert len(list(frames(tmp_path / "out" / "cam.mp4"))) == 31
    assert (tmp_path / "out" / "summary.json").exists()


def test_it_ends_when_it_is_told_to(tmp_path, walk):
    asked = threading.Event()
    seen = 0
    for _ in watch({"cam": walk}, rules(INTRUSION), find_rectangles, out=tmp_path / "out", until=asked.is_set):
        seen += 1
        if seen == 10:
            asked.set()
    assert seen == 10


def test_persons_are_covered_in_everything_that_is_written(tmp_path, walk):
    """The red of the one person is nowhere: not in the snapshot, the clip, the video, nor the heat map's background."""
    striped = [paint((0, 80, 100, 16, 40)) for _ in range(40)]
    for picture in striped:
        picture[60:100:2, 72:88] = (250, 250, 250)  # what identifies: stripes of one pixel
    clip = tmp_path / "striped.mp4"
    write_clip(clip, striped)

    def find(image):  # stripes hide the red from the threshold: the place is known
        return find_rectangles(paint((0, 80, 100, 16, 40)))

    def contrast(picture):  # of neighbouring rows inside the person, away from lines that are drawn over it
        return float(np.abs(np.diff(picture[64:80, 76:79].astype(float), axis=0)).mean())

    for blur, low in (("none", False), ("persons", True)):
        out = tmp_path / blur
        list(watch({"cam": clip}, rules(INTRUSION, privacy={"blur": blur}), find, out=out, video=True))
        event = lines(out)[0]
        pictures = [
            read_image(out / event["snapshot"]),
            *(frame.image for frame in frames(out / event["clip"])),
            *(frame.image for frame in frames(out / "cam.mp4")),
        ]
        worst = max(map(contrast, pictures)) if low else min(map(contrast, pictures))
        assert (worst < 15) == low, (blur, worst)


@pytest.mark.slow
def test_what_is_normal_is_learned_from_a_clip_and_what_is_not_is_told(tmp_path):
    rng = np.random.default_rng(0)

    def walks(count, direction):
        for _ in range(count):
            y, speed = rng.uniform(85, 115), rng.uniform(2.5, 4)
            places = np.arange(-20, 180, speed)[::direction]
            yield from (paint((0, x, y, 16, 40)) for x in places)
            yield from [paint()] * 35

    calm = write_clip(tmp_path / "calm.mp4", walks(14, 1))
    learn({"calm": calm}, find_rectangles).save(tmp_path / "normal.json")
    odd = write_clip(tmp_path / "odd.mp4", [*walks(2, 1), *walks(1, -1)])
    checked = rules(
        {"kind": "abnormal", "model": tmp_path / "normal.json", "after_s": 0.3}, clips={"before_s": 0, "after_s": 0}
    )
    run({"odd": odd}, checked, tmp_path / "out")
    assert [event["track"] for event in lines(tmp_path / "out")] == [3]
    assert "surprise" in lines(tmp_path / "out")[0]["reason"]


def test_a_disk_that_takes_no_more_ends_the_watch_with_an_error(tmp_path, walk):
    out = tmp_path / "out"
    steps = watch({"cam": walk}, rules(INTRUSION), find_rectangles, out=out)
    next(steps)
    (out / "snapshots").rmdir()
    with pytest.raises(OutputError, match="cannot be written"):
        list(steps)


def test_a_fault_in_the_writing_thread_reaches_the_caller(tmp_path, walk, monkeypatch):
    """Whatever it is: a thread that died in silence would let the watch wait for ever."""

    def fail(*_):
        raise RuntimeError("a fault of our own")

    monkeypatch.setattr("openlepton.apps.keeper.annotate", fail)
    with pytest.raises(RuntimeError, match="a fault of our own"):
        run({"cam": walk}, rules(INTRUSION), tmp_path / "out", video=True)


def test_what_is_missing_is_told_before_anything_is_written(tmp_path, walk):
    with pytest.raises(VideoNotFound):
        run({"cam": tmp_path / "none.mp4"}, rules(INTRUSION), tmp_path / "out")
    with pytest.raises(RulesInvalid, match=r"none\.json: cannot be read"):
        run({"cam": walk}, rules({"kind": "abnormal", "model": tmp_path / "none.json"}), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be made"):
        Keeper(tmp_path / "file" / "out", rules(INTRUSION))


def test_a_stream_that_changes_its_size_is_written_on(tmp_path):
    """A folder of pictures stands for a camera that was set anew."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for frame in range(60):
        hw = HW if frame < 30 else (240, 320)
        picture = paint((0, hw[1] / 2, hw[0] * 0.8, hw[1] / 10, hw[0] / 3), hw=hw)
        cv2.imwrite(str(folder / f"{frame:03d}.png"), picture[..., ::-1])
    run({"cam": folder}, rules(INTRUSION), tmp_path / "out", video=True)
    assert [frame.image.shape for frame in frames(tmp_path / "out" / "cam.mp4")] == [(*HW, 3)] * 60
    assert lines(tmp_path / "out") == rows(tmp_path / "out")
