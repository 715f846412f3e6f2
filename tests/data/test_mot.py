"""MOTChallenge's files: read as they are, written as they are read, refused with the line that is wrong."""

import numpy as np
import pytest

from openlepton.data.mot import MotRows, read_mot, write_mot
from openlepton.errors import DataInvalid, DataNotFound


def test_a_line_is_frame_identity_box_score_class(tmp_path):
    (tmp_path / "gt.txt").write_text("2,7,10.5,20,30,40,1,3,0.5\n1,-1,1,2,3,4\n\n  1 , 8, 0,0,1,1,0.25 \n")
    rows = read_mot(tmp_path / "gt.txt")
    assert rows.frames.tolist() == [2, 1, 1]
    assert rows.track_ids.tolist() == [7, -1, 8]
    assert rows.boxes_ltwh.tolist() == [[10.5, 20, 30, 40], [1, 2, 3, 4], [0, 0, 1, 1]]
    assert rows.scores.tolist() == [1, 1, 0.25]
    assert rows.class_ids.tolist() == [3, -1, -1]
    assert [here.tolist() for here in rows.by_frame()] == [[1, 2], [0]]
    assert [here.tolist() for here in rows.by_frame(3)] == [[1, 2], [0], []]


def test_what_is_written_is_read_again(tmp_path):
    rng = np.random.default_rng(0)
    boxes = rng.uniform(0, 900, (50, 4)).round(3)
    boxes[:, 2:] += boxes[:, :2]
    rows = MotRows.of(rng.integers(1, 9, 50), np.arange(50), boxes, rng.random(50).round(4))
    write_mot(tmp_path / "out.txt", rows)
    again = read_mot(tmp_path / "out.txt")
    for name in MotRows.__dataclass_fields__:
        assert getattr(again, name) == pytest.approx(getattr(rows, name), abs=1e-9)


def test_an_empty_file_is_no_rows(tmp_path):
    (tmp_path / "a.txt").touch()
    assert len(read_mot(tmp_path / "a.txt")) == 0
    assert read_mot(tmp_path / "a.txt").by_frame() == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1,2,3\n", r"a.txt:1: expected at least 6 numbers, got 3"),
        ("1,1,0,0,1,1\n1,2,x,0,1,1\n", r"a.txt:2: could not convert string to float: 'x'"),
        ("1,1,0,0,nan,1\n", r"a.txt:1: expected a frame from 1 and finite numbers"),
        ("0,1,0,0,1,1\n", r"a.txt:1: expected a frame from 1"),
        ("1.5,1,0,0,1,1\n", r"a.txt:1: expected a frame from 1"),
        ("1e18,1,0,0,1,1\n", r"a.txt:1: expected a frame from 1"),
        ("1,1,0,0,1,1,nan,0\n", r"a.txt:1"),
        ("1,1,0,0,1,1,1,inf\n", r"a.txt:1"),
        ("1,1e300,0,0,1,1\n", r"a.txt:1"),
        ("Bild,1\u00e9\n", r"a.txt: not a text of numbers"),
    ],
)
def test_a_wrong_line_is_named(tmp_path, text, message):
    (tmp_path / "a.txt").write_text(text, encoding="utf-8")
    with pytest.raises(DataInvalid, match=message):
        read_mot(tmp_path / "a.txt")


def test_a_missing_file_is_an_error(tmp_path):
    with pytest.raises(DataNotFound, match=r"none.txt"):
        read_mot(tmp_path / "none.txt")
