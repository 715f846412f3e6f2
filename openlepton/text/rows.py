"""Texts in files: plain lines, JSON lines or a column of a CSV table, read and written as a stream, one row at a time."""

import csv
import gzip
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import IO, Any, Literal, TypeVar, cast

from openlepton.errors import DataInvalid, DataNotFound, OutputError, UsageError

Form = Literal["text", "jsonl", "csv", "tsv"]
Item = TypeVar("Item")

MAX_LINE = 16 * 1024 * 1024
"""The most bytes of one line; a longer one is skipped and reported."""

_FORMS: Mapping[str, Form] = {".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv", ".tsv": "tsv"}
_DELIMITERS = {"csv": ",", "tsv": "\t"}


@dataclass(frozen=True)
class Row:
    """One text of a file."""

    text: str
    number: int
    """The line on which the row begins, from 1."""
    fields: Mapping[str, Any] = field(default_factory=dict)
    """Everything the row says, the text included; empty for plain lines."""


def form_of(path: Path) -> Form:
    """Return how the file of that name is written: JSON lines, CSV or TSV by its ending, else plain lines."""
    suffixes = [suffix.lower() for suffix in path.suffixes if suffix.lower() != ".gz"]
    return _FORMS.get(suffixes[-1], "text") if suffixes else "text"


def read_rows(
    source: Path | IO[bytes], *, form: Form | None = None, column: str = "text"
) -> Iterator[Row | DataInvalid]:
    """Yield the texts of `source` in order, or the error in place of a row that cannot be read; nothing else is kept in memory.

    Args:
        source: A file, which may end in `.gz`, or a binary stream such as `sys.stdin.buffer`.
        form: How it is written; by default what its ending says, plain lines for a stream.
        column: Which column of a table, or which key of a JSON object, is the text.

    Raises:
        DataNotFound: There is no such file, or it cannot be opened.
        DataInvalid: A table without a column of that name, or a damaged `.gz`.
    """
    if not isinstance(source, Path):
        yield from _rows(source, form or "text", column, "standard input")
        return
    try:
        with gzip.open(source, "rb") if source.suffix.lower() == ".gz" else source.open("rb") as file:
            yield from _rows(cast("IO[bytes]", file), form or form_of(source), column, str(source))
    except (gzip.BadGzipFile, EOFError) as error:
        raise DataInvalid(f"{source}: not a whole .gz file: {error}") from None
    except OSError as error:
        raise DataNotFound(f"{source}: {error.strerror or error}") from None


