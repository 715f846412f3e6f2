"""`openlepton track` as a user meets it, with the default detector on a moving photograph."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import cv2
import numpy as np
import pytest

from openlepton import load, read_image
from openlepton.cli import run
from openlepton.data.mot import read_mot
from openlepton.errors import VideoUnreadable
from openlepton.video.follow import Recorder, follow
from openlepton.video.stream import Frame, VideoWriter, frames
from openlepton.video.tracker import make_tracker

av = pytest.importorskip("av")
pytest.importorskip("scipy")

TIMES = [0.0, 0.1, 0.2, 0.35, 0.5, 0.6, 0.75, 1.0]


@pytest.fixture(scope="module")
def astronaut(photos):
    return read_image(photos[0])


def panned(image, step):
    """A window of 400 x 300 that moves over the photograph."""
    return np.ascontiguousarray(image[6 * step : 300 + 6 * step, 8 * step : 400 + 8 * step])


@pytest.fixture(scope="module")
def clip(astronaut, tmp_path_factory):
    path = tmp_path_factory.mktemp("clips") / "astronaut.mp4"
    with VideoWriter(path) as writer:
        for step, time_s in enumerate(TIMES):
            writer.write(panned(astronaut, step), time_s)
    return path


@pytest.fixture
def lepton(tmp_path, monkeypatch, capsys):
    """Run the command line in an empty folder; return its status, standard output and standard error."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        status = run([str(argument) for argument in arguments])
        return status, *capsys.readouterr()

    return call


def test_a_video_is_tracked_and_written_with_its_times(lepton, clip, tmp_path):
    status, out, err = lepton("track", clip)
    assert (status, err) == (0, "")
    assert "8 frames in" in out
    assert [line.split() for line in out.splitlines() if line.startswith("person")] == [["person", "1", "8"]]
    written = list(frames(tmp_path / "runs" / "track" / "astronaut.mp4"))
    assert [frame.time_s for frame in written] == pytest.approx(TIMES, abs=1e-4)
    plain = [frame.image.astype(int) for frame in frames(clip)]
    assert all(np.abs(frame.image - image).max() > 100 for frame, image in zip(written, plain, strict=True)), (
        "boxes are drawn"
    )


def test_an_odd_clip_that_is_turned_and_shows_nothing_is_written_upright(lepton, make_clip, tmp_path):
    times = [0.0, 0.04, 0.5, 0.9]
    status, out, err = lepton(
        "track",
        make_clip("turned.mp4", times=times, size=(127, 95), rotation=90),
        "--out",
        "out.mp4",
        "--min-score",
        0.9,
    )
    assert (status, err) == (0, "")
    assert out.startswith("nothing was tracked\n4 frames in")
    written = list(frames(tmp_path / "out.mp4"))
    assert [frame.time_s for frame in written] == pytest.approx(times, abs=1e-3)
    assert {frame.image.shape for frame in written} == {(128, 96, 3)}  # 127 x 95, one more row and column for H.264


def test_a_line_of_json_for_each_frame_is_what_python_gives(lepton, clip, tmp_path):
    status, out, err = lepton("track", clip, "--json", "-", "--tracker", "ocsort", "--every", 2, "--min-score", 0.3)
    assert (status, err) == (0, "")
    lines = [json.loads(line) for line in out.splitlines()]
    steps = follow(
        frames(clip, every=2), load("yolox-nano-voc20", min_score=0.3), make_tracker("ocsort", min_score=0.3)
    )
    assert [json.loads(json.dumps(step.to_dict())) for step in steps] == lines
    assert [line["frame"] for line in lines] == [0, 2, 4, 6]
    assert [line["time_s"] for line in lines] == TIMES[::2]
    for line in lines:
        assert list(line) == ["source", "frame", "time_s", "image", "detections"]
        assert line["image"] == {"width": 400, "height": 300}
        assert "person" in [row["label"] for row in line["detections"] if row["track_id"] == 1]
    assert not (tmp_path / "runs").exists()


