"""How long one image takes, split by where the time goes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from openlepton.errors import UsageError


@dataclass(frozen=True)
class Timing:
    """Milliseconds for one image."""

    prepare_ms: float
    """Resizing and packing, before the network."""
    infer_ms: float
    """The network."""
    finish_ms: float
    """Thresholds, suppression and the way back to the original pixels."""

    @classmethod
    def of(cls, timings: Sequence[Timing], *, quantile: float = 0.5) -> Timing:
        """Return the given quantile of each part: the median unless told, which one slow first call does not move.

        Raises:
            UsageError: There is nothing to take a quantile of.
        """
        if not timings:
            raise UsageError("no timings to summarise")
        table = np.array([(one.prepare_ms, one.infer_ms, one.finish_ms) for one in timings])  # (N, 3)
        return cls(*np.quantile(table, quantile, axis=0).tolist())

    @property
    def total_ms(self) -> float:
        """All three parts together."""
        return self.prepare_ms + self.infer_ms + self.finish_ms

    def to_dict(self) -> dict[str, float]:
        """Return the parts and their sum, to a microsecond."""
        parts = {"prepare_ms": self.prepare_ms, "infer_ms": self.infer_ms, "finish_ms": self.finish_ms}
        return {name: round(value, 3) for name, value in (parts | {"total_ms": self.total_ms}).items()}
