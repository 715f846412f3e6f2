"""One Kalman filter of constant velocity for all tracks at once (R. E. Kalman, 1960; as SORT and DeepSORT set it up).

The papers write an 8 x 8 covariance for each track: four coordinates and their rates. As all their noises are diagonal, and a
coordinate is moved by its own rate alone, that matrix consists of four independent 2 x 2 blocks, for ever. Kept as such, no step
needs a matrix product or an inverse, and each is a few operations on `(N, 4)` for any number of tracks; the numbers are the same.

A state is `(5, N, 4)`: the value of each coordinate, its rate (per frame), the value's variance, its covariance with the rate,
and the rate's variance.
"""

import numpy as np

from openlepton.arrays import Array, Ints


def begin(measured: Array, value_var: Array, rate_var: Array) -> Array:
    """Return the state `(5, N, 4)` of tracks seen for the first time, at rest.

    Args:
        measured: `(N, 4)` coordinates.
        value_var: `(N, 4)` or `(4,)`, how uncertain they are.
        rate_var: `(N, 4)` or `(4,)`, how uncertain it is that they rest.
    """
    state = np.zeros((5, *measured.shape))
    state[0], state[2], state[4] = measured, value_var, rate_var
    return state


def predict(state: Array, value_noise: Array, rate_noise: Array) -> None:
    """Move every track on by one frame, in place.

    Args:
        state: `(5, N, 4)`.
        value_noise: `(N, 4)` or `(4,)`, variance that a frame adds to the values.
        rate_noise: The same for the rates.
    """
    value, rate, var, cov, rate_var = state
    value += rate
    var += cov
    cov += rate_var
    var += cov
    var += value_noise
    rate_var += rate_noise


def correct(state: Array, rows: Ints, measured: Array, noise: Array) -> None:
    """Correct some tracks by what was seen of them, in place.

    Args:
        state: `(5, N, 4)`.
        rows: `(K,)` which tracks.
        measured: `(K, 4)` coordinates.
        noise: `(K, 4)` or `(4,)`, the variance of the measurement.
    """
    chosen = state[:, rows]  # (5, K, 4)
    value, _, var, cov, rate_var = chosen
    gain = chosen[2:4] / (var + noise)  # (2, K, 4): of values and of rates
    chosen[:2] += gain * (measured - value)
    rate_var -= gain[1] * cov
    chosen[2:4] *= 1 - gain[0]
    state[:, rows] = chosen


def shift(state: Array, motion: Array, powers: tuple[int, int]) -> None:
    """Move every track along with the picture, in place.

    What turning the picture makes two coordinates have in common is left out; between frames it turns by little.

    Args:
        state: `(5, N, 4)`, of which the first two coordinates are x and y.
        motion: `(2, 3)` where a point of the last frame is in this one.
        powers: By which power of the scale the other two coordinates grow: 0 for a ratio, 1 for a length, 2 for an area.
    """
    turn = motion[:, :2]
    scale = float(np.sqrt(abs(np.linalg.det(turn))))
    state[:2, :, :2] = state[:2, :, :2] @ turn.T
    state[0, :, :2] += motion[:, 2]
    state[2:, :, :2] = state[2:, :, :2] @ (turn**2).T
    factor = np.array([scale**power for power in powers])
    state[:2, :, 2:] *= factor
    state[2:, :, 2:] *= factor**2
