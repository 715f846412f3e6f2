"""Work ahead of the consumer keeps order, bounds and errors, and ends when it is told to."""

import threading
import time
from itertools import count, islice

import pytest

from openlepton.video.flow import ahead


def test_results_come_in_order_whoever_finishes_first():
    def work(item):
        time.sleep(0.02 * (item % 3))
        return item

    assert list(ahead(work, range(20), workers=4)) == list(range(20))


def test_a_result_does_not_wait_for_the_next_item():
    taken = threading.Event()

    def slowly():
        yield 1
        taken.wait(60)
        yield 2

    results = ahead(lambda item: item, slowly(), workers=2)
    assert next(results) == 1  # ordered_map would hang here for a minute
    taken.set()
    assert list(results) == [2]


def test_no_more_is_taken_than_is_worked_on():
    taken = []

    def items():
        for index in count():
            taken.append(index)
            yield index

    results = ahead(lambda item: item, items(), workers=2)
    assert next(results) == 0
    time.sleep(0.3)
    assert len(taken) <= 5
    results.close()


@pytest.mark.parametrize("workers", [1, 3])
def test_errors_come_in_their_place(workers):
    def work(item):
        if item == 3:
            raise LookupError("three")
        return item

    results = ahead(work, range(9), workers=workers)
    assert list(islice(results, 3)) == [0, 1, 2]
    with pytest.raises(LookupError, match="three"):
        next(results)


def test_what_the_items_raise_is_raised_after_their_last():
    def items():
        yield 1
        raise LookupError("no more")

    results = ahead(lambda item: 2 * item, items())
    assert next(results) == 2
    with pytest.raises(LookupError, match="no more"):
        next(results)


def test_closing_ends_the_items_and_every_thread():
    closed = threading.Event()
    threads = set()

    def items():
        threads.add(threading.current_thread())
        try:
            yield from count()
        finally:
            closed.set()

    def work(item):
        threads.add(threading.current_thread())
        return item

    results = ahead(work, items(), workers=2)
    next(results)
    results.close()
    assert closed.wait(60)
    assert len(threads) >= 2
    for thread in threads:  # and no others: whoever else has threads in this process is not asked
        thread.join(60)
        assert not thread.is_alive()
