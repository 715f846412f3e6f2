"""`openlepton serve`: models as a service."""

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from openlepton.errors import UsageError, missing_extra

if TYPE_CHECKING:
    from openlepton.serve.tokens import Tokens

TOKEN_VARIABLE = "OPENLEPTON_TOKEN"  # noqa: S105 - the name of it


def serve(
    models: Annotated[
        list[str] | None,
        typer.Argument(metavar="[MODEL...]", help="Names or model folders (default: one for every task)."),
    ] = None,
    host: Annotated[
        str, typer.Option(help="Address to listen on; others than this machine's need a token.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 for any that is free.")] = 8000,
    token_file: Annotated[
        Path | None, typer.Option(help=f"Who may ask: a token a line; or one in the variable {TOKEN_VARIABLE}.")
    ] = None,
    workers: Annotated[str, typer.Option(help="Worker processes: a number, or auto to choose by measuring.")] = "auto",
    jobs: Annotated[Path | None, typer.Option(help="The folder that jobs may read from (default: no jobs).")] = None,
    allow_host: Annotated[
        list[str] | None, typer.Option(help="A name that clients may call the server by; repeatable.")
    ] = None,
    queue: Annotated[int, typer.Option(min=1, help="The most items that wait; more are refused at once.")] = 64,
    deadline: Annotated[float, typer.Option(min=0.01, help="Seconds a request may take.")] = 30.0,
    grace: Annotated[float, typer.Option(min=1, help="Seconds that a stop waits for what was accepted.")] = 30.0,
    insecure: Annotated[bool, typer.Option("--insecure", help="Let strangers in without a token.")] = False,
) -> None:
    """Serve models over HTTP, with a page for people."""
    try:
        from openlepton.serve.hosting import serve_models
    except ImportError as error:
        raise missing_extra(error.name, "serve") from None
    from openlepton.serve.settings import Settings

    logging.basicConfig(format="openlepton: %(levelname)s: %(message)s", level=logging.WARNING)
    if workers != "auto" and not (workers.isdecimal() and int(workers)):
        raise UsageError(f"--workers: expected auto or a number, got {workers!r}")
    settings = Settings(
        host=host,
        port=port,
        hosts=tuple(allow_host or ()),
        tokens=_tokens(token_file),
        insecure=insecure,
        workers=None if workers == "auto" else int(workers),
        queue=queue,
        deadline_s=deadline,
        grace_s=grace,
        jobs=jobs,
    )
    status = serve_models(models or (), settings, lambda text: print(f"openlepton serve: {text}", flush=True))
    if status:
        raise typer.Exit(status)


def _tokens(path: Path | None) -> "Tokens":
    from openlepton.serve.tokens import NOBODY, parse_tokens, read_tokens

    if path is not None:
        return read_tokens(path)
    variable = os.environ.get(TOKEN_VARIABLE, "")
    return parse_tokens([variable], TOKEN_VARIABLE) if variable else NOBODY
