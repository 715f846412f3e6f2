"""Work on frames in threads while the next ones are decoded."""

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")
Out = TypeVar("Out")


def ahead(function: Callable[[Item], Out], items: Iterable[Item], *, workers: int = 1) -> Iterator[Out]:
    """Yield `function(item)` for each item, in order, as soon as it is there.

    Items are taken in a thread of their own and worked on in `workers` others, at most `workers` items ahead of the consumer; a
    result never waits for the next item to arrive, as it would with `predictor.ordered_map`, so live streams stay live. With
    `workers=1` it is the way to draw or write while the next frame is worked on.
    """
    raise NotImplementedError
