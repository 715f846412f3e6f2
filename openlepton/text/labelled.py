"""Texts with labels, to learn from and to measure on: a file, or a folder with a file for each split."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from openlepton.arrays import Array
from openlepton.errors import DataInvalid, DataNotFound
from openlepton.text.rows import Row, form_of, read_rows

SPLITS: Mapping[str, tuple[str, ...]] = {
    "train": ("train",),
    "dev": ("dev", "val", "valid", "validation"),
    "test": ("test",),
}
"""What the files of a split may be called, before the ending that says how they are written."""
ENDINGS = (".jsonl", ".csv", ".tsv", ".jsonl.gz", ".csv.gz", ".tsv.gz")
META = "meta.json"
"""May name the classes, in order: `{"labels": [...]}`; then labels may be numbers."""


@dataclass(frozen=True, eq=False)
class Labelled:
    """Texts and what they are."""

    texts: Sequence[str]
    truth: Array
    """`(N,)` int64 class ids; `(N, C)` bool where classes do not exclude each other."""
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.texts)

    def take(self, rows: Array) -> "Labelled":
        """Return the texts of `rows`, integers or a mask."""
        chosen = np.arange(len(self))[rows]
        return Labelled([self.texts[row] for row in chosen.tolist()], self.truth[chosen], self.names)


def read_labelled(
    path: Path, *, column: str = "text", label: str = "label", multi_label: bool = False, dev_share: float = 0.1
) -> dict[str, Labelled]:
    """Return the splits `train`, `dev` and, where there is one, `test` of the data at `path`.

    Args:
        path: A JSONL, CSV or TSV file, or a folder with `train`, `dev` (or `val`) and `test` files, which may end in `.gz`.
        column: Where the text is.
        label: Where its label is: a name, or a number where `meta.json` names the classes. With `multi_label`, a list of them,
            or names with `;` between them in a table.
        multi_label: Whether a text may have any number of labels.
        dev_share: Without a dev split, so much of train, drawn with a fixed seed, becomes one.

    Raises:
        DataNotFound: There is no such file, or no train split.
        DataInvalid: A row cannot be read or has no label; the message says which.
    """
    files = _files(path)
    names = _names(path / META) if path.is_dir() else ()
    raw = {split: list(_rows(file, column, label, multi_label, names)) for split, file in files.items()}
    if not names:
        names = tuple(sorted({one for _, labels, _ in raw["train"] for one in labels}))
    if len(names) < 2 and not multi_label:
        raise DataInvalid(f"{files['train']}: expected at least 2 classes, found {', '.join(names) or 'none'}")
    index = {name: number for number, name in enumerate(names)}
    found = {split: _labelled(rows, index, multi_label) for split, rows in raw.items()}
    if "dev" not in found:
        order = np.random.default_rng(0).permutation(len(found["train"]))
        cut = max(round(len(order) * dev_share), 1)
        found["dev"], found["train"] = (
            found["train"].take(np.sort(order[:cut])),
            found["train"].take(np.sort(order[cut:])),
        )
    for split in ("train", "dev"):
        if not len(found[split]):
            raise DataInvalid(f"{path}: {split}: no texts")
    return found


_Labels = tuple[str, tuple[str, ...], str]
"""A text, its labels, and where it stands."""


def _files(path: Path) -> dict[str, Path]:
    if path.is_file():
        return {"train": path}
    if not path.is_dir():
        raise DataNotFound(f"{path}: no such file or folder")
    found = {}
    for split, stems in SPLITS.items():
        there = [
            path / f"{stem}{ending}" for stem in stems for ending in ENDINGS if (path / f"{stem}{ending}").is_file()
        ]
        if len(there) > 1:
            raise DataInvalid(f"{path}: {split}: expected one file, found {', '.join(file.name for file in there)}")
        if there:
            found[split] = there[0]
    if "train" not in found:
        raise DataNotFound(f"{path}: expected a train file: {', '.join(f'train{ending}' for ending in ENDINGS)}")
    return found


def _names(path: Path) -> tuple[str, ...]:
    if not path.is_file():
        return ()
    try:
        value = json.loads(path.read_bytes())
        names = value.get("labels", [])
        if not all(isinstance(name, str) and name for name in names) or len(set(names)) != len(names):
            raise ValueError("labels: expected different names")
    except (ValueError, AttributeError, TypeError) as error:
        raise DataInvalid(f"{path}: {error}") from None
    return tuple(names)


def _rows(path: Path, column: str, label: str, multi_label: bool, names: Sequence[str]) -> list[_Labels]:
    if form_of(path) == "text":
        raise DataInvalid(f"{path}: texts with labels are JSON lines, CSV or TSV")
    found = []
    for row in read_rows(path, column=column):
        if isinstance(row, DataInvalid):
            raise row
        where = f"{path}: line {row.number}"
        labels = _labels_of(row, label, multi_label, names, where)
        found.append((row.text, labels, where))
    return found


def _labels_of(row: Row, label: str, multi_label: bool, names: Sequence[str], where: str) -> tuple[str, ...]:
    value: Any = row.fields.get(label)
    if not multi_label:
        given = [value]
    elif isinstance(value, str):
        given = [part.strip() for part in value.split(";") if part.strip()]
    else:
        given = value if isinstance(value, list) else [value]
    labels = tuple(_label(one, names) for one in given)
    for one, what in zip(labels, given, strict=True):
        if not one:
            raise DataInvalid(f"{where}: {label}: expected the name of a class, got {what!r}"[:500])
    return labels


def _label(value: Any, names: Sequence[str]) -> str:
    """Return the name of a class, given by name or by number; nothing where there is no such class."""
    text = str(value) if isinstance(value, str | int) and not isinstance(value, bool) else ""
    if not names or text in names:
        return text
    return names[int(text)] if text.isdecimal() and int(text) < len(names) else ""


def _labelled(rows: Sequence[_Labels], index: Mapping[str, int], multi_label: bool) -> Labelled:
    texts = [text for text, _, _ in rows]
    truth: Array = np.zeros((len(rows), len(index)), np.bool_) if multi_label else np.zeros(len(rows), np.int64)
    for number, (_, labels, where) in enumerate(rows):
        for one in labels:
            if one not in index:
                raise DataInvalid(f"{where}: {one!r} is no class of the train split: {', '.join(index)}"[:500])
            if multi_label:
                truth[number, index[one]] = True
            else:
                truth[number] = index[one]
    return Labelled(texts, truth, tuple(index))
