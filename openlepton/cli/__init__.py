"""The command line: one function for each command; what a command needs is imported inside it."""

import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from openlepton import __version__
from openlepton.cli import (
    apps,
    classifying,
    datasets,
    exporting,
    images,
    models,
    serving,
    training,
    translating,
    video,
)
from openlepton.cli.tell import complain
from openlepton.errors import OpenLeptonError, UsageError

COMMANDS = (
    images.detect,
    images.segment,
    images.classify,
    classifying.classify_text,
    classifying.sentiment,
    translating.translate,
    models.models,
    models.convert,
    models.inspect,
    exporting.export,
    exporting.bench,
    training.train,
    training.evaluate,
    video.track,
    apps.watch,
    apps.drive,
    serving.serve,
)
"""Every command, in the order in which `--help` lists them."""

app = typer.Typer(
    name="openlepton",
    help="Open models that stay open: detect, segment and classify without torch, without network, under Apache-2.0.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
for command in COMMANDS:
    app.command()(command)
app.add_typer(datasets.app)


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
        complain(error)
        return 2 if isinstance(error, UsageError) else 1
    except BrokenPipeError:  # the reader has seen enough, as in `openlepton detect ... | head`
        sys.stderr.close()
        return 1
    except KeyboardInterrupt:
        return 130
    return 0
