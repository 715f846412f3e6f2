"""What the commands say: tables on standard output, one line for each failure on standard error, a bar while it takes long."""

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from openlepton.errors import OpenLeptonError

Thing = TypeVar("Thing")


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table, as wide as it needs to be where nobody watches."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console() if sys.stdout.isatty() else Console(width=10_000, no_color=True)
    made = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for column in columns:
        made.add_column(column, overflow="fold")
    for row in rows:
        made.add_row(*(Text(cell) for cell in row))
    console.print(made)


def progress(things: Iterator[Thing], count: int, what: str = "images") -> Iterator[Thing]:
    """Yield from `things`, with a bar on standard error when there is enough to wait for and somebody to see it."""
    if count < 10 or not sys.stderr.isatty():
        yield from things
        return
    from rich.console import Console
    from rich.progress import track

    yield from track(things, what, count, console=Console(stderr=True), transient=True)


@contextmanager
def bar(what: str) -> Iterator[Callable[[int, int], None]]:
    """Give a function that takes how many are done and of how many, and moves a bar where somebody sees it."""
    if not sys.stderr.isatty():
        yield lambda _done, _total: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as shown:
        task = shown.add_task(what, total=None)
        yield lambda done, total: shown.update(task, completed=done, total=total)


def complain(error: OpenLeptonError) -> None:
    """Print what went wrong, in one line with its code, on standard error."""
    text = " ".join(str(error).split())
    print(f"openlepton: {text} [{error.code}]", file=sys.stderr)


def note(text: str) -> None:
    """Print what is worth knowing though nothing failed, in one line on standard error."""
    print(f"openlepton: {' '.join(text.split())}", file=sys.stderr, flush=True)
