"""Files and folders: every frame, once, with its own time and the right way up, or a clear error."""

import threading
import time
from itertools import islice, pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest

from openlepton.errors import UsageError, VideoNotFound, VideoUnreadable
from openlepton.images import write_image
from openlepton.video import decode
from openlepton.video.stream import Counters, Reader, frames

av = pytest.importorskip("av")


def counted(source, **options):
    with Reader([source], **options) as reader:
        seen = list(reader)
        return seen, reader.counters[str(source)]


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.avi", "a.mov", "a.ts"])
def test_every_frame_comes_once_in_order_with_its_time(make_clip, read_number, name):
    path = make_clip(name)
    seen = list(frames(path))
    assert [read_number(frame.image) for frame in seen] == list(range(20))
    assert [frame.index for frame in seen] == list(range(20))
    assert [frame.time_s for frame in seen] == pytest.approx([index / 25 for index in range(20)], abs=1e-3)
    assert {frame.source for frame in seen} == {str(path)}
    assert all(frame.image.shape == (96, 128, 3) and frame.image.dtype == np.uint8 for frame in seen)
    assert all(0 <= frame.age_s < 60 for frame in seen)


def test_pixels_are_those_of_opencv(make_clip):
    path = make_clip("a.mp4", 5)
    capture = cv2.VideoCapture(str(path))
    for frame in frames(path):
        assert np.array_equal(frame.image, capture.read()[1][..., ::-1])


def test_a_variable_frame_rate_is_kept(make_clip, read_number):
    times = [0.0, 0.033, 0.1, 0.5, 0.52, 1.9, 2.0]
    seen = list(frames(make_clip("vfr.mp4", times=times)))
    assert [frame.time_s for frame in seen] == pytest.approx(times, abs=1e-3)
    assert [read_number(frame.image) for frame in seen] == list(range(7))


def test_times_begin_at_zero_wherever_the_file_begins(make_clip):
    seen = list(frames(make_clip("late.mkv", times=[7.0, 7.5, 8.0])))
    assert [frame.time_s for frame in seen] == pytest.approx([0, 0.5, 1.0], abs=1e-3)


@pytest.mark.parametrize("rotation", [90, 180, 270])
def test_rotation_metadata_is_applied(make_clip, picture, rotation):
    """The display matrix says how far to turn the stored picture counter-clockwise."""
    (seen,) = frames(make_clip("turned.mp4", 1, rotation=rotation))
    wanted = np.rot90(picture(0), rotation // 90)
    assert seen.image.shape == wanted.shape
    assert np.abs(seen.image.astype(int) - wanted).mean() < 12


@pytest.mark.parametrize("size", [(127, 95), (33, 17), (2, 2)])
def test_odd_sizes_are_read(make_clip, size):
    (seen,) = frames(make_clip("odd.mp4", 1, size=size))
    assert seen.image.shape == (size[1], size[0], 3)


def test_every_third_frame_keeps_its_own_number(make_clip, read_number):
    seen, counters = counted(make_clip("a.mp4", 10), every=3)
    assert [(frame.index, read_number(frame.image)) for frame in seen] == [(0, 0), (3, 3), (6, 6), (9, 9)]
    assert counters == Counters(frames=4, skipped=6)


def test_a_folder_is_read_in_the_order_of_its_numbers(tmp_path, picture, read_number):
    for index in (10, 9, 2, 1):
        write_image(tmp_path / f"frame{index}.png", picture(index))
    (tmp_path / "notes.txt").write_text("not a picture")
    seen = list(frames(tmp_path))
    assert [read_number(frame.image) for frame in seen] == [1, 2, 9, 10]
    assert [frame.time_s for frame in seen] == [0, 0.04, 0.08, 0.12]


def test_a_damaged_picture_in_a_folder_is_counted_and_leaves_a_gap(tmp_path, picture):
    for index in range(3):
        write_image(tmp_path / f"{index}.png", picture(index))
    (tmp_path / "1.png").write_bytes((tmp_path / "1.png").read_bytes()[:100])
    seen, counters = counted(tmp_path)
    assert [frame.index for frame in seen] == [0, 2]
    assert counters == Counters(frames=2, damaged=1)


def lose_packets(data):
    """Leave out four packets of a transport stream in the second group of frames."""
    at = len(data) // 188 * 3 // 10
    return data[: at * 188] + data[(at + 4) * 188 :]


def overwrite(data):
    """Leave a hole of zeros, as a failing disk does."""
    at = len(data) * 4 // 10
    return data[:at] + bytes(400) + data[at + 400 :]


@pytest.mark.parametrize("reordered", ["0", "2"])
@pytest.mark.parametrize(("name", "hurt"), [("a.ts", lose_packets), ("a.mp4", overwrite), ("a.mkv", overwrite)])
def test_no_frame_that_was_made_up_is_passed_off_as_real(make_clip, name, hurt, reordered):
    path = make_clip(name, 60, gop=10, options={"crf": "10", "bf": reordered})
    whole = {round(frame.time_s, 3): frame.image for frame in frames(path)}
    path.write_bytes(hurt(path.read_bytes()))
    seen, counters = counted(path)
    assert counters.damaged > 0
    assert counters.frames >= 35
    assert len(seen) == counters.frames
    for frame in seen:
        assert np.array_equal(frame.image, whole[round(frame.time_s, 3)]), frame.index
    assert seen[-1].time_s == pytest.approx(max(whole), abs=1e-3), "frames are good again after the next key frame"


def test_a_file_cut_short_gives_its_good_frames_and_then_an_error(make_clip, read_number):
    path = make_clip("cut.mp4", 60, options={"movflags": "faststart"})
    with av.open(str(path)) as container:
        assert container.streams.video[0].frames == 60
    with (
        av.open(str(path)) as source,
        av.open(str(path.with_name("fast.mp4")), "w", options={"movflags": "faststart"}) as out,
    ):
        stream = out.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(source.streams.video[0]):
            if packet.dts is not None:
                packet.stream = stream
                out.mux(packet)
    path = path.with_name("fast.mp4")
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    seen = []
    with pytest.raises(VideoUnreadable, match=r"fast.mp4: (cut short: \d\.\d\d of 2\.40 s|broken off)"):
        seen.extend(frames(path))  # keeps what came before the error
    assert 15 < len(seen) < 60
    assert [read_number(frame.image) for frame in seen] == list(range(len(seen)))


def no_frames(path):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        container.start_encoding()


def only_sound(path):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.float32), format="fltp", layout="mono")
        sound.sample_rate = 8000
        container.mux(stream.encode(sound))
        container.mux(stream.encode())


