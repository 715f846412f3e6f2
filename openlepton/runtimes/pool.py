"""Things of which each serves one thread at a time, kept for the next caller."""

import queue
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

Thing = TypeVar("Thing")


class Pool(Generic[Thing]):
    """Gives each caller a thing of its own, made when all others are in use.

    Args:
        make: Makes one more.
        first: What there is already.
    """

    def __init__(self, make: Callable[[], Thing], first: Thing) -> None:
        self._make = make
        self._free: queue.LifoQueue[Thing] = queue.LifoQueue()  # the one used last is the warmest
        self._free.put(first)

    @contextmanager
    def one(self) -> Iterator[Thing]:
        """Give a thing that nobody else uses meanwhile; after an error it is not used again."""
        try:
            thing = self._free.get_nowait()
        except queue.Empty:
            thing = self._make()
        yield thing
        self._free.put(thing)
