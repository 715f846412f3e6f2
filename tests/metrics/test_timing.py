"""Where the time goes."""

import pytest

from openlepton.errors import UsageError
from openlepton.metrics import Timing

THREE = [Timing(1, 10, 2), Timing(3, 400, 1), Timing(2, 12, 6)]


def test_the_median_of_each_part_is_not_moved_by_one_slow_call():
    assert Timing.of(THREE) == Timing(2, 12, 2)
    assert Timing.of(THREE, quantile=1) == Timing(3, 400, 6)


def test_parts_and_their_sum_are_stated():
    assert Timing(1.23456, 10, 2).to_dict() == {"prepare_ms": 1.235, "infer_ms": 10, "finish_ms": 2, "total_ms": 13.235}


def test_no_timings_are_refused():
    with pytest.raises(UsageError, match="no timings"):
        Timing.of([])