def test_tracks_are_the_same_in_the_form_that_is_told(lepton, clip, monkeypatch):
    pytest.importorskip("openvino")
    from openlepton.runtimes.openvino import OpenVinoRuntime

    ran, call = [], OpenVinoRuntime.__call__
    monkeypatch.setattr(OpenVinoRuntime, "__call__", lambda self, inputs: ran.append(self) or call(self, inputs))

    def boxes(*options):
        status, out, err = lepton("track", clip, "--json", "-", "--every", 4, "--classes", "person", *options)
        assert (status, err) == (0, "")
        found = [json.loads(line)["detections"] for line in out.splitlines()]
        assert [[row["track_id"] for row in rows] for rows in found] == [[1], [1]]
        return np.array([list(row["box"].values()) for rows in found for row in rows])

    plain = boxes()
    assert not ran
    assert np.abs(boxes("--runtime", "openvino") - plain).max() < 0.05
    assert len(ran) == 2
    status, _, err = lepton("track", clip, "--json", "-", "--runtime", "litert")
    assert status == 2
    assert "openlepton export yolox-nano-voc20 --to litert" in err


def test_tracks_can_be_written_as_motchallenge_wants_them(lepton, clip, tmp_path):
    assert lepton("track", clip, "--out", "out.txt", "--classes", "person", "--json", "out.jsonl")[0] == 0
    rows = read_mot(tmp_path / "out.txt")
    assert rows.frames.tolist() == list(range(1, 9))
    assert set(rows.track_ids) == {1}
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()]
    boxes = [[line["detections"][0]["box"][side] for side in ("x1", "y1")] for line in lines]
    assert rows.boxes_ltwh[:, :2] == pytest.approx(np.array(boxes), abs=0.01)


def test_detections_alone_are_tracked_and_evaluated(lepton, tmp_path):
    steps = range(1, 31)
    truth = "".join(f"{step},{one},{5 * step + 200 * one},50,40,90,1,-1,-1,-1\n" for step in steps for one in (1, 2))
    (tmp_path / "truth.txt").write_text(truth)
    (tmp_path / "found.txt").write_text(truth.replace(",1,", ",-1,", 0))
    for tracker in ("sort", "bytetrack", "ocsort"):
        status, out, err = lepton("track", "--detections", "found.txt", "--tracker", tracker, "--out", f"{tracker}.txt")
        assert (status, err) == (0, "")
        assert out == f"2 tracks in 30 frames with {tracker}; see {tracker}.txt\n"
        status, out, _ = lepton("evaluate", "--task", "track", "truth.txt", f"{tracker}.txt", "--json")
        numbers = json.loads(out)
        assert (status, numbers["HOTA"], numbers["MOTA"], numbers["IDF1"]) == (0, 1, 1, 1)
    status, out, _ = lepton("evaluate", "--task", "track", "truth.txt", "sort.txt")
    assert [line.split()[0] for line in out.splitlines() if line[:2] in ("HO", "MO", "ID")] == ["HOTA", "MOTA", "IDF1"]
    status, out, _ = lepton("track", "--detections", "truth.txt", "--out", "none.txt", "--min-score", 1)
    assert status == 0
    assert len(read_mot(tmp_path / "none.txt")) == 60 or len(read_mot(tmp_path / "none.txt")) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "give a SOURCE"),
        (("a.mp4", "--detections", "b.txt"), "give a SOURCE"),
        (("--detections", "b.txt"), "takes --out FILE.txt"),
        (("--detections", "b.txt", "--out", "c.mp4"), "takes --out FILE.txt"),
        (("CLIP", "--out", "a.avi"), "ends in .mp4 or .txt"),
        (("CLIP", "--out", "taken.mp4"), "taken.mp4: exists; --overwrite replaces it"),
        (("CLIP", "--json", "taken.mp4"), "taken.mp4: exists"),
        (("CLIP", "--model", "efficientnet-lite0"), "is a model to classify with"),
        (("CLIP", "--classes", "unicorn"), "no class 'unicorn'"),
    ],
)
def test_wrong_usage_is_told_in_one_line(lepton, clip, tmp_path, arguments, message):
    (tmp_path / "taken.mp4").write_bytes(b"mine")
    status, out, err = lepton("track", *(clip if part == "CLIP" else part for part in arguments))
    assert (status, out) == (2, "")
    assert message in err
    assert err.endswith("[usage]\n")
    assert (tmp_path / "taken.mp4").read_bytes() == b"mine"


