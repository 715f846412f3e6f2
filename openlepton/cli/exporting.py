"""`openlepton export` and `bench`: a model for every runtime, and which of them is the fastest here."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from openlepton.cli.tell import bar, table

if TYPE_CHECKING:
    from openlepton.export.accuracy import Measured

Engine = Literal["onnx", "openvino", "litert", "savedmodel", "torchscript"]
Precision = Literal["float32", "float16", "bfloat16", "int8"]


def export(
    model: Annotated[str, typer.Argument(help="A model's name or folder.")],
    to: Annotated[Engine, typer.Option("--to", help="The engine that shall run it.")],
    out: Annotated[
        Path | None,
        typer.Option(help="The model folder to write, or to add the form to (default: exported/NAME)."),
    ] = None,
    precision: Annotated[Precision, typer.Option(help="Of the arithmetic, or of the stored weights.")] = "float32",
    data: Annotated[
        Path | None,
        typer.Option(
            help="A data set to measure AP on in both forms, or a folder of images (default: bundled photographs)."
        ),
    ] = None,
    split: Annotated[str, typer.Option(help="Of the data set.")] = "val",
    imgsz: Annotated[int | None, typer.Option(help="Side of the images, for engines that take one size alone.")] = None,
    calibration: Annotated[int, typer.Option(min=1, help="At most so many images give int8 its ranges.")] = 100,
    force: Annotated[
        bool, typer.Option("--force", help="Write the form even if it is too far from the original.")
    ] = False,
) -> None:
    """Write a model in the form of another runtime, compare both on real images, and say so in its card."""
    from openlepton.export.write import export as write
    from openlepton.export.write import report
    from openlepton.hub.index import find

    target = Path("exported") / find(model).card.name if out is None else out
    with bar("comparing") as progress:
        card = write(
            model,
            to,
            target,
            precision=precision,
            data=data,
            split=split,
            size=imgsz,
            calibration=calibration,
            force=force,
            progress=progress,
        )
    form = card.forms[-1]
    size = sum(card.files[file].size for file in form.files)
    print(f"{target}: {', '.join(form.files)}, {size / 1e6:.1f} MB")
    print(report(form, form.compared))
    print(f'use it: openlepton.load("{target.as_posix()}", runtime="{form.engine}-{form.precision}")')


def bench(
    model: Annotated[str, typer.Argument(help="A model's name or folder.")],
    imgsz: Annotated[int | None, typer.Option(help="Side of the image (default: the card's).")] = None,
    seconds: Annotated[float, typer.Option(min=0.1, max=60, help="How long each figure is measured.")] = 1.5,
    data: Annotated[
        str | None,
        typer.Option(help="A data set on which to measure each form as well: folder, data.yaml, COCO .json."),
    ] = None,
    split: Annotated[str, typer.Option(help="Of the data set.")] = "val",
    limit: Annotated[int, typer.Option(min=0, help="Only the first so many images of it; 0 for all.")] = 100,
    remember: Annotated[
        bool, typer.Option("--remember", help='Let `runtime="auto"` take the fastest one that keeps the accuracy.')
    ] = False,
) -> None:
    """Measure every form of a model on this machine: latency, throughput, memory, and accuracy, by its card or on DATA."""
    from openlepton.export.speed import bench as measure
    from openlepton.export.speed import fastest
    from openlepton.hub.index import find
    from openlepton.runtimes.remembered import remember as write

    def shown(value: float | None, digits: int = 1) -> str:
        return "-" if value is None else f"{value:.{digits}f}"

    with bar("images") as progress:
        rows = list(
            measure(model, size=imgsz, seconds=seconds, data=data, split=split, limit=limit or None, progress=progress)
        )
    told = next((row.measured.metric for row in rows if row.measured), "")
    table(
        ["form", "ms an image", "images/s", "MB", "keeps", *([told, "difference"] if told else []), "accuracy"],
        [
            [
                row.form,
                shown(row.latency_ms),
                shown(row.images_per_s),
                shown(row.memory_mb, 0),
                "yes" if row.keeps else "no",
                *(_measured(row.measured) if told else []),
                row.problem or row.accuracy,
            ]
            for row in rows
        ],
    )
    best = fastest(rows)
    if best is not None:
        print(f"fastest of those that keep the accuracy: {best.form}")
        if remember:
            print(f'remembered for runtime="auto" in {write(find(model).card, best.form)}')


def _measured(found: "Measured | None") -> list[str]:
    """Return the cells of what a form reaches, and how much that is more than the original reaches."""
    return ["-", "-"] if found is None else [f"{found.value:.4f}", f"{-found.lost:+.4f}"]
