"""Work on frames in threads while the next ones are decoded."""

from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, nullcontext
from queue import Empty, Full, Queue
from threading import Event, Thread
from typing import Any, TypeVar

Item = TypeVar("Item")
Out = TypeVar("Out")

_POLL_S = 0.2  # waiting for ever could not be interrupted on Windows


def ahead(function: Callable[[Item], Out], items: Iterable[Item], *, workers: int = 1) -> Generator[Out, None, None]:
    """Yield `function(item)` for each item, in order, as soon as it is there.

    Items are taken in a thread of their own and worked on in `workers` others, a few ahead of the consumer; a result never waits
    for the next item to arrive, as it would with `predictor.ordered_map`, so live streams stay live. What `items` or `function`
    raise is raised here, in its place.
    """
    made: Queue[Future[Out] | None] = Queue(workers)
    stop = Event()
    with ThreadPoolExecutor(workers, thread_name_prefix="openlepton") as pool:
        feeder = Thread(target=_feed, args=(pool, function, items, made, stop), name="openlepton-feed", daemon=True)
        feeder.start()
        try:
            while (future := _next(made)) is not None:
                yield future.result()
        finally:
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)


def _feed(
    pool: ThreadPoolExecutor,
    function: Callable[[Item], Out],
    items: Iterable[Item],
    made: "Queue[Future[Out] | None]",
    stop: Event,
) -> None:
    """Take items, hand them to the pool, and put what will become of them in order, until told to stop."""
    source: Any = iter(items)
    last: Future[Out] | None = None
    with closing(source) if hasattr(source, "close") else nullcontext():
        try:
            for item in source:
                if stop.is_set() or not _put(made, pool.submit(function, item), stop):
                    return
        except BaseException as error:  # noqa: BLE001 - it is raised again in the consumer's thread
            last = Future()
            last.set_exception(error)
    if last is not None:
        _put(made, last, stop)
    _put(made, None, stop)


def _put(made: "Queue[Any]", what: Any, stop: Event) -> bool:
    while not stop.is_set():
        try:
            made.put(what, timeout=_POLL_S)
        except Full:
            continue
        return True
    return False


def _next(made: "Queue[Future[Out] | None]") -> "Future[Out] | None":
    while True:
        try:
            return made.get(timeout=_POLL_S)
        except Empty:
            continue
