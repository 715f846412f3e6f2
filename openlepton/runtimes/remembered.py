"""Which form of a model was the fastest on this machine: `openlepton bench --remember` writes it, `runtime="auto"` reads it."""

import hashlib
import json
import os
import platform
import sys
from pathlib import Path

from openlepton.card import ModelCard
from openlepton.errors import OutputError
from openlepton.files import write_atomic
from openlepton.runtimes.cores import usable_cores

MAX_BYTES = 1_000_000
"""Of the file; larger ones are not read."""


def path() -> Path:
    """Return where the choices are: `runtimes.json` in the user's cache folder, or in that of `OPENLEPTON_CACHE`."""
    given = os.environ.get("OPENLEPTON_CACHE")
    if given:
        return Path(given) / "runtimes.json"
    if sys.platform == "win32":
        home = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        home = Path.home() / "Library" / "Caches"
    else:
        home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return home / "openlepton" / "runtimes.json"


def recall(card: ModelCard) -> str | None:
    """Return the form that was measured to be the fastest for exactly these files on this kind of machine, if any was."""
    found = _read().get(_key(card))
    return found if isinstance(found, str) else None


def remember(card: ModelCard, form: str) -> Path:
    """Write down that `form` is the fastest, and return where.

    Raises:
        OutputError: The cache folder cannot be written.
    """
    file = path()
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{file.parent}: {error.strerror or error}") from None
    write_atomic(file, json.dumps(_read() | {_key(card): form}, indent=1, sort_keys=True).encode())
    return file


def _key(card: ModelCard) -> str:
    files = "".join(sorted(facts.sha256 for facts in card.files.values()))
    machine = f"{platform.machine()} {platform.processor()} {usable_cores()}"
    return f"{card.name} {hashlib.sha256(f'{files} {machine}'.encode()).hexdigest()[:32]}"


def _read() -> dict[str, object]:
    """Return what is written there; nothing where the file is missing or not ours: it is a hint, no more."""
    try:
        with path().open("rb") as file:
            found = json.loads(file.read(MAX_BYTES))
    except (OSError, RuntimeError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
