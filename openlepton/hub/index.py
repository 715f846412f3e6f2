"""Names to model folders: what ships with the package, by name, and anything else by its path; no network, no settings."""

import difflib
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path

from openlepton.card import CARD_NAME, ModelFolder, open_folder
from openlepton.errors import ModelNotFound

ZOO = Path(__file__).parent.parent / "zoo"
"""The models that ship with the package: a folder each, called as its card is."""

DEFAULTS: Mapping[str, str] = {
    "classify": "efficientnet-lite0",
    "detect": "yolox-nano-voc20",
    "segment": "yolov5n-seg-nuclei",
    "classify-text": "topics",
    "sentiment": "sentiment",
}
"""The model that a task uses unless the caller names one."""

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_SHOWN = 80  # characters of a name or path that an error repeats


def models() -> tuple[ModelFolder, ...]:
    """Return the models that ship with the package, by name."""
    return tuple(open_folder(path) for path in _index().values())


def find(model: str | os.PathLike[str]) -> ModelFolder:
    """Return the model of that name, or the model folder at that path.

    A name is only ever looked up, never made part of a path. A shipped model wins over a folder that is called the same
    in the current directory; `./name` or a `Path` means the folder.

    Raises:
        ModelNotFound: There is no such model and no such folder; the message lists the names there are.
        CardInvalid: The folder has no valid card.
    """
    index = _index()
    if isinstance(model, str) and model in index:
        return open_folder(index[model])
    asked, path = os.fspath(model), Path(model)
    if asked and _is(path, Path.is_dir):
        return open_folder(path)
    shown = repr(asked) if len(asked) <= _SHOWN else f"{asked[:_SHOWN]!r}..."
    if _is(path, Path.is_file):
        raise ModelNotFound(
            f"{shown} is a file: a model is a folder with a {CARD_NAME}; `openlepton convert` makes one"
        )
    raise ModelNotFound(f"no model or folder {shown}: {_hint(asked, index)}")


def default(task: str) -> str:
    """Return the name of the model that `task` (`classify`, `detect`, `segment`) uses unless the caller names one.

    Raises:
        ModelNotFound: No model for the task ships with this release; the message says how to get one.
    """
    if task not in DEFAULTS:
        special = [folder.card.name for folder in models() if folder.card.task == task]
        others = f", or take one that ships for a purpose of its own: {', '.join(special)}" if special else ""
        raise ModelNotFound(
            f"this release ships no general model to {task} with: make one by `openlepton convert WEIGHTS.pt OUT "
            f"--licence SPDX`, then name it: `--model OUT`{others}"
        )
    return DEFAULTS[task]


def _index() -> dict[str, Path]:
    """Return what ships, by name, without reading a card; tests hold folder names equal to card names."""
    folders = sorted(ZOO.iterdir()) if ZOO.is_dir() else []
    return {path.name: path for path in folders if _NAME.fullmatch(path.name) and (path / CARD_NAME).is_file()}


def _is(path: Path, kind: Callable[[Path], bool]) -> bool:
    try:
        return kind(path)
    except (OSError, ValueError):  # too long for the file system, or with a null character in it: there is no such file
        return False


def _hint(asked: str, index: Mapping[str, Path]) -> str:
    close = difflib.get_close_matches(asked.lower(), index, 1) if len(asked) <= _SHOWN else []
    question = f"did you mean {close[0]}? " if close else ""
    return f"{question}models: {', '.join(index)}; or name a folder with a {CARD_NAME}"
