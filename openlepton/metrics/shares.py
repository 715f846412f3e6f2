"""Parts of wholes, where a whole may be nothing."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from openlepton.arrays import Array


def share(part: ArrayLike, whole: ArrayLike) -> Array:
    """Return `part / whole` in double precision, NaN where there is no whole."""
    part, whole = np.broadcast_arrays(np.asarray(part, np.float64), np.asarray(whole, np.float64))
    shares: Array = np.divide(part, whole, out=np.full(whole.shape, np.nan), where=whole > 0)
    return shares


def mean(values: Array) -> float:
    """Return the mean of what is not NaN; NaN where nothing is left."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")


def plain(value: Any) -> Any:
    """Return a number as JSON takes it: floats to six places, None for NaN."""
    if isinstance(value, float):
        return None if np.isnan(value) else round(value, 6)
    return value
