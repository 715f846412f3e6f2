"""Written videos keep frames, times and duration, and are whole whatever happens."""

import signal
import subprocess
import sys
import time
from contextlib import suppress

import numpy as np
import pytest

from openlepton.errors import OutputError, ShapeError, UsageError, VideoUnreadable
from openlepton.video.stream import VideoWriter, frames

av = pytest.importorskip("av")


def duration(path):
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        return float(stream.duration * stream.time_base)


def back(path, read_number):
    return [(read_number(frame.image), round(frame.time_s, 4)) for frame in frames(path)]


def test_a_steady_rate_is_kept(tmp_path, picture, read_number):
    for fps in (12.5, 25, 30000 / 1001, 60):
        with VideoWriter(tmp_path / "out.mp4", fps=fps) as writer:
            for index in range(30):
                writer.write(picture(index))
        seen = list(frames(tmp_path / "out.mp4"))
        assert [read_number(frame.image) for frame in seen] == list(range(30))
        assert [frame.time_s for frame in seen] == pytest.approx([index / fps for index in range(30)], abs=2e-5)
        assert duration(tmp_path / "out.mp4") == pytest.approx(30 / fps, abs=2e-3)


def test_times_of_a_variable_rate_are_kept_and_the_last_frame_lasts_as_long_as_the_one_before(
    tmp_path, picture, read_number
):
    times = [5.0, 5.033, 5.1, 5.5, 5.52, 6.9, 7.0]
    with VideoWriter(tmp_path / "out.mp4") as writer:
        for index, time_s in enumerate(times):
            writer.write(picture(index), time_s)
    assert back(tmp_path / "out.mp4", read_number) == [(i, round(t - 5, 4)) for i, t in enumerate(times)]
    assert duration(tmp_path / "out.mp4") == pytest.approx(2.1, abs=2e-3)


def test_what_was_read_is_written_with_the_same_times_and_much_the_same_pixels(tmp_path, make_clip):
    source = make_clip("in.mkv", times=[0, 0.04, 0.08, 0.2, 0.24])
    with VideoWriter(tmp_path / "out.mp4") as writer:
        for frame in frames(source):
            writer.write(frame.image, frame.time_s)
    for a, b in zip(frames(source), frames(tmp_path / "out.mp4"), strict=True):
        assert b.time_s == pytest.approx(a.time_s, abs=1e-4)
        assert np.abs(a.image.astype(int) - b.image).mean() < 6


def test_colours_come_back(tmp_path):
    wanted = np.zeros((64, 96, 3), np.uint8)
    wanted[:, :32], wanted[:, 32:64], wanted[:, 64:] = (200, 40, 40), (40, 180, 60), (30, 60, 220)
    with VideoWriter(tmp_path / "out.mp4", fps=5) as writer:
        writer.write(wanted)
    (seen,) = frames(tmp_path / "out.mp4")
    for column in (16, 48, 80):
        assert np.abs(seen.image[32, column].astype(int) - wanted[32, column]).max() <= 4


def test_odd_sizes_get_one_more_row_and_column(tmp_path, picture):
    image = picture(5, 127, 95)
    with VideoWriter(tmp_path / "out.mp4", fps=5) as writer:
        writer.write(image)
    (seen,) = frames(tmp_path / "out.mp4")
    assert seen.image.shape == (96, 128, 3)
    assert np.abs(seen.image[:95, :127].astype(int) - image).mean() < 8


def test_nothing_appears_before_the_end_and_what_was_there_is_replaced_then(tmp_path, picture):
    path = tmp_path / "out.mp4"
    path.write_bytes(b"before")
    writer = VideoWriter(path, fps=10)
    writer.write(picture(0))
    assert path.read_bytes() == b"before"
    writer.close()
    writer.close()
    assert len(list(frames(path))) == 1
    assert [file.name for file in tmp_path.iterdir()] == ["out.mp4"]


