"""One filter for all tracks gives the numbers of the textbook's filter, one matrix for each track."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openlepton.video.kalman import begin, correct, predict, shift

MOVE = np.eye(8) + np.eye(8, k=4)
SEE = np.eye(4, 8)


def textbook(steps, value, value_var, rate_var, noises, seen_noise):
    """Kalman's equations for one track with 8 x 8 matrices; `steps` are measurements or None."""
    state, covariance = np.concatenate([value, np.zeros(4)]), np.diag(np.concatenate([value_var, rate_var]))
    for measured in steps:
        state, covariance = MOVE @ state, MOVE @ covariance @ MOVE.T + np.diag(noises.ravel())
        if measured is not None:
            gain = covariance @ SEE.T @ np.linalg.inv(SEE @ covariance @ SEE.T + np.diag(seen_noise))
            state = state + gain @ (measured - SEE @ state)
            covariance = (np.eye(8) - gain @ SEE) @ covariance
    return state, covariance


@settings(max_examples=30)
@given(seed=st.integers(0, 2**32 - 1), count=st.integers(1, 6), length=st.integers(1, 12))
def test_it_is_the_textbook(seed, count, length):
    rng = np.random.default_rng(seed)
    value = rng.normal(0, 100, (4, count))
    variance, noises = rng.uniform(0.1, 50, (2, 4, count)), rng.uniform(0.01, 5, (2, 4, count))
    seen_noise = rng.uniform(0.1, 10, (4, count))
    measured = value[:, None] + rng.normal(0, 20, (4, length, count))
    seen = rng.random((length, count)) < 0.7
    state = begin(value, variance)
    for step in range(length):
        predict(state, noises)
        rows = np.flatnonzero(seen[step])
        correct(state, rows, measured[:, step, rows], seen_noise[:, rows])
    for track in range(count):
        steps = [measured[:, step, track] if seen[step, track] else None for step in range(length)]
        mean, covariance = textbook(
            steps, value[:, track], *variance[:, :, track], noises[:, :, track], seen_noise[:, track]
        )
        assert state[:2, :, track].ravel() == pytest.approx(mean, rel=1e-9, abs=1e-9)
        assert state[2, :, track] == pytest.approx(np.diag(covariance)[:4], rel=1e-9)
        assert state[3, :, track] == pytest.approx(np.diag(covariance, 4), rel=1e-9)
        assert state[4, :, track] == pytest.approx(np.diag(covariance)[4:], rel=1e-9)


def test_a_shift_of_the_picture_moves_places_and_turns_speeds():
    state = begin(np.array([[100.0], [50.0], [0.5], [40.0]]), np.full((2, 4, 1), 4.0))
    state[1, :2, 0] = 3, 0
    turn = 2 * np.array([[0, -1.0], [1, 0]])  # a quarter turn, twice as large
    shift(state, np.column_stack([turn, [10, 20]]), (0, 1))
    assert state[0, :, 0] == pytest.approx([-100 + 10, 200 + 20, 0.5, 80])
    assert state[1, :2, 0] == pytest.approx([0, 6])
    assert state[2, :, 0] == pytest.approx([16, 16, 4, 16])


def test_no_tracks_are_no_trouble():
    state = begin(np.zeros((4, 0)), np.zeros((2, 4, 1)))
    predict(state, np.ones((2, 4, 1)))
    correct(state, np.zeros(0, int), np.zeros((4, 0)), np.ones((4, 1)))
    assert state.shape == (5, 4, 0)