def in_batches(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Yield the items in order, `size` at a time; fewer in the last batch."""
    following = iter(items)
    while batch := list(islice(following, size)):
        yield batch


@contextmanager
def row_writer(
    out: Path | IO[str], *, form: Form | None = None, columns: Sequence[str] = ()
) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """Give a function that writes one row: a JSON object on a line, or a line of a table.

    A file appears when all is written, and replaces the one that was there; upon failure nothing changes.

    Args:
        out: A file, or a stream such as `sys.stdout`.
        form: How to write; by default what the file's ending says, JSON lines where it says nothing.
        columns: Of a table; by default those of its first row. What a row has besides is left out.

    Raises:
        OutputError: The file cannot be written.
        UsageError: The form is plain lines, which have no columns.
    """
    form = form or ("jsonl" if not isinstance(out, Path) or form_of(out) == "text" else form_of(out))
    if form == "text":
        raise UsageError("rows are written as jsonl, csv or tsv")
    if not isinstance(out, Path):
        yield _writer(out, form, columns)
        return
    with _replacing(out) as file:
        yield _writer(file, form, columns)


@contextmanager
def line_writer(out: Path | IO[str]) -> Iterator[Callable[[str], None]]:
    """Give a function that writes one text as one line; the breaks in it become blanks.

    A file appears when all is written, and replaces the one that was there; upon failure nothing changes.

    Raises:
        OutputError: The file cannot be written.
    """

    def write(file: IO[str], text: str) -> None:
        file.write(" ".join(text.splitlines()) + "\n")

    if not isinstance(out, Path):
        yield partial(write, out)
        return
    with _replacing(out) as file:
        yield partial(write, file)


@contextmanager
def _replacing(out: Path) -> Iterator[IO[str]]:
    """Give a file to write that takes the place of `out` once all is written."""
    beside = out.with_name(f".{os.urandom(8).hex()}.part")
    try:
        try:
            with beside.open("x", encoding="utf-8", newline="") as file:
                yield file
            beside.replace(out)
        except BaseException:
            beside.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise OutputError(f"{out}: cannot be written: {error.strerror or error}") from error


def _rows(file: IO[bytes], form: Form, column: str, where: str) -> Iterator[Row | DataInvalid]:
    if form in _DELIMITERS:
        yield from _table(file, _DELIMITERS[form], column, where)
        return
    for number, line in _lines(file, where):
        if isinstance(line, DataInvalid):
            yield line
        elif form == "text":
            yield Row(line, number)
        elif line.strip():
            yield _json_row(line, number, column, f"{where}: line {number}")


def _lines(file: IO[bytes], where: str) -> Iterator[tuple[int, str | DataInvalid]]:
    """Yield each line with its number, without what ends it."""
    number = start = 0
    while data := file.readline(MAX_LINE + 1):
        number += 1
        begin, size, more = start, len(data), data
        while not more.endswith(b"\n") and size > MAX_LINE and (more := file.readline(MAX_LINE)):
            size += len(more)
        start += size
        if size > MAX_LINE + data.endswith(b"\n"):
            yield number, DataInvalid(f"{where}: line {number}: {size:,} bytes, a line has at most {MAX_LINE:,}")
            continue
        try:
            yield number, data.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
        except UnicodeDecodeError as error:
            at = begin + error.start + (3 if number == 1 and data.startswith(b"\xef\xbb\xbf") else 0)
            yield (
                number,
                DataInvalid(
                    f"{where}: line {number}: not UTF-8 text: byte {at} of the file is 0x{data[at - begin]:02x}"
                ),
            )


def _json_row(line: str, number: int, column: str, where: str) -> Row | DataInvalid:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        return DataInvalid(f"{where}: not JSON: {error}")
    if isinstance(value, str):
        return Row(value, number, {column: value})
    if not isinstance(value, dict):
        return DataInvalid(f"{where}: expected an object or a string, got {type(value).__name__}")
    text = value.get(column)
    if not isinstance(text, str):
        return DataInvalid(
            f"{where}: {column}: expected text, got {type(text).__name__}; keys: {', '.join(value)}"[:500]
        )
    return Row(text, number, value)


def _table(file: IO[bytes], delimiter: str, column: str, where: str) -> Iterator[Row | DataInvalid]:
    broken: list[DataInvalid] = []

    def lines() -> Iterator[str]:
        for _, line in _lines(file, where):
            if isinstance(line, DataInvalid):
                broken.append(line)
                yield "\n"
            else:
                yield line + "\n"

    limit = csv.field_size_limit()
    reader = csv.reader(lines(), delimiter=delimiter)
    header: list[str] | None = None
    while True:
        number = reader.line_num + 1
        csv.field_size_limit(MAX_LINE)
        try:
            cells = next(reader, None)
        except csv.Error as error:
            yield DataInvalid(f"{where}: line {number}: {error}")
            continue
        finally:
            csv.field_size_limit(limit)
        if broken:
            if header is None:
                raise broken[0]
            yield from broken
            broken.clear()
        elif cells is None:
            return
        elif header is None:
            if column not in cells:
                raise DataInvalid(f"{where}: no column {column!r}; columns: {', '.join(cells)}"[:500])
            header = cells
        elif not cells:
            continue
        elif len(cells) != len(header):
            yield DataInvalid(f"{where}: line {number}: expected {len(header)} cells, got {len(cells)}")
        else:
            fields = dict(zip(header, cells, strict=True))
            yield Row(fields[column], number, fields)


def _writer(file: IO[str], form: Form, columns: Sequence[str]) -> Callable[[Mapping[str, Any]], None]:
    if form == "jsonl":
        return lambda row: (file.write(json.dumps(row, ensure_ascii=False, default=str) + "\n"), None)[1]
    table: list[csv.DictWriter[str]] = []

    def write(row: Mapping[str, Any]) -> None:
        if not table:
            table.append(
                csv.DictWriter(
                    file, columns or list(row), delimiter=_DELIMITERS[form], extrasaction="ignore", lineterminator="\n"
                )
            )
            table[0].writeheader()
        table[0].writerow(row)

    return write
