"""`openlepton train` and `openlepton evaluate`: a detector of one's own, and how good one is."""

import json
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from openlepton.cli.tell import complain, table
from openlepton.errors import UsageError

if TYPE_CHECKING:
    from openlepton.metrics import Timing
    from openlepton.train.watch import Event


def train(
    data: Annotated[str | None, typer.Option(help="A data set: folder, data.yaml or COCO .json.")] = None,
    model: Annotated[str, typer.Option(help="The architecture, such as yolov5n, yolox-nano or yolov3-tiny.")] = "yolov5n",
    epochs: Annotated[int | None, typer.Option(min=1, help="How often every image is seen (default: 100).")] = None,
    batch: Annotated[int, typer.Option(min=1, help="Images in a batch, of all processes together.")] = 16,
    imgsz: Annotated[int, typer.Option("--imgsz", "--size", help="Longest side of an image, pixels.")] = 640,
    out: Annotated[Path | None, typer.Option(help="Folder of the run (default: a new one in runs/).")] = None,
    pretrained: Annotated[str, typer.Option(help="Start from a model, its folder, or a .safetensors.")] = "",
    freeze: Annotated[str, typer.Option(help="Do not train: backbone, or the first so many layers.")] = "",
    run: Annotated[Path | None, typer.Option("--resume", help="Go on with the run in this folder.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, mps, or auto.")] = None,
    optimizer: Annotated[str, typer.Option(help="sgd or adamw; AdamW wants about --lr 0.002.")] = "sgd",
    lr: Annotated[float, typer.Option(help="Learning rate after warm-up.")] = 0.01,
    cosine: Annotated[bool, typer.Option("--cosine", help="Learn less along a cosine, not a line.")] = False,
    augment: Annotated[str, typer.Option(help="none, low, medium or high.")] = "low",
    closing: Annotated[int, typer.Option(min=0, help="The last epochs, without mosaic and mixup.")] = 0,
    multi_scale: Annotated[float, typer.Option(help="Resize batches by 1 ± up to this.")] = 0.0,
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
        bool, typer.Option("--allow-empty-classes", help="Accept classes without a box.")
    ] = False,
    compiled: Annotated[
        bool, typer.Option("--compile", help="Compile the network first; needs a C++ compiler.")
    ] = False,
) -> None:
    """Train a detector on boxes; leaves a model folder, best/, checkpoints to go on from, tables and pictures."""
    from openlepton.data.augment import PRESETS
    from openlepton.job import numbered
    from openlepton.train import TrainConfig, fit, resume

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
            if augment not in PRESETS:
                raise UsageError(f"--augment: expected {', '.join(PRESETS)}, got {augment}")
            config = TrainConfig(
                data=data,
                out=str(out or numbered(Path("runs") / "train")),
                model=model,
                epochs=100 if epochs is None else epochs,
                batch=batch,
                size=imgsz,
                pretrained=pretrained,
                freeze=freeze,
                optimizer=optimizer,  # type: ignore[arg-type]  # the config checks these three
                precision=precision,  # type: ignore[arg-type]
                schedule="cosine" if cosine else "linear",
                lr=lr,
                augment=PRESETS[augment],
                closing_epochs=closing,
                multi_scale=multi_scale,
                patience=patience,
                evaluate_every=evaluate_every,
                seed=seed,
                name=name,
                licence=licence,
                allow_empty_classes=allow_empty_classes,
                compile=compiled,
                command=shlex.join(["openlepton", *sys.argv[1:]]),
            )
            trained = fit(replace(config, **given), watch=watch)  # type: ignore[arg-type]
    if trained.report is not None:
        _print_report(trained.report)
        print(f"the model is {trained.best}; use it: openlepton {trained.task} PHOTO --model {trained.best}")
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
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    plots: Annotated[Path | None, typer.Option(help="Write curves and a mosaic of predictions to this folder.")] = None,
) -> None:
    """Measure a model on a split of a data set: the numbers of its task, one row for each class, and where the time goes."""
    if task == "track":
        from openlepton.cli.video import evaluate_tracks

        evaluate_tracks(Path(model), Path(data), as_json=as_json)
        return
    from functools import partial

    from openlepton.predictor import load
    from openlepton.runtimes.onnx import OnnxRuntime
    from openlepton.train.lessons import lesson_for

    predictor = load(model, size=size, runtime=partial(OnnxRuntime, threads=threads))
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
            "size": size or predictor.card.input.size,
        }
        print(json.dumps(header | done.report.to_dict(), ensure_ascii=False))
        return
    _print_report(done.report)


def _print_report(report: Any) -> None:
    def shown(value: Any) -> str:
        return value if isinstance(value, str) else f"{value}" if isinstance(value, int) else f"{value:.3f}"

    numbers = report.summary()
    table(list(numbers), [[shown(value) for value in numbers.values()]])
    print()
    table(list(report.header), ([shown(value) for value in row] for row in report.rows()))
    times: Timing | None = getattr(report, "timing", None)
    if times is not None:
        print(
            f"\n{report.images} images; median ms: prepare {times.prepare_ms:.1f}, infer {times.infer_ms:.1f}, "
            f"finish {times.finish_ms:.1f} (with every box above a score of 0.001)"
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