def test_a_source_that_is_missing_or_no_video_is_told_and_leaves_nothing(lepton, tmp_path):
    status, out, err = lepton("track", "none.mp4")
    assert (status, out, err) == (1, "", "openlepton: none.mp4: no such file or folder [video-not-found]\n")
    (tmp_path / "text.mp4").write_text("Hello")
    status, out, err = lepton("track", "text.mp4", "--json", "out.jsonl")
    assert (status, out) == (1, "")
    assert "text.mp4: not a video, or damaged" in err
    assert (tmp_path / "out.jsonl").read_text() == ""


def test_of_a_damaged_file_the_good_part_is_tracked_and_the_rest_is_told(lepton, make_clip):
    path = make_clip("hole.ts", 40, gop=10, options={"crf": "10"})
    data = path.read_bytes()
    hole = len(data) // 188 // 3 * 188
    path.write_bytes(data[:hole] + data[hole + 188 * 6 :])
    status, out, err = lepton("track", path, "--json", "-")
    count = len(out.splitlines())
    assert status == 0
    assert 20 <= count < 40
    told = re.search(r"(\d+) frames damaged and left out", err)
    assert told is not None
    assert 0 < int(told[1]) <= 40 - count  # a frame of which nothing is left is missed by nobody


def test_a_camera_that_comes_back_larger_does_not_break_the_video(astronaut, tmp_path):
    tracker, detect = make_tracker("sort"), load("yolox-nano-voc20")

    def shown():
        for step in range(4):
            image = panned(astronaut, step)
            image = image if step < 2 else cv2.resize(image, (800, 600))
            yield Frame(image, step, 0.1 * step, 0.0, "gate")

    with Recorder(video=tmp_path / "out.mp4", trails_s=0) as recorder:
        for step in follow(shown(), detect, tracker):
            recorder.keep(step)
    assert [frame.image.shape for frame in frames(tmp_path / "out.mp4")] == [(300, 400, 3)] * 4


class Camera(BaseHTTPRequestHandler):
    """Sends the photograph, moving, for as long as somebody looks."""

    image = None

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace;boundary=frame")
        self.end_headers()
        try:
            for step in range(10_000):
                data = cv2.imencode(".jpg", panned(self.image, step % 12)[..., ::-1])[1].tobytes()
                head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(data)}\r\n\r\n"
                self.wfile.write(head.encode() + data + b"\r\n")
                time.sleep(0.04)
        except OSError:
            return  # the reader has gone

    def log_message(self, *_):
        pass


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="signals are others there")
def test_an_interrupt_ends_a_live_stream_with_a_file_that_plays(astronaut, tmp_path):
    Camera.image = astronaut
    server = ThreadingHTTPServer(("127.0.0.1", 0), Camera)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    command = [sys.executable, "-m", "openlepton", "track", f"http://127.0.0.1:{server.server_port}/"]
    command += ["--out", "live.mp4", "--json", "live.jsonl", "--tracker", "sort"]
    process = subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=dict(os.environ)
    )
    lines = tmp_path / "live.jsonl"
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline and (not lines.exists() or lines.read_text().count("\n") < 10):
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, err = (text.decode() for text in process.communicate(timeout=80))
    server.shutdown()
    server.server_close()
    assert process.returncode == 130
    count = lines.read_text().count("\n")
    assert count >= 10
    assert f"{count} frames in" in out
    assert "Traceback" not in err
    written = list(frames(tmp_path / "live.mp4"))
    assert len(written) == count
    kept = [json.loads(line)["time_s"] for line in lines.read_text().splitlines()]
    assert [frame.time_s for frame in written] == pytest.approx([one - kept[0] for one in kept], abs=1e-3)


def test_an_error_of_the_source_comes_after_what_was_good(astronaut):
    def breaking():
        yield Frame(panned(astronaut, 0), 0, 0.0, 0.0, "gate")
        raise VideoUnreadable("gate: broken off")

    steps = follow(breaking(), load("yolox-nano-voc20"), make_tracker("sort"), workers=2)
    assert next(steps).found.track_ids.tolist() == [1]
    with pytest.raises(VideoUnreadable, match="broken off"):
        next(steps)
