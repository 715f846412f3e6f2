import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

from openlepton.apps.abnormal import BANDS, Learner, movement, read_normal
from openlepton.errors import RulesInvalid

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def street():
    """The benchmark's street."""
    spec = importlib.util.spec_from_file_location("abnormal_street", ROOT / "bench" / "abnormal.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def learn(street, count):
    rng = np.random.default_rng(5)
    learner = Learner()
    for _ in range(count):
        for moment in street.moments(*street.normal(rng), rng):
            learner.update(moment)
        learner.forget()
    return learner.result()


@pytest.fixture(scope="module")
def learned(street):
    return learn(street, 30)


@pytest.mark.parametrize(
    ("velocity", "expected"),
    [((0.05, 0.0), 0), ((0.2, 0.0), 1), ((0.2, 0.01), 1), ((0.0, 0.2), 3), ((-0.2, 0.0), 5), ((0.0, -0.2), 7), ((0.5, 0.0), 9),
     ((100.0, 0.0), 1 + 8 * (len(BANDS) - 1))],
)  # fmt: skip
def test_a_movement_is_its_band_and_its_direction(velocity, expected):
    assert movement(np.array(velocity)) == expected


@pytest.mark.slow
def test_a_hundred_tracks_suffice_to_tell_what_is_unusual(street):
    """A small edition of bench/abnormal.py, whose figures are in the guide."""
    learned = learn(street, 120)
    rng = np.random.default_rng(6)
    score = lambda track: learned.score(track, street.HW)  # noqa: E731
    calm = np.array([street.worst(street.moments(*street.normal(rng), rng), score) for _ in range(25)])
    for kind in ("runs on the pavement", "walks on the road", "stands on the road", "car the wrong way"):
        strange = np.array([street.worst(street.moments(*street.unusual(rng, kind), rng), score) for _ in range(6)])
        assert street.auc(calm, strange) > 0.95, kind
        assert (strange >= learned.limit).all(), kind
    assert (calm >= learned.limit).mean() <= 0.1


def test_a_movement_is_a_probability_in_its_cell(learned):
    """All movements together are one; all cells together too."""
    p = np.exp(-learned.surprise)
    cells = p.sum(axis=2)  # p(cell) / p(uniform), as the movements of each add up to one
    assert cells.mean() == pytest.approx(1.0)
    assert (p / cells[..., None]).sum(axis=2) == pytest.approx(np.ones(cells.shape))


def test_a_track_that_is_too_new_has_no_score(street, learned):
    moments = street.moments("person", street.line((10, 120), (100, 120), 50), np.random.default_rng(0))
    assert np.isnan(learned.score(moments[0].tracks[0], street.HW))
    assert np.isfinite(learned.score(moments[-1].tracks[0], street.HW))


def test_what_was_learned_survives_the_disk(tmp_path, learned):
    learned.save(tmp_path / "normal.json")
    again = read_normal(tmp_path / "normal.json")
    assert np.abs(again.surprise - learned.surprise).max() <= 0.0005
    assert (again.limit, again.samples) == (learned.limit, learned.samples)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{}", "not a model that `openlepton watch --learn` wrote"),
        ("[1]", "not a model that"),
        ("nonsense", "damaged; learn it anew"),
        ('{"format": "openlepton-abnormal-1"}', "damaged; learn it anew"),
        (
            '{"format": "openlepton-abnormal-1", "limit": 1, "samples": 1, "surprise": [[[1, 2]]]}',
            "damaged; learn it anew",
        ),
        (
            json.dumps({"format": "openlepton-abnormal-1", "limit": 1, "samples": 1, "surprise": [[[None] * 57]]}),
            "damaged",
        ),
    ],
)
def test_a_file_that_is_something_else_is_an_error(tmp_path, text, message):
    path = tmp_path / "normal.json"
    path.write_text(text)
    with pytest.raises(RulesInvalid, match=message):
        read_normal(path)


def test_too_little_to_learn_from_is_an_error(street):
    learner = Learner()
    for moment in street.moments("person", street.line((10, 120), (100, 120), 50), np.random.default_rng(0)):
        learner.update(moment)
    with pytest.raises(RulesInvalid, match="too little moved to learn what is normal: "):
        learner.result()