def test_without_a_frame_there_is_no_file(tmp_path):
    with VideoWriter(tmp_path / "out.mp4", fps=10):
        pass
    assert list(tmp_path.iterdir()) == []


def test_an_error_in_between_leaves_what_was_written(tmp_path, picture, read_number):
    def fail():
        with VideoWriter(tmp_path / "out.mp4", fps=10) as writer:
            writer.write(picture(3))
            writer.write(picture(4))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert [number for number, _ in back(tmp_path / "out.mp4", read_number)] == [3, 4]


WRITING = """
import signal, sys, time
import numpy as np
from openlepton.video.stream import VideoWriter
signal.signal(signal.SIGINT, signal.default_int_handler)  # whatever the parent ignores
with VideoWriter(sys.argv[1], fps=25) as writer:
    noise = np.random.default_rng(0).integers(0, 255, (96, 128, 3), np.uint8)
    for index in range(10_000):
        writer.write(np.roll(noise, index, axis=1))
        if index == 150:
            print("written", flush=True)
        time.sleep(0.002)
"""


def stopped(path, how):
    process = subprocess.Popen(
        [sys.executable, "-c", WRITING, str(path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout.readline().strip() == b"written"
    time.sleep(0.1)
    process.send_signal(how)
    _, errors = process.communicate(timeout=60)
    return errors.decode()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="signals are others there")
def test_after_an_interrupt_the_file_is_whole(tmp_path):
    errors = stopped(tmp_path / "out.mp4", signal.SIGINT)
    assert "KeyboardInterrupt" in errors
    count = sum(1 for _ in frames(tmp_path / "out.mp4"))
    assert count > 150
    assert duration(tmp_path / "out.mp4") == pytest.approx(count / 25, abs=0.05)
    assert [file.name for file in tmp_path.iterdir()] == ["out.mp4"]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="signals are others there")
def test_even_a_killed_process_leaves_a_part_that_plays(tmp_path):
    stopped(tmp_path / "out.mp4", signal.SIGKILL)
    assert [file.name for file in tmp_path.iterdir()] == ["out.part.mp4"]
    seen = []
    with suppress(VideoUnreadable):  # the last piece is cut short
        seen.extend(frames(tmp_path / "out.part.mp4"))
    assert len(seen) >= 100


def test_what_cannot_be_written_is_an_error(tmp_path, picture):
    with pytest.raises(UsageError, match=r"written as \.mp4"):
        VideoWriter(tmp_path / "out.gif")
    with pytest.raises(OutputError, match="there is no folder"):
        VideoWriter(tmp_path / "none" / "out.mp4")
    with pytest.raises(UsageError, match="fps"):
        VideoWriter(tmp_path / "out.mp4", fps=0)
    with VideoWriter(tmp_path / "out.mp4") as writer:
        with pytest.raises(UsageError, match="needs a time"):
            writer.write(picture(0))
        writer.write(picture(0), 1.0)
        with pytest.raises(UsageError, match="not later"):
            writer.write(picture(1), 1.0)
        with pytest.raises(ShapeError, match="begun with frames of"):
            writer.write(picture(1, 64, 64), 2.0)
        with pytest.raises(ShapeError, match="uint8"):
            writer.write(picture(1).astype(float), 2.0)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /dev/full")
def test_a_full_disk_is_an_error_of_one_line(tmp_path):
    (tmp_path / "out.part.mp4").symlink_to("/dev/full")
    writer = VideoWriter(tmp_path / "out.mp4", fps=10)
    noise = np.random.default_rng(0).integers(0, 255, (96, 128, 3), np.uint8)

    def fill():
        for index in range(500):
            writer.write(np.roll(noise, index, axis=1))

    with pytest.raises(OutputError, match="cannot be written: No space left"):
        fill()
    with pytest.raises(OutputError, match="cannot be written: No space left|is not whole"):
        writer.close()
    assert not (tmp_path / "out.mp4").exists()
