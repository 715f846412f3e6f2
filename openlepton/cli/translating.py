"""`openlepton translate`, and what `openlepton train --task translate` does."""

import json
import sys
from collections.abc import Iterator, Sequence
from itertools import tee
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any

import typer

from openlepton.cli.tell import bar, complain, note
from openlepton.errors import DataInvalid, DataNotFound, OpenLeptonError, OutputError, UsageError

if TYPE_CHECKING:
    from openlepton.results import Translation
    from openlepton.text.translate import Translator

WHOLE = (".srt", ".po", ".pot")
"""Files that are read and written as a whole, since a sentence may go on from line to line."""
MAX_WHOLE = 64 * 1024 * 1024
"""The most bytes of such a file."""
COLUMNS = ("translation", "translation_score")
"""What rows of JSON lines and tables get beside what they had."""


def translate(
    texts: Annotated[list[str] | None, typer.Argument(help="What to translate (default: standard input).")] = None,
    source: Annotated[str | None, typer.Option("--from", help="The language that is read, such as en.")] = None,
    target: Annotated[str | None, typer.Option("--to", help="The language that is written, such as zh.")] = None,
    file: Annotated[
        Path | None, typer.Option(help="A file: text by lines, .srt, .po, .jsonl, .csv or .tsv, all but two also .gz.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Where it goes (default: standard output).")] = None,
    column: Annotated[str, typer.Option(help="Of a table or of JSON lines: which column or key.")] = "text",
    model: Annotated[str | None, typer.Option(help="A name that `openlepton models` lists, or a model folder.")] = None,
    beam: Annotated[int | None, typer.Option(min=1, max=64, help="Hypotheses kept at each step; 1 is greedy.")] = None,
    threads: Annotated[int, typer.Option(min=0, help="Processor threads (default: one for each core).")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line on standard output.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace --out if it exists.")] = False,
) -> None:
    """Translate texts, files or standard input, line by line, in order; markup, times and keys of .srt and .po stay."""
    if texts and file is not None:
        raise UsageError("translate: texts or --file, not both")
    if out is not None and out.exists():
        if file is not None and out.samefile(file):
            raise UsageError(f"{out}: is the file that is read; write to another")
        if not overwrite:
            raise OutputError(f"{out}: exists; --overwrite replaces it")
    translator = _open(model, source, target, beam, threads)
    if file is not None and file.suffix.lower() in WHOLE:
        _whole(translator, file, out)
        return
    failed = _rows(translator, texts, file, out, column, as_json=as_json)
    if failed:
        raise typer.Exit(1)


def _open(model: str | None, source: str | None, target: str | None, beam: int | None, threads: int) -> "Translator":
    """Return the translator that was named, or the one that ships for the two languages."""
    from openlepton.hub.index import find
    from openlepton.hub.translators import find_pair, pairs
    from openlepton.text.translate import open_translator

    if model is None:
        if source is None or target is None:
            known = ", ".join(f"--from {a} --to {b}" for a, b in sorted(pairs())) or "none ships: name a --model"
            raise UsageError(f"translate: say from which language to which: {known}")
        folder = find_pair(source, target)
    else:
        folder = find(model)
    translator = open_translator(folder, beam=beam, threads=threads)
    reads, writes = translator.pair
    if source not in (None, reads) or target not in (None, writes):
        raise UsageError(
            f"{folder.card.name}: translates {reads} to {writes}, not {source or reads} to {target or writes}"
        )
    return translator


def _whole(translator: "Translator", file: Path, out: Path | None) -> None:
    """Translate subtitles or a catalogue of messages."""
    from openlepton.files import write_atomic
    from openlepton.text.po import translate_po
    from openlepton.text.subtitles import translate_srt

    text = _read(file)
    with bar("texts") as moved:

        def through(parts: Sequence[str]) -> list[str]:
            found = []
            for number, done in enumerate(translator.stream(parts), 1):
                if isinstance(done, OpenLeptonError):
                    raise done
                found.append(done.text)
                moved(number, len(parts))
            return found

        if file.suffix.lower() == ".srt":
            result = translate_srt(text, through, str(file))
        else:
            filled = translate_po(text, through, str(file))
            result = filled.text
            for message in filled.left:
                note(f"{file}: left empty, as a placeholder got lost in it: {message[:80]!r}")
    if out is None:
        sys.stdout.write(result)
    else:
        write_atomic(out, result.encode())


def _read(file: Path) -> str:
    try:
        with file.open("rb") as opened:
            data = opened.read(MAX_WHOLE + 1)
    except OSError as error:
        raise DataNotFound(f"{file}: {error.strerror or error}") from None
    if len(data) > MAX_WHOLE:
        raise DataInvalid(f"{file}: more than {MAX_WHOLE:,} bytes")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DataInvalid(
            f"{file}: line {line}: not UTF-8 text: byte {error.start} of the file is 0x{data[error.start]:02x}"
        ) from None


def _rows(
    translator: "Translator",
    texts: list[str] | None,
    file: Path | None,
    out: Path | None,
    column: str,
    *,
    as_json: bool,
) -> int:
    """Translate row by row; return how many failed."""
    from openlepton.text.rows import Row, form_of, line_writer, read_rows, row_writer

    given: Iterator[Row | DataInvalid]
    if texts:
        given = iter([Row(text, number) for number, text in enumerate(texts, 1)])
    else:
        given = read_rows(file if file is not None else sys.stdin.buffer, column=column)
    waits = not texts and file is None and sys.stdin.isatty()
    rows, kept = tee(given)  # a group of rows apart, no more
    done = translator.stream((row.text if isinstance(row, Row) else row for row in rows), together=1 if waits else None)
    form = "text" if out is None and file is None else form_of(out if out is not None else file or Path())
    where: Path | IO[str] = sys.stdout if out is None else out
    failed, total = 0, _lines(file)
    with bar("lines") as moved:
        if as_json and out is None:
            for result in _told(done, moved, total):
                failed += result is None
                print(json.dumps(result.to_dict() if result is not None else None, ensure_ascii=False), flush=waits)
        elif form == "text":
            with line_writer(where) as write_line:
                for result in _told(done, moved, total):
                    failed += result is None
                    write_line("" if result is None else result.text)
                    if out is None:
                        sys.stdout.flush()
        else:
            with row_writer(where, form=form) as write_row:
                for row, result in zip(kept, _told(done, moved, total), strict=True):
                    failed += result is None
                    if isinstance(row, Row) and result is not None:
                        found = dict(zip(COLUMNS, (result.text, round(result.score, 6)), strict=True))
                        write_row(dict(row.fields or {column: row.text}) | found)
    return failed


def _told(done: "Iterator[Translation | OpenLeptonError]", moved: Any, total: int) -> "Iterator[Translation | None]":
    """Yield each translation, or None where an error was told instead."""
    for number, result in enumerate(done, 1):
        if isinstance(result, OpenLeptonError):
            complain(result)
            yield None
        else:
            yield result
        moved(number, max(number, total))


def _lines(file: Path | None) -> int:
    """Return how many lines a file has, for the bar; 0 where nobody sees it or that is not known at once."""
    if file is None or file.suffix.lower() == ".gz" or not sys.stderr.isatty() or not file.is_file():
        return 0
    with file.open("rb") as opened:
        return sum(block.count(b"\n") for block in iter(lambda: opened.read(1 << 20), b""))


def train_translator(
    *,
    data: str | None,
    source: str | None,
    target: str | None,
    out: Path | None,
    batch: int | None,
    vocabulary: int,
    width: int,
    layers: int,
    **options: Any,
) -> None:
    """Train a translator on pairs of sentences and say how good it is."""
    from openlepton.job import numbered
    from openlepton.train.translator import TranslatorRun, train

    if data is None or source is None or target is None:
        raise UsageError("train --task translate: --data FOLDER, --from and --to are needed")
    run = TranslatorRun(
        data=data,
        out=str(out or numbered(Path("runs") / "translate")),
        source=source,
        target=target,
        batch_tokens=batch or 4096,
        vocabulary=vocabulary,
        width=width,
        encoder_layers=layers,
        decoder_layers=layers,
        **{name: value for name, value in options.items() if value is not None},
    )
    trained = train(run, tell=note)
    for metric in trained.card.metrics:
        print(f"{metric.name} {metric.value:g} ({metric.data}; {metric.note})")
    print(f'the model is {trained.folder}; use it: openlepton translate "..." --model {trained.folder}')