@pytest.mark.parametrize(
    ("name", "make", "message"),
    [
        ("empty.mp4", lambda path: path.write_bytes(b""), "an empty file"),
        ("text.mp4", lambda path: path.write_text("Hello. " * 99), "not a video, or damaged"),
        ("sound.mp4", only_sound, "has no video in it, only audio"),
        ("none.mp4", no_frames, "has no video in it$"),
        ("none.mkv", no_frames, "not a video, or damaged"),
    ],
)
def test_what_is_no_video_is_a_clear_error(tmp_path, name, make, message):
    make(tmp_path / name)
    with pytest.raises(VideoUnreadable, match=rf"{name}: ({message})"):
        list(frames(tmp_path / name))


def test_a_file_without_its_index_is_a_clear_error(make_clip):
    path = make_clip("a.mp4")
    path.write_bytes(path.read_bytes()[:-400])
    with pytest.raises(VideoUnreadable, match=r"a\.mp4: (not a video, or damaged|has no frames)"):
        list(frames(path))


def test_what_is_not_there_is_an_error_at_once(tmp_path):
    with pytest.raises(VideoNotFound, match="no such file"):
        frames(tmp_path / "none.mp4")
    with pytest.raises(VideoNotFound, match="camera 97"):
        list(frames(97))
    with pytest.raises(VideoUnreadable, match="no pictures"):
        list(frames(tmp_path))


@pytest.mark.parametrize("wrong", [{"every": 0}, {"queue": 0}, {"policy": "some"}])
def test_options_out_of_range_are_errors(make_clip, wrong):
    with pytest.raises(UsageError, match=next(iter(wrong))):
        frames(make_clip("a.mp4", 1), **wrong)
    with pytest.raises(UsageError, match="source"):
        frames(3.5)
    with pytest.raises(UsageError, match="sources"):
        Reader([])


