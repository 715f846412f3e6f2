"""`openlepton watch` and `openlepton drive`, with the detector that ships, on the clips that ship."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import openlepton
from openlepton.apps import driving
from openlepton.apps.sources import free, is_live, named
from openlepton.cli import run
from openlepton.cli.apps import _detectors
from openlepton.errors import UsageError
from openlepton.hub.index import find
from openlepton.video.stream import frames

ROOT = Path(__file__).resolve().parents[2]
CLIPS, EXAMPLES = Path(openlepton.__file__).parent / "assets" / "clips", ROOT / "examples"
MODEL = "yolox-nano-voc20"


def words(*arguments):
    return [str(argument) for argument in arguments]


@pytest.mark.slow
def test_the_yard_is_watched_from_file_to_events(tmp_path, capsys):
    arguments = words(
        "watch", CLIPS / "yard.mp4", "--rules", EXAMPLES / "rules.toml", "--model", MODEL, "--out", tmp_path
    )
    assert run(arguments) == 0
    told = capsys.readouterr().out
    assert "130 frames in " in told
    assert "road: car 1 in 1 out" in told
    rules = [json.loads(line)["rule"] for line in (tmp_path / "events.jsonl").read_text(encoding="utf-8").splitlines()]
    assert {"running", "intrusion", "loitering", "wrong-way"} <= set(rules)
    assert len(list(frames(tmp_path / "yard.mp4"))) == 130


@pytest.mark.slow
def test_the_road_is_looked_at_from_file_to_warnings(tmp_path, capsys):
    arguments = words(
        "drive", CLIPS / "road.mp4", "--camera", EXAMPLES / "camera.toml", "--model", MODEL, "--out", tmp_path
    )
    assert run([*arguments, "--lang", "zh"]) == 0
    told = capsys.readouterr().out
    assert "vehicle-closing: " in told
    assert "秒后将与汽车" in told
    assert "pedestrian-ahead: 前方" in told
    lines = (tmp_path / "road.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["frame"] for line in lines] == list(range(105))
    assert len(list(frames(tmp_path / "road.mp4"))) == 105


@pytest.mark.slow
def test_two_models_look_at_the_same_frames(tmp_path, capsys):
    clip = words(
        "drive", CLIPS / "road.mp4", "--model", MODEL, "--model", "yolov5n-bccd", "--out", tmp_path, "--no-video"
    )
    assert run([*clip, "--every", "8", "--json"]) == 0
    captured = capsys.readouterr()
    assert "no --camera: distances assume a view of 60 degrees" in captured.err
    steps = [json.loads(line) for line in captured.out.splitlines()]
    assert len(steps) == 14
    assert {item["method"] for step in steps for item in step["objects"]} <= {"height", ""}
    assert not list(tmp_path.glob("*.mp4"))


@pytest.mark.slow
@pytest.mark.parametrize(("signs", "missing"), [("yolov5n-bccd", False), ("no-model-of-signs", True)])
def test_signs_are_looked_for_where_their_model_is_there(signs, missing, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(driving, "ROADSIGNS", signs)
    assert run(words("drive", CLIPS / "road.mp4", "--out", tmp_path, "--no-video", "--every", "15", "--json")) == 0
    captured = capsys.readouterr()
    assert ("signs are not looked for: this release ships no no-model-of-signs" in captured.err) == missing
    steps = [json.loads(line) for line in captured.out.splitlines()]
    assert len(steps) == 7
    assert any(item["group"] == "vehicle" for step in steps for item in step["objects"])


def test_of_a_model_that_is_sure_later_only_what_it_is_sure_of_is_tracked(tmp_path):
    bold, shy = find(MODEL), find("yolov5n-bccd")
    folder = tmp_path / "shy"
    shutil.copytree(shy.path, folder)
    card = folder / "card.toml"
    card.write_text(card.read_text(encoding="utf-8").replace("min_score = 0.25", "min_score = 0.6"), encoding="utf-8")
    assert bold.card.detect.min_score == 0.25
    detectors, sure = _detectors([MODEL, str(folder)], "bytetrack", None, None)
    assert ([one.task.min_score for one in detectors], sure) == ([0.1, 0.6], 0.25)
    detectors, sure = _detectors([MODEL, str(folder)], "bytetrack", 0.4, None)
    assert ([one.task.min_score for one in detectors], sure) == ([0.1, 0.1], 0.4)
    detectors, sure = _detectors([str(folder)], "sort", None, None)
    assert ([one.task.min_score for one in detectors], sure) == ([0.6], 0.6)


def test_detectors_run_in_the_form_that_is_told():
    pytest.importorskip("openvino")
    detectors, _ = _detectors([MODEL, "yolov5n-bccd"], "sort", None, None, "openvino")
    assert [one.runtime.name for one in detectors] == ["openvino", "openvino"]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signal")
def test_an_interrupt_leaves_whole_files(tmp_path):
    script = "from openlepton.cli import run; import sys; sys.exit(run(sys.argv[1:]))"
    arguments = words(
        "watch", CLIPS / "yard.mp4", CLIPS / "road.mp4", "--rules", EXAMPLES / "rules.toml", "--model", MODEL
    )
    started = subprocess.Popen(
        [sys.executable, "-c", script, *arguments, "--out", str(tmp_path / "out")], stdout=subprocess.PIPE, text=True
    )
    part = tmp_path / "out" / "yard.part.mp4"
    for _ in range(2000):
        if part.exists() and part.stat().st_size > 20_000:
            break
        time.sleep(0.1)
    os.kill(started.pid, signal.SIGINT)
    told, _ = started.communicate(timeout=60)
    assert started.returncode == 130, told
    summary = json.loads((tmp_path / "out" / "summary.json").read_text(encoding="utf-8"))
    for name in ("yard", "road"):
        seen = summary["sources"][name]["frames"]["frames"]
        assert 0 < len(list(frames(tmp_path / "out" / f"{name}.mp4"))) <= seen
    assert not list((tmp_path / "out").rglob("*.part*"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["watch", "a.mp4"], "give --rules FILE to watch by, or --learn FILE"),
        (["watch", "a.mp4", "--rules", "none.toml"], "none.toml: cannot be read"),
        (["watch", "0", "--learn", "normal.json"], "--learn: takes files; record a while first"),
        (["watch", "none.mp4", "--rules", EXAMPLES / "rules.toml"], "none.mp4: no such file or folder"),
        (
            ["watch", "a.mp4", "--rules", EXAMPLES / "rules.toml", "--model", "efficientnet-lite0"],
            "is a model to classify with",
        ),
        (["watch", "a.mp4", "--rules", EXAMPLES / "rules.toml", "--runtime", "litert"], "has no form for litert"),
        (["drive", "a.mp4", "--model", MODEL, "--camera", EXAMPLES / "camera.toml", "--runtime", "x"], "got 'x'"),
        (["drive", "a.mp4", "--camera", EXAMPLES / "rules.toml"], "rules.toml: camera: Field required"),
    ],
)
def test_wrong_usage_is_told_in_one_line(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run(words(*arguments)) in (1, 2)
    told = capsys.readouterr().err.strip()
    assert message in told
    assert "\n" not in told
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_file_is_told_and_fails_and_what_came_before_is_kept(tmp_path, capsys):
    clip = (CLIPS / "yard.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(clip[: len(clip) // 8])
    out = tmp_path / "out"
    assert (
        run(words("watch", tmp_path / "cut.mp4", "--rules", EXAMPLES / "rules.toml", "--model", MODEL, "--out", out))
        == 1
    )
    told = capsys.readouterr().err.strip()
    assert "cut.mp4" in told
    assert told.endswith("[video-unreadable]")
    assert (out / "summary.json").exists()


def test_nothing_that_is_there_is_replaced(tmp_path):
    taken = tmp_path / "road.mp4"
    assert free(taken) == taken
    taken.write_bytes(b"")
    (tmp_path / "road-2.mp4").write_bytes(b"")
    assert free(taken) == tmp_path / "road-3.mp4"


def test_sources_get_names_that_are_fit_for_files():
    given = [
        "clips/yard.mp4",
        "other/yard.mp4",
        "front=rtsp://me:pw@camera.local:554/1?x=1",
        "rtsp://me:pw@camera.local:554/a/b?x=1",
        "0",
        "a/b/",
    ]
    assert dict(named(given)) == {
        "yard": "clips/yard.mp4",
        "yard-2": "other/yard.mp4",
        "front": "rtsp://me:pw@camera.local:554/1?x=1",
        "camera.local-554-a-b": "rtsp://me:pw@camera.local:554/a/b?x=1",
        "camera0": "0",
        "b": "a/b/",
    }
    assert [is_live(source) for source in given] == [False, False, False, True, True, False]
    with pytest.raises(UsageError, match="two sources are called 'front'"):
        named(["front=a.mp4", "front=b.mp4"])


@pytest.mark.slow
def test_the_soak_of_a_minute_holds():
    """`bench/soak.py` with a tenth of its frames; the whole takes four minutes."""
    pytest.importorskip("psutil")
    if sys.platform == "win32":
        pytest.skip("Windows has no such signal")
    done = subprocess.run(
        [sys.executable, str(ROOT / "bench" / "soak.py"), "--frames", "2400", "--settle-s", "15"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "camera0 recovered" in done.stdout
