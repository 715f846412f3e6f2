"""`openlepton classify-text` and `openlepton sentiment`, and what `train` and `evaluate` do for classifiers of texts."""

import json
import shlex
import sys
from collections.abc import Iterator, Mapping
from itertools import tee
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any

import typer

from openlepton.cli.tell import bar, complain, note
from openlepton.errors import DataInvalid, OpenLeptonError, OutputError, UsageError

if TYPE_CHECKING:
    from openlepton.results import Classification
    from openlepton.text.rows import Row

UNSURE, NEUTRAL = "unsure", "neutral"
"""What stands for the label where the model is less sure than asked for: of topics and the like, and of sentiment."""

Texts = Annotated[list[str] | None, typer.Argument(help="What to read (default: standard input, line by line).")]
File = Annotated[
    Path | None, typer.Option(help="A file: text by lines, .jsonl, .csv or .tsv, each also .gz; - for standard input.")
]
Out = Annotated[Path | None, typer.Option(help="Where rows go, .jsonl, .csv or .tsv (default: standard output).")]
Column = Annotated[str, typer.Option(help="Of a table or of JSON lines: which column or key is the text.")]
MinScore = Annotated[
    float | None, typer.Option(min=0, max=1, help="Where no class scores more, the model is unsure and says so.")
]
Threads = Annotated[int, typer.Option(min=0, help="Processor threads (default: one for each core).")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object a line on standard output.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace --out if it exists.")]


def classify_text(
    texts: Texts = None,
    file: File = None,
    out: Out = None,
    column: Column = "text",
    model: Annotated[str | None, typer.Option(help="A name that `openlepton models` lists, or a model folder.")] = None,
    min_score: MinScore = None,
    top: Annotated[int, typer.Option(min=1, help="How many classes --json lists.")] = 5,
    lang: Annotated[str, typer.Option(help="Of the class names, en or zh.")] = "en",
    threads: Threads = 0,
    as_json: AsJson = False,
    overwrite: Overwrite = False,
) -> None:
    """Say what texts are about: lines, JSON lines or a column of a table, in order, without holding the file in memory."""
    options = {"min_score": min_score, "top": top, "language": lang, "threads": threads}
    _run(model or "topics", texts, file, out, column, UNSURE, options, as_json=as_json, overwrite=overwrite)


def sentiment(
    texts: Texts = None,
    file: File = None,
    out: Out = None,
    column: Column = "text",
    model: Annotated[
        str, typer.Option(help="A name or a model folder (default: by each text's language).")
    ] = "sentiment",
    min_score: MinScore = None,
    lang: Annotated[str, typer.Option(help="Of the class names, en or zh.")] = "en",
    threads: Threads = 0,
    as_json: AsJson = False,
    overwrite: Overwrite = False,
) -> None:
    """Say whether texts are positive or negative, in English or Chinese; neutral where --min-score is not reached."""
    options = {"min_score": min_score, "language": lang, "threads": threads}
    _run(model, texts, file, out, column, NEUTRAL, options, as_json=as_json, overwrite=overwrite)


def _run(
    model: str,
    texts: list[str] | None,
    file: Path | None,
    out: Path | None,
    column: str,
    unsure: str,
    options: Mapping[str, Any],
    *,
    as_json: bool,
    overwrite: bool,
) -> None:
    """Classify row by row; the exit status is 1 if a row could not be."""
    from openlepton.predictor import load
    from openlepton.text.rows import Row, form_of, read_rows, row_writer

    if texts and file is not None:
        raise UsageError("texts or --file, not both")
    if options["language"] not in ("en", "zh"):
        raise UsageError(f"lang: expected en or zh, got {options['language']}")
    if out is not None and out.exists():
        if file is not None and file.exists() and out.samefile(file):
            raise UsageError(f"{out}: is the file that is read; write to another")
        if not overwrite:
            raise OutputError(f"{out}: exists; --overwrite replaces it")
    predictor = load(model, **options)
    if predictor.card.task != "classify-text":
        raise UsageError(f"{predictor.card.name}: its task is {predictor.card.task}: it does not classify texts")
    waits = not texts and file is None and sys.stdin.isatty()
    if texts:
        given: Iterator[Row | DataInvalid] = iter([Row(text, number) for number, text in enumerate(texts, 1)])
    else:
        given = read_rows(sys.stdin.buffer if file is None or str(file) == "-" else file, column=column)
    rows, kept = tee(given)  # a group of rows apart, no more
    items = (row.text if isinstance(row, Row) else row for row in rows)
    done = (one for item in items for one in predictor.stream([item])) if waits else predictor.stream(items)
    failed = 0
    with bar("texts") as moved:
        if out is None and (as_json or file is None or form_of(file) == "text"):
            for number, (row, result) in enumerate(zip(kept, done, strict=True), 1):
                failed += _print(row, result, unsure, as_json=as_json)
                moved(number, number)
        else:
            where: Path | IO[str] = sys.stdout if out is None else out
            form = form_of(file) if out is None and file is not None else None
            with row_writer(where, form=form) as write:
                for number, (row, result) in enumerate(zip(kept, done, strict=True), 1):
                    if isinstance(result, OpenLeptonError):
                        complain(result)
                        failed += 1
                    elif isinstance(row, Row):
                        write(_beside(row.fields or {column: row.text}, _found(result, unsure)))
                    moved(number, number)
    if failed:
        raise typer.Exit(1)


def _print(row: "Row | DataInvalid", result: "Classification | OpenLeptonError", unsure: str, *, as_json: bool) -> bool:
    """Print one result; return whether it is an error, which is told instead."""
    if isinstance(result, OpenLeptonError):
        complain(result)
        return True
    found = _found(result, unsure)
    if as_json:
        print(json.dumps(found | result.to_dict(), ensure_ascii=False), flush=True)
    else:
        text = "" if isinstance(row, DataInvalid) else " ".join(row.text[:80].split())
        print(f"{found['label']}\t{found['score']:.4f}\t{text}", flush=sys.stdin.isatty())
    return False


def _found(result: "Classification", unsure: str) -> dict[str, Any]:
    """Return what a row gets: its label, or labels with `;` between them, and the score of the best."""
    return {"label": ";".join(result.labels) or unsure, "score": round(result.score, 5)}


def _beside(fields: Mapping[str, Any], found: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row with what was found; what the row had stays, also under such a name."""
    return {**fields, **{f"predicted_{name}" if name in fields else name: value for name, value in found.items()}}


def train_text(
    *,
    data: str | None,
    model: str,
    out: Path | None,
    column: str,
    multi_label: bool,
    epochs: int | None,
    batch: int | None,
    lr: float | None,
    threads: int,
    seed: int,
    name: str,
    licence: str,
) -> None:
    """Train a classifier of texts: a linear one, or one from an encoder folder."""
    from openlepton.cli.training import _print_report
    from openlepton.job import numbered
    from openlepton.train.classifying_text import TextRun, train_encoder, train_linear
    from openlepton.train.text_linear import LinearConfig

    if data is None:
        raise UsageError("train: --data: a JSONL, CSV or TSV file, or a folder with train, dev and test")
    run = TextRun(
        data=data,
        out=str(out or numbered(Path("runs") / "train")),
        model=model or "linear",
        column=column,
        multi_label=multi_label,
        name=name,
        licence=licence,
        command=shlex.join(["openlepton", *sys.argv[1:]]),
    )
    if run.model == "linear":
        trained = train_linear(run, LinearConfig(), tell=note)
    else:
        from openlepton.train.text_encoder import EncoderConfig

        given = {"epochs": epochs, "batch": batch, "lr": lr, "seed": seed}
        config = EncoderConfig(**{key: value for key, value in given.items() if value is not None})  # type: ignore[arg-type]
        trained = train_encoder(run, config, threads=threads, tell=note)
    _print_report(trained.report)
    print(f"the model is {trained.folder}; use it: openlepton classify-text TEXT --model {trained.folder}")


def evaluate_text(model: str, data: str, split: str, *, threads: int, as_json: bool) -> None:
    """Measure a classifier of texts on a split."""
    import numpy as np

    from openlepton.cli.training import _print_report
    from openlepton.metrics.calibration import expected_calibration_error
    from openlepton.metrics.classification import classification_report, tag_report
    from openlepton.predictor import load
    from openlepton.text.labelled import read_labelled

    predictor = load(model, threads=threads)
    card = predictor.card
    parts = read_labelled(Path(data), multi_label=card.classify is not None)
    part = parts.get("dev" if split == "val" else split)
    if part is None or set(part.names) - set(card.labels):
        raise UsageError(f"{data}: expected a split {split} of {', '.join(parts)}, with the classes of {card.name}")
    order = [part.names.index(label) if label in part.names else -1 for label in card.labels]
    scores = np.stack([result.scores for result in predictor.batch(part.texts)])
    if part.truth.ndim == 2:
        padded = np.pad(part.truth, ((0, 0), (0, 1)))
        truth = padded[:, order]
        report: Any = tag_report(scores, truth, card.labels, unit="texts")
    else:
        truth = np.array([card.labels.index(name) for name in part.names])[part.truth]
        report = classification_report(scores, truth, card.labels, unit="texts")
    error = expected_calibration_error(scores, truth)
    if as_json:
        head = {"model": {"name": card.name, "version": card.version}, "data": data, "split": split, "ece": error}
        print(json.dumps(head | report.to_dict(), ensure_ascii=False))
        return
    _print_report(report)
    print(f"\n{len(part)} texts; expected calibration error {error:.4f}")
