"""Tracking metrics against TrackEval's own numbers (tools/trackeval_reference.py), and what they mean."""

import json
from pathlib import Path

import numpy as np
import pytest

from openlepton.data.mot import MotRows, read_mot
from openlepton.errors import DataInvalid, UsageError
from openlepton.metrics.tracking import ALPHAS, evaluate_tracking

pytest.importorskip("scipy")

FOLDER = Path(__file__).parent / "tracking"
REFERENCE = json.loads((FOLDER / "trackeval.json").read_text(encoding="utf-8"))


def rows(*lines):
    """Rows of frame, identity, left; boxes 10 by 10."""
    table = np.array(lines, float).reshape(-1, 3)
    boxes = np.column_stack([table[:, 2], np.zeros(len(table)), table[:, 2] + 10, np.full(len(table), 10.0)])
    return MotRows.of(table[:, 0], table[:, 1], boxes, np.ones(len(table)))


@pytest.mark.parametrize("name", sorted(REFERENCE))
def test_every_number_is_trackevals(name):
    truth, found = (read_mot(FOLDER / f"{name}-{side}.txt") for side in ("truth", "found"))
    report = evaluate_tracking(truth, found)
    reference = REFERENCE[name]
    assert len(report.numbers) == 32
    for number, value in report.numbers.items():
        assert value == pytest.approx(np.mean(reference[number]), abs=1e-9), number
    assert len(report.curves) == 8
    for number, curve in report.curves.items():
        assert curve == pytest.approx(np.array(reference[number]), abs=1e-9), number
    assert report.frames == max(truth.frames.max(), found.frames.max())


def test_the_order_of_the_lines_of_different_frames_does_not_matter():
    truth, found = (read_mot(FOLDER / f"MOT15-many-{side}.txt") for side in ("truth", "found"))
    order = np.argsort(np.random.default_rng(0).random(len(found)))
    order = order[np.argsort(found.track_ids[order], kind="stable")]
    shuffled = MotRows(*(getattr(found, name)[order] for name in MotRows.__dataclass_fields__))
    assert evaluate_tracking(truth, shuffled).numbers == pytest.approx(
        evaluate_tracking(truth, found).numbers, abs=1e-12
    )


def test_what_is_found_exactly_is_perfect():
    truth = rows((1, 1, 0), (1, 2, 50), (2, 1, 1), (2, 2, 51))
    numbers = evaluate_tracking(truth, truth).numbers
    assert [numbers[name] for name in ("HOTA", "MOTA", "MOTP", "IDF1", "LocA")] == [1] * 5


def test_one_change_of_identity_costs_what_the_papers_say():
    truth = rows(*((frame, 1, frame) for frame in range(1, 11)))
    found = rows(*((frame, 1 if frame <= 5 else 2, frame) for frame in range(1, 11)))
    numbers = evaluate_tracking(truth, found).numbers
    assert numbers["IDSW"] == 1
    assert numbers["MOTA"] == pytest.approx(0.9)
    assert numbers["IDF1"] == pytest.approx(0.5)
    assert numbers["AssA"] == pytest.approx(0.5)
    assert numbers["HOTA"] == pytest.approx(np.sqrt(0.5))


@pytest.mark.parametrize(("truth", "found"), [((), ()), (((1, 1, 0),), ()), ((), ((1, 1, 0),))])
def test_nothing_there_or_nothing_found_is_no_division_by_zero(truth, found):
    numbers = evaluate_tracking(rows(*truth), rows(*found)).numbers
    assert numbers["HOTA"] == numbers["IDF1"] == numbers["CLR_TP"] == 0
    assert (numbers["CLR_FN"], numbers["CLR_FP"]) == (len(truth), len(found))
    assert all(np.isfinite(value) for value in numbers.values())


def test_an_identity_twice_in_a_frame_is_an_error():
    with pytest.raises(DataInvalid, match="frame 3: identity 7 occurs 2 times"):
        evaluate_tracking(rows((3, 1, 0)), rows((3, 7, 0), (3, 7, 20)))
    with pytest.raises(UsageError, match="frame 3"):
        evaluate_tracking(rows((3, 1, 0)), rows(), frames=2)


def test_there_are_nineteen_alphas():
    assert pytest.approx(np.linspace(0.05, 0.95, 19)) == ALPHAS
