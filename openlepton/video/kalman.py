"""One Kalman filter of constant velocity for all tracks at once (R. E. Kalman, 1960; as SORT and DeepSORT set it up).

The papers write an 8 x 8 covariance for each track: four coordinates and their rates. As all their noises are diagonal, and a
coordinate is moved by its own rate alone, that matrix consists of four independent 2 x 2 blocks, for ever. Kept as such, no step
needs a matrix product or an inverse, and each is a few operations on `(N, 4)` for any number of tracks; the numbers are the same.

A state is `(5, 4, N)`: the value of each of four coordinates of N tracks, its rate (per frame), the value's variance, its
covariance with the rate, and the rate's variance.
"""

import numpy as np

from openlepton.arrays import Array, Ints


def begin(measured: Array, variance: Array) -> Array:
    """Return the state `(5, 4, N)` of tracks seen for the first time, at rest.

    Args:
        measured: `(4, N)` coordinates.
        variance: `(2, 4, N)` or `(2, 4, 1)`: how uncertain they are, and how uncertain it is that they rest.
    """
    state = np.zeros((5, *measured.shape))
    state[0], state[2::2] = measured, variance
    return state


def predict(state: Array, noise: Array) -> None:
    """Move every track on by one frame, in place.

    Args:
        state: `(5, 4, N)`.
        noise: `(2, 4, N)` or `(2, 4, 1)`, variance that a frame adds to the values and to the rates.
    """
    state[0] += state[1]
    state[2:4] += state[3:5]  # the variance grows by the covariance, and that by the rate's variance,
    state[2] += state[3]  # which makes var + 2 cov + rate_var
    state[2::2] += noise


def correct(state: Array, rows: Ints, measured: Array, noise: Array) -> None:
    """Correct some tracks by what was seen of them, in place.

    Args:
        state: `(5, 4, N)`.
        rows: `(K,)` which tracks.
        measured: `(4, K)` coordinates.
        noise: `(4, K)` or `(4, 1)`, the variance of the measurement.
    """
    chosen = state.take(rows, axis=2)  # (5, 4, K)
    gain = chosen[2:4] / (chosen[2] + noise)  # (2, 4, K): of values and of rates
    chosen[:2] += gain * (measured - chosen[0])
    chosen[3:] -= gain[1] * chosen[2:4]
    chosen[2] -= gain[0] * chosen[2]
    state[..., rows] = chosen


def shift(state: Array, motion: Array, powers: tuple[int, int]) -> None:
    """Move every track along with the picture, in place.

    What turning the picture makes two coordinates have in common is left out; between frames it turns by little.

    Args:
        state: `(5, 4, N)`, of which the first two coordinates are x and y.
        motion: `(2, 3)` where a point of the last frame is in this one.
        powers: By which power of the scale the other two coordinates grow: 0 for a ratio, 1 for a length, 2 for an area.
    """
    turn = motion[:, :2]
    factor = scale_of(motion) ** np.array(powers)[:, None]
    state[:2, :2] = turn @ state[:2, :2]
    state[0, :2] += motion[:, 2:]
    state[2:, :2] = turn**2 @ state[2:, :2]
    state[:2, 2:] *= factor
    state[2:, 2:] *= factor**2


def scale_of(motion: Array) -> float:
    """Return by how much a motion `(2, 3)` enlarges."""
    return float(np.sqrt(abs(np.linalg.det(motion[:, :2]))))
