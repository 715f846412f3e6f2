"""The command line: one function for each command; what a command needs is imported inside it."""

import json
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from openlepton import __version__
from openlepton.errors import OpenLeptonError, UsageError

if TYPE_CHECKING:
    from openlepton.job import Done, Item, Outputs
    from openlepton.predictor import Predictor

app = typer.Typer(
    name="openlepton",
    help="Open models that stay open: detect and classify without torch, without network, under Apache-2.0.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

Sources = Annotated[list[str], typer.Argument(help="Files, folders, globs, or - for one image on standard input.")]
Model = Annotated[str | None, typer.Option(help="A name that `openlepton models` lists, or a model folder.")]
MinScore = Annotated[float | None, typer.Option(help="Report what scores more than this, 0..1.")]
MaxIou = Annotated[float | None, typer.Option(help="Of boxes that overlap by more than this the best stays, 0..1.")]
MaxDetections = Annotated[int | None, typer.Option(help="The most detections in one image.")]
Classes = Annotated[list[str] | None, typer.Option(help="Names or ids to report, separated by commas.")]
Agnostic = Annotated[bool, typer.Option("--agnostic", help="Boxes of different classes suppress each other too.")]
Size = Annotated[int | None, typer.Option(help="Longest side that the model sees, pixels.")]
Out = Annotated[Path | None, typer.Option(help="Where pictures and texts go (default: a new folder in runs/).")]
NoImages = Annotated[bool, typer.Option("--no-images", help="Write no annotated pictures.")]
Json = Annotated[
    bool, typer.Option("--json", help="One JSON object a line on standard output; pictures only with --out.")
]
SaveTxt = Annotated[bool, typer.Option("--save-txt", help="Write labels/NAME.txt for each image.")]
SaveConf = Annotated[bool, typer.Option("--save-conf", help="End the rows of --save-txt with the score.")]
SaveCrops = Annotated[bool, typer.Option("--save-crops", help="Write each detection as crops/CLASS/NAME-k.jpg.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace outputs that exist (an input never is).")]
Lang = Annotated[str, typer.Option(help="Language of the class names: en or zh.")]
Top = Annotated[int, typer.Option(min=1, help="How many classes are listed.")]
Workers = Annotated[int | None, typer.Option(min=1, help="Images worked on at the same time (default: processors).")]


@app.command()
def detect(
    sources: Sources,
    model: Model = None,
    min_score: MinScore = None,
    max_iou: MaxIou = None,
    max_detections: MaxDetections = None,
    classes: Classes = None,
    agnostic: Agnostic = False,
    size: Size = None,
    out: Out = None,
    no_images: NoImages = False,
    as_json: Json = False,
    save_txt: SaveTxt = False,
    save_conf: SaveConf = False,
    save_crops: SaveCrops = False,
    overwrite: Overwrite = False,
    lang: Lang = "en",
    workers: Workers = None,
) -> None:
    """Find objects in images: print a table or JSON, write annotated pictures."""
    chosen = None if classes is None else [part.strip() for text in classes for part in text.split(",") if part.strip()]
    options = {
        "min_score": min_score,
        "max_iou": max_iou,
        "max_detections": max_detections,
        "classes": chosen,
        "agnostic": agnostic,
        "size": size,
        "language": _language(lang),
    }
    files = {"txt": save_txt, "confidence": save_conf, "crops": save_crops, "overwrite": overwrite}
    _main_job("detect", sources, model, options, out, no_images, as_json, files, workers)


@app.command()
def classify(
    sources: Sources,
    model: Model = None,
    top: Top = 5,
    out: Out = None,
    no_images: NoImages = False,
    as_json: Json = False,
    save_txt: SaveTxt = False,
    overwrite: Overwrite = False,
    lang: Lang = "en",
    workers: Workers = None,
) -> None:
    """Say what images show: print a table or JSON, write annotated pictures."""
    options = {"top": top, "language": _language(lang)}
    files = {"txt": save_txt, "overwrite": overwrite}
    _main_job("classify", sources, model, options, out, no_images, as_json, files, workers)


@app.command()
def models(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
    verify: Annotated[bool, typer.Option("--verify", help="Check size and sha256 of every file.")] = False,
) -> None:
    """List the models that are at hand, with licence and numbers."""
    from openlepton.hub.index import models as listed

    folders = listed()
    if verify:
        for folder in folders:
            for name in folder.card.files:
                folder.read(name)
            print(f"{folder.card.name}: {len(folder.card.files)} file(s) as the card says")
        return
    rows = []
    for folder in folders:
        card = folder.card
        megabytes = sum(facts.size for facts in card.files.values()) / 1e6
        if as_json:
            print(json.dumps(card.model_dump(mode="json", exclude={"labels", "labels_zh"}), ensure_ascii=False))
        numbers = "; ".join(f"{metric.name} {metric.value:g} ({metric.data})" for metric in card.metrics)
        rows.append([card.name, card.task, f"{len(card.labels)}", f"{megabytes:.1f} MB", card.licence, numbers])
    if not as_json:
        _table(["model", "task", "classes", "size", "licence", "numbers"], rows)


@app.command()
def convert(
    weights: Annotated[Path, typer.Argument(help="A YOLOv5 checkpoint (.pt), v5.0 to v7.0.")],
    out: Annotated[Path, typer.Argument(help="The model folder to make.")],
    licence: Annotated[str, typer.Option(help="SPDX licence of the weights, as their author states it.")],
    name: Annotated[str | None, typer.Option(help="Name of the model (default: from the file's name).")] = None,
    precision: Annotated[
        str, typer.Option(help="How weights are stored in the graph: float32 or float16.")
    ] = "float32",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a model folder that exists.")] = False,
) -> None:
    """Turn a foreign checkpoint into a model folder, running nothing that is in it."""
    from openlepton.hub.convert import convert as make

    if precision not in ("float32", "float16"):
        raise UsageError(f"--precision: expected float32 or float16, got {precision}")
    card = make(weights, out, licence=licence, name=name, weights_type=precision, overwrite=overwrite)
    difference = card.parity
    print(f"{out}: {card.architecture}, {len(card.labels)} classes, licence {card.licence}")
    if difference is not None:
        boxes = "" if difference.boxes_px is None else f"{difference.boxes_px:.2g} px, "
        print(f"graph and network differ by at most {boxes}{difference.scores:.2g} in scores ({difference.inputs})")
    print(f"use it: openlepton {card.task} PHOTO --model {out}")


@app.command()
def inspect(
    weights: Annotated[Path, typer.Argument(help="A checkpoint (.pt).")],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """List what is inside a checkpoint, the code it names included, without running any of it."""
    from openlepton.hub.checkpoint import inspect_checkpoint

    inspection = inspect_checkpoint(weights)
    if as_json:
        print(json.dumps(inspection.to_dict(), ensure_ascii=False))
    else:
        print(inspection.to_text())


@app.callback(invoke_without_command=True)
def _version(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        print(f"openlepton {__version__}")
        raise typer.Exit


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status: 0 well, 1 something failed, 2 wrong usage, 130 interrupted."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a Chinese class name must not break a pipe in a Latin-1 locale
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")
    try:
        app(args=arguments, standalone_mode=True)
    except SystemExit as leaving:
        return leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
    except OpenLeptonError as error:
        _complain(error)
        return 2 if isinstance(error, UsageError) else 1
    except BrokenPipeError:  # the reader has seen enough, as in `openlepton detect ... | head`
        sys.stderr.close()
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _main_job(
    task: str,
    sources: Sequence[str],
    model: str | None,
    options: dict[str, Any],
    out: Path | None,
    no_images: bool,
    as_json: bool,
    files: dict[str, bool],
    workers: int | None,
) -> None:
    from openlepton import job

    pictures = not no_images and (out is not None or not as_json)
    items = list(job.expand(sources))
    many = sum(1 for item in items if isinstance(item, job.Item)) > 1
    predictor = _load(task, model, many, options)
    outputs = job.Outputs(out or job.numbered(Path("runs") / task), images=pictures, **files)
    started = time.perf_counter()
    rows, failures = [], 0
    for done in _progress(_each(predictor, items, outputs, workers), len(items)):
        if done.error is not None:
            failures += 1
            _complain(done.error)
        if done.result is not None and as_json:
            card = {"name": predictor.card.name, "version": predictor.card.version}
            head, *rest = done.result.to_dict().items()
            print(
                json.dumps(dict([("source", done.name), head, ("model", card), *rest]), ensure_ascii=False), flush=True
            )
        elif done.result is not None:
            rows.append(_row(done))
    if not as_json and rows:
        seconds = time.perf_counter() - started
        _table(["image", "size", "found" if task == "detect" else "shows"], rows)
        where = f"; see {outputs.folder}" if outputs.any() else ""
        each = f" ({1000 * seconds / len(rows):.0f} ms each)" if len(rows) > 1 else ""
        print(f"{len(rows)} image{'s' * (len(rows) > 1)} in {seconds:.2f} s{each} with {predictor.card.name}{where}")
    if failures:
        raise typer.Exit(1)


def _each(
    predictor: "Predictor[Any]", items: "list[Item | Done]", outputs: "Outputs", workers: int | None
) -> "Iterator[Done]":
    """Yield what became of each item, failures in their places."""
    from openlepton import job

    done = job.run(predictor, (item for item in items if isinstance(item, job.Item)), outputs, workers=workers)
    for item in items:
        yield next(done) if isinstance(item, job.Item) else item


def _load(task: str, model: str | None, many: bool, options: dict[str, Any]) -> "Predictor[Any]":
    from functools import partial

    from openlepton.hub.index import default, find
    from openlepton.predictor import load
    from openlepton.runtimes.onnx import OnnxRuntime

    chosen = default(task) if model is None else model
    card = find(chosen).card
    if card.task != task:
        raise UsageError(f"--model: {card.name} is a model to {card.task} with: openlepton {card.task} ...")
    # Many images: each processor has a graph of its own, which is faster than all processors sharing one image.
    return load(chosen, runtime=partial(OnnxRuntime, threads=1 if many else 0), **options)


def _row(done: "Done") -> list[str]:
    from openlepton.results import Classification

    result = done.result
    if result is None or result.image_hw is None:
        return [done.name, "", ""]
    size = f"{result.image_hw[1]}x{result.image_hw[0]}"
    if isinstance(result, Classification):
        return [done.name, size, ", ".join(f"{label} {score:.0%}" for label, score in result.best(result.top))]
    counts: dict[str, int] = {}
    for label in result.labels:
        counts[label] = counts.get(label, 0) + 1
    return [done.name, size, ", ".join(f"{count} {label}" for label, count in counts.items()) or "nothing"]


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console() if sys.stdout.isatty() else Console(width=10_000, no_color=True)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    console.print(table)


def _progress(done: "Iterator[Done]", count: int) -> "Iterator[Done]":
    """Yield from `done`, with a bar on standard error when there is enough to wait for and somebody to see it."""
    if count < 10 or not sys.stderr.isatty():
        yield from done
        return
    from rich.console import Console
    from rich.progress import track

    yield from track(done, "images", count, console=Console(stderr=True), transient=True)


def _complain(error: OpenLeptonError) -> None:
    text = " ".join(str(error).split())
    print(f"openlepton: {text} [{error.code}]", file=sys.stderr)


def _language(text: str) -> str:
    if text not in ("en", "zh"):
        raise UsageError(f"--lang: expected en or zh, got {text}")
    return text
