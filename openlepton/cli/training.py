"""`openlepton train` and `openlepton evaluate`: a model of one's own, and how good one is."""

import json
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from openlepton.cli.tell import complain, table
from openlepton.errors import UsageError

if TYPE_CHECKING:
    from openlepton.metrics import Timing
    from openlepton.train.watch import Event

Framework = Literal["torch", "tensorflow"]


def train(
    data: Annotated[str | None, typer.Option(help="A data set: folder, data.yaml or COCO .json.")] = None,
    task: Annotated[
        str,
        typer.Option(help="detect, segment, semantic, classify, classify-text or translate (default: the model's)."),
    ] = "",
    model: Annotated[str, typer.Option(help="The architecture (default: the smallest of the task).")] = "",
    framework: Annotated[Framework, typer.Option(help="What computes; tensorflow needs the extra tf.")] = "torch",
    epochs: Annotated[int | None, typer.Option(min=1, help="How often every image is seen.")] = None,
    batch: Annotated[int | None, typer.Option(min=1, help="Images in a batch, of all processes together.")] = None,
    imgsz: Annotated[int | None, typer.Option("--imgsz", "--size", help="Longest side of an image, pixels.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the run (default: a new one in runs/).")] = None,
    pretrained: Annotated[
        str | None, typer.Option(help="Start from a model, its folder, or a .safetensors; none starts afresh.")
    ] = None,
    freeze: Annotated[str, typer.Option(help="Do not train: backbone, or the first so many layers.")] = "",
    run: Annotated[Path | None, typer.Option("--resume", help="Go on with the run in this folder.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, mps, or auto.")] = None,
    optimizer: Annotated[str | None, typer.Option(help="sgd or adamw; AdamW wants about --lr 0.002.")] = None,
    lr: Annotated[float | None, typer.Option(help="Learning rate after warm-up.")] = None,
    cosine: Annotated[bool, typer.Option("--cosine", help="Learn less along a cosine, not a line.")] = False,
    augment: Annotated[str | None, typer.Option(help="none, low, medium or high.")] = None,
    closing: Annotated[int, typer.Option(min=0, help="The last epochs, without mosaic and mixup.")] = 0,
    multi_scale: Annotated[float, typer.Option(help="Resize batches by 1 ± up to this.")] = 0.0,
    multi_label: Annotated[
        bool, typer.Option("--multi-label", help="classify: an image may have any number of classes.")
    ] = False,
    smoothing: Annotated[float | None, typer.Option(help="Label smoothing, 0..1.")] = None,
    patience: Annotated[int, typer.Option(min=0, help="Stop after so many epochs without a better one.")] = 100,
    evaluate_every: Annotated[int, typer.Option(min=1, help="Epochs between evaluations.")] = 1,
    precision: Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16.")] = "auto",
    workers: Annotated[int | None, typer.Option(min=0, help="Threads that prepare images (default: 1).")] = None,
    threads: Annotated[int | None, typer.Option(min=0, help="Processor threads (default: cores).")] = None,
    cache_mb: Annotated[int | None, typer.Option(min=0, help="Memory for images, megabytes (default: 1024).")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of everything that is left to chance.")] = 0,
    name: Annotated[str, typer.Option(help="Name of the model (default: the folder's).")] = "",
    licence: Annotated[str, typer.Option(help="SPDX licence of the trained weights.")] = "NOASSERTION",
    allow_empty_classes: Annotated[
        bool, typer.Option("--allow-empty-classes", help="Accept classes that no image shows.")
    ] = False,
    compiled: Annotated[
        bool, typer.Option("--compile", help="Compile the network first; needs a C++ compiler.")
    ] = False,
    source: Annotated[
        str | None, typer.Option("--from", help="translate: the language read, a column of DATA.")
    ] = None,
    target: Annotated[str | None, typer.Option("--to", help="translate: the language written, a column too.")] = None,
    minutes: Annotated[float | None, typer.Option(min=0.01, help="translate: stop after so long.")] = None,
    vocabulary: Annotated[int, typer.Option(min=300, help="translate: pieces of the tokenizer.")] = 8000,
    width: Annotated[int, typer.Option(min=8, help="translate: width of the Transformer.")] = 256,
    layers: Annotated[int, typer.Option(min=1, help="translate: layers that read, and layers that write.")] = 3,
    column: Annotated[str, typer.Option(help="classify-text: which column or key of DATA is the text.")] = "text",
) -> None:
    """Train a model on your own images or texts; leaves a model folder, best/, checkpoints to go on from, and tables."""
    if task == "classify-text":
        from openlepton.cli.classifying import train_text

        train_text(
            data=data,
            model=model or pretrained or "",
            out=out,
            column=column,
            multi_label=multi_label,
            epochs=epochs,
            batch=batch,
            lr=lr,
            threads=threads or 0,
            seed=seed,
            name=name,
            licence=licence,
        )
        return
    if task == "translate":
        from openlepton.cli.translating import train_translator

        train_translator(
            data=data,
            source=source,
            target=target,
            out=run or out,
            epochs=epochs,
            minutes=minutes,
            batch=batch,
            lr=lr,
            smoothing=smoothing,
            precision=precision,
            threads=threads,
            seed=seed,
            name=name,
            licence=licence,
            vocabulary=vocabulary,
            width=width,
            layers=layers,
        )
        return
    from openlepton.job import numbered
    from openlepton.train import suited

    fit, resume = _trainer(framework)
    machine = {"device": device, "workers": workers, "threads": threads, "cache_mb": cache_mb}
    given = {key: value for key, value in machine.items() if value is not None}
    with _bar() as watch:
        if run is not None:
            # What decides the numbers comes from the checkpoint; the rest may differ from machine to machine.
            moved = {"data": data, "epochs": epochs}
            trained = resume(run, changes=given | {k: v for k, v in moved.items() if v is not None}, watch=watch)
        else:
            if data is None:
                raise UsageError("--data: name a data set (or --resume a run)")
            wanted = {
                "epochs": epochs,
                "batch": batch,
                "size": imgsz,
                "pretrained": pretrained,
                "optimizer": optimizer,
                "lr": lr,
                "schedule": "cosine" if cosine else None,
                "augment": augment,
                "smoothing": smoothing,
            }
            config = suited(
                task,
                model,
                data=data,
                out=str(out or numbered(Path("runs") / "train")),
                freeze=freeze,
                precision=precision,
                closing_epochs=closing,
                multi_scale=multi_scale,
                multi_label=multi_label,
                patience=patience,
                evaluate_every=evaluate_every,
                seed=seed,
                name=name,
                licence=licence,
                allow_empty_classes=allow_empty_classes,
                compile=compiled,
                command=shlex.join(["openlepton", *sys.argv[1:]]),
                **given,
                **{key: value for key, value in wanted.items() if value is not None},
            )
            trained = fit(config, watch=watch)
    if trained.report is not None:
        _print_report(trained.report)
        command = "segment" if trained.task == "semantic" else trained.task
        print(f"the model is {trained.best}; use it: openlepton {command} PHOTO --model {trained.best}")
    if trained.interrupted:
        raise typer.Exit(130)


def evaluate(
    model: Annotated[str, typer.Argument(help="A name that `openlepton models` lists, or a model folder.")],
    data: Annotated[str, typer.Argument(help="A data set: folder, data.yaml or COCO .json.")],
    task: Annotated[
        Literal["track"] | None,
        typer.Option(help="track: MODEL and DATA are ground truth and tracks, MOTChallenge's text."),
    ] = None,
    split: Annotated[str, typer.Option(help="Which part of the data set.")] = "val",
    size: Annotated[int | None, typer.Option(help="Longest side that the model sees, pixels.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first so many images.")] = None,
    batch: Annotated[int, typer.Option(min=1, help="Images that go through the graph together.")] = 1,
    threads: Annotated[int, typer.Option(min=0, help="Processor threads (default: one for each core).")] = 0,
    runtime: Annotated[
        str | None, typer.Option(help="What runs the model: an engine (openvino), a form (onnx-int8), or auto.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    plots: Annotated[Path | None, typer.Option(help="Write curves and a mosaic of predictions to this folder.")] = None,
) -> None:
    """Measure a model on a split of a data set: the numbers of its task, one row for each class, and where the time goes."""
    if task == "track":
        from openlepton.cli.video import evaluate_tracks

        evaluate_tracks(Path(model), Path(data), as_json=as_json)
        return
    from openlepton.hub.index import find
    from openlepton.predictor import load

    if find(model).card.task == "classify-text":
        from openlepton.cli.classifying import evaluate_text

        evaluate_text(model, data, split, threads=threads, as_json=as_json)
        return
    from openlepton.train.lessons import lesson_for

    predictor = load(model, size=size, runtime=runtime, threads=threads)
    lesson = lesson_for(predictor.card.task)
    part = lesson.open(data)[split]
    with _counting("images") as progress:
        done = lesson.evaluate(predictor, part, batch=batch, limit=limit, progress=progress)
    for error in done.unreadable:
        complain(error)
    if plots is not None:
        plots.mkdir(parents=True, exist_ok=True)
        lesson.draw(plots, done)
    if as_json:
        card = {"name": predictor.card.name, "version": predictor.card.version}
        header: dict[str, Any] = {
            "model": card,
            "data": data,
            "split": split,
            "size": size or predictor.card.image_input.size,
        }
        print(json.dumps(header | done.report.to_dict(), ensure_ascii=False))
        return
    _print_report(done.report)


def _trainer(framework: Framework) -> tuple[Any, Any]:
    """Return what trains in a framework, and what goes on."""
    if framework == "tensorflow":
        from openlepton.tf import train as tensorflow

        return tensorflow.fit, tensorflow.resume
    from openlepton.train import fit, resume

    return fit, resume


def _print_report(report: Any) -> None:
    def shown(value: Any) -> str:
        return value if isinstance(value, str) else f"{value}" if isinstance(value, int) else f"{value:.3f}"

    numbers = report.summary()
    table(list(numbers), [[shown(value) for value in numbers.values()]])
    print()
    table(list(report.header), ([shown(value) for value in row] for row in report.rows()))
    times: Timing | None = getattr(report, "timing", None)
    if times is not None:
        boxes = " (with every box above a score of 0.001)" if hasattr(report, "ap50") else ""
        print(
            f"\n{report.images} images; median ms: prepare {times.prepare_ms:.1f}, infer {times.infer_ms:.1f}, "
            f"finish {times.finish_ms:.1f}{boxes}"
        )


@contextmanager
def _counting(what: str) -> "Iterator[Callable[[int, int], None] | None]":
    """Give a callback that moves a bar on standard error, where somebody sees it."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, count: bar.update(task, completed=done, total=count)


@contextmanager
def _bar() -> "Iterator[Callable[[Event], None]]":
    """Give a watcher that shows a bar with losses and time left where somebody sees it, and one line for each epoch anyway."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    from openlepton.train.watch import Epoch, Note, Step

    console = Console(stderr=True, highlight=False, soft_wrap=True)
    columns = TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[losses]}")
    with Progress(*columns, console=console, transient=True, disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task("", losses="")

        def watch(event: "Event") -> None:
            match event:
                case Note(text):
                    console.print(text, markup=False)
                case Step():
                    losses = " ".join(f"{name} {value:.4f}" for name, value in event.losses.items())
                    bar.update(
                        task,
                        description=f"epoch {event.epoch + 1}/{event.epochs}",
                        completed=event.batch,
                        total=event.batches,
                        losses=f"{losses}  {event.images_per_s:.1f} images/s, {_time(event.eta_s)} left",
                    )
                case Epoch(_, epochs, row, best):
                    numbers = "  ".join(
                        f"{name.rpartition('/')[2]} {value:.4g}" for name, value in row.items() if name != "epoch"
                    )
                    console.print(f"epoch {row['epoch']:.0f}/{epochs}  {numbers}{'  best' * best}", markup=False)

        yield watch


def _time(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