def test_a_playlist_under_the_name_of_a_video_opens_nothing(tmp_path, make_clip):
    """A file must not lead to other files or to the network: FFmpeg follows playlists by itself."""
    make_clip("segment.ts")
    address = "http://127.0.0.1:9/x.ts"
    for number, line in enumerate(("segment.ts", (tmp_path / "segment.ts").as_uri(), address)):
        for kind, text in (
            ("hls", f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{line}\n#EXT-X-ENDLIST\n"),
            ("concat", f"ffconcat version 1.0\nfile '{line}'\n"),
        ):
            path = tmp_path / f"{kind}{number}.mp4"
            path.write_text(text)
            with pytest.raises(VideoUnreadable, match="not a video, or damaged"):
                list(frames(path))


def test_a_name_with_a_protocol_in_it_is_a_file(make_clip, read_number):
    path = make_clip("a.mp4", 2)
    odd = path.rename(path.with_name("concat:b,c|d.mp4"))
    assert [read_number(frame.image) for frame in frames(odd)] == [0, 1]


def test_passwords_do_not_appear_in_names():
    assert decode.display_name("rtsp://user:secret@camera.local/1") == "rtsp://camera.local/1"
    with pytest.raises(VideoUnreadable) as caught:
        list(frames("rtsp://user:secret@127.0.0.1:9/1", timeout_s=2))
    assert "secret" not in str(caught.value)
    assert str(caught.value).startswith("rtsp://127.0.0.1:9/1: cannot be opened (")


def test_the_consumer_holds_the_decoder_back(make_clip):
    with Reader([make_clip("a.mp4", 60)], queue=3) as reader:
        taken = islice(iter(reader), 1)
        next(taken)
        deadline = time.monotonic() + 60
        while len(reader._lanes[0].waiting) < 3 and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.3)  # for a fourth to come, if it could
        assert len(reader._lanes[0].waiting) == 3
        assert sum(1 for _ in reader) == 59


@pytest.mark.slow
def test_the_newest_frame_is_given_and_the_dropped_are_counted(make_clip):
    path = make_clip("a.mp4", 50)  # two seconds, played at its own speed
    seen = []
    started = time.monotonic()
    with Reader([path], policy="latest") as reader:
        for frame in reader:
            seen.append(frame)
            time.sleep(0.2)
    counters = reader.counters[str(path)]
    assert time.monotonic() - started > 1.9
    assert counters.frames == len(seen) < 15
    assert counters.frames + counters.dropped == 50
    assert all(frame.age_s < 1.5 for frame in seen)  # the last of a queue of all would be eight seconds old
    assert seen[-1].index == 49


def test_several_sources_each_keep_their_order_and_one_bad_file_does_not_stop_the_rest(
    make_clip, tmp_path, read_number
):
    a, b = make_clip("a.mp4", 30), make_clip("b.mkv", 12)
    (tmp_path / "bad.mp4").write_text("no")
    events = []
    with Reader({"a": a, "b": b, "bad": tmp_path / "bad.mp4"}, on_event=events.append) as reader:
        seen = list(reader)
    for name, count in (("a", 30), ("b", 12), ("bad", 0)):
        assert [read_number(frame.image) for frame in seen if frame.source == name] == list(range(count))
    assert {(event.source, event.kind, event.again) for event in events} == {
        ("a", "ended", False),
        ("b", "ended", False),
        ("bad", "dead", False),
    }
    assert reader.counters["bad"] == Counters(errors=1)


def test_closing_leaves_no_thread_behind(make_clip):
    path = make_clip("a.mp4", 60)
    before = set(threading.enumerate())
    for _ in range(3):
        source = frames(path)
        next(source)
        source.close()
    with Reader([path, make_clip("b.mp4", 60)]) as reader:
        next(iter(reader))
    ours = [one for one in set(threading.enumerate()) - before if one.name.startswith("openlepton")]
    for thread in ours:
        thread.join(60)
    assert not any(thread.is_alive() for thread in ours)
    assert list(reader) == []


def test_a_camera_is_read_by_opencv_and_timed_by_the_clock(make_clip, read_number):
    """No camera is at hand: OpenCV captures from a file in its place, through the same code."""
    capture = cv2.VideoCapture(str(make_clip("a.mp4", 6)))
    source = decode._camera(capture, "camera 0")
    shots = [(shot.time_s, read_number(shot.picture())) for shot in islice(source, 6)]
    with pytest.raises(VideoUnreadable, match="camera 0: sends no more frames"):
        next(source)
    assert [number for _, number in shots] == list(range(6))
    assert shots[0][0] == 0
    assert all(a < b for (a, _), (b, _) in pairwise(shots))


def test_digits_are_a_camera_unless_a_file_has_that_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert decode.camera_number("2") == decode.camera_number(2) == 2
    Path("2").touch()
    assert decode.camera_number("2") is None
