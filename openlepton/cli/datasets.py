"""`openlepton dataset check` and `openlepton dataset convert`: what a data set holds, and the same in another layout."""

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from openlepton.cli.tell import bar, table

app = typer.Typer(
    name="dataset",
    help="Check data sets, and write them in other layouts.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Layout = Annotated[
    Literal["yolo", "coco", "voc", "masks", "classes"] | None,
    typer.Option(help="How DATA lies there (default: found out)."),
]
ZeroBased = Annotated[
    bool, typer.Option("--zero-based", help="VOC counts pixels from 0, as LabelImg does, not from 1.")
]
SHOWN = 20


@app.command()
def check(
    data: Annotated[Path, typer.Argument(help="A data set's folder, a data.yaml, or a COCO .json.")],
    out: Annotated[Path | None, typer.Option(help="Write report.json and pictures into this new folder.")] = None,
    layout: Layout = None,
    zero_based: ZeroBased = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the whole report as one JSON object.")] = False,
) -> None:
    """Look through a whole data set for what spoils training; nothing in it is changed."""
    from openlepton.data.datasets import open_dataset
    from openlepton.data.doctor import check as look
    from openlepton.data.doctor import write_report

    dataset = open_dataset(data, layout=layout, voc_first_pixel=0 if zero_based else 1)
    with bar("images") as advance:
        report = look(dataset, progress=advance)
    if out is not None:
        write_report(report, dataset, out)
    if as_json:
        print(json.dumps(report.to_dict(), ensure_ascii=False))
        return
    print(f"{data}: {report.layout}, {len(report.classes)} classes")
    rows = [
        [s.name, f"{s.images:,}", f"{s.usable:,}", f"{s.backgrounds:,}", f"{s.class_counts.sum():,}"]
        for s in report.splits
    ]
    table(["split", "images", "usable", "background", "objects"], rows)
    print()
    table(
        ["class", "objects"],
        [
            [name, f"{sum(int(split.class_counts[index]) for split in report.splits):,}"]
            for index, name in enumerate(report.classes)
        ],
    )
    print()
    table(["problem", "times"], [[kind, f"{count:,}"] for kind, count in report.kinds.items()])
    for problem in report.problems[:SHOWN]:
        print(problem)
    if len(report.problems) > SHOWN:
        print(f"... and {len(report.problems) - SHOWN:,} more: --json prints all, --out writes them with pictures")


@app.command()
def convert(
    data: Annotated[Path, typer.Argument(help="A data set's folder, a data.yaml, or a COCO .json.")],
    out: Annotated[Path, typer.Argument(help="The new folder; it appears whole or not at all.")],
    to: Annotated[Literal["yolo", "coco", "voc"], typer.Option(help="The layout to write.")],
    layout: Layout = None,
    outlines: Annotated[bool, typer.Option("--outlines", help="Write outlines where the layout has them.")] = False,
    keep_flagged: Annotated[
        bool, typer.Option("--keep-flagged", help="Keep crowds and difficult objects in YOLO.")
    ] = False,
    link: Annotated[bool, typer.Option("--link", help="Link to the images instead of copying them.")] = False,
    zero_based: ZeroBased = False,
) -> None:
    """Write a data set in another layout; the data set itself is not touched."""
    from openlepton.data.convert import convert_dataset
    from openlepton.data.datasets import open_dataset

    dataset = open_dataset(data, layout=layout, voc_first_pixel=0 if zero_based else 1)
    with bar("images") as advance:
        report = convert_dataset(
            dataset,
            out,
            to,
            images="link" if link else "copy",
            outlines=outlines,
            keep_flagged=keep_flagged,
            voc_first_pixel=0 if zero_based else 1,
            progress=advance,
        )
    print(f"{out}: {report.layout}, {report.objects:,} objects")
    table(["split", "images"], [[name, f"{count:,}"] for name, count in report.images.items()])
    left_out = {
        "images left out": report.images_left_out,
        "crowds and difficult objects left out": report.flagged_left_out,
        "outlines left out": report.outlines_left_out,
        "boxes cut at the edge": report.boxes_clipped,
        "boxes left out": report.boxes_left_out,
        "images renamed": report.images_renamed,
    }
    for what, count in left_out.items():
        if count:
            print(f"{what}: {count:,}")
