"""Data sets that are a table of images and their labels, any number for each image: CSV, or one JSON object a line.

A table is called as its split is (`train.csv`, `val.jsonl`), or `labels`, in which a column `split` may tell the splits.
CSV has a column `image` and either a column `labels`, in which `;` stands between labels, or a column of 0 and 1 for each class.
JSON lines are `{"image": "a.jpg", "labels": ["cat", "red"]}`.
"""

import csv
import io
import json
import posixpath
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from openlepton.data import paths
from openlepton.data.samples import Annotation, Dataset, Fault, Problem, Split, no_objects
from openlepton.errors import DataInvalid

SUFFIXES = (".csv", ".jsonl")
WHOLE = "labels"
"""What the table is called that may hold several splits."""

IMAGE, LABELS, SPLIT = "image", "labels", "split"
SEPARATOR = ";"


class Row(NamedTuple):
    """One line of a table."""

    number: int
    image: str
    labels: tuple[str, ...]
    split: str


@dataclass(frozen=True, eq=False)
class TagSource:
    """Images, each with its labels."""

    root: Path
    names: tuple[str, ...]
    """Images, relative to `root`."""
    tags: tuple[tuple[int, ...], ...]
    """Class ids of each, in ascending order."""

    def __len__(self) -> int:
        return len(self.names)

    def image(self, index: int) -> Path:
        """Return the path of one image."""
        return self.root / self.names[index]

    def annotation(self, index: int) -> Annotation:
        """Return the labels of one image."""
        name = self.names[index]
        return Annotation(self.root / name, paths.stem(name), no_objects(), tags=self.tags[index])


def find_tables(root: Path) -> dict[str, str]:
    """Return the tables in a folder, by the split that each is, or `labels`; nothing where there is none."""
    names = [name for name in paths.list_files(root, deep=False) if name.endswith(SUFFIXES)]
    whole = [name for name in names if paths.stem(name) == WHOLE]
    found = {WHOLE: whole[0]} if whole else paths.split_entries(names)
    return {split: name for split, name in found.items() if _is_table(root / name)}


def open_tags(root: Path) -> Dataset:
    """Return the data set that the tables in a folder describe.

    Images are relative to the folder. Classes are those of `classes.txt`, or else all labels that occur, sorted.

    Raises:
        DataInvalid: There is no table, or one of them breaks its format.
    """
    tables = find_tables(root)
    if not tables:
        raise DataInvalid(f"{root}: no table: expected labels.csv, train.csv or the like, with a column {IMAGE}")
    rows = [(name, split, row) for split, name in tables.items() for row in _rows(root / name)]
    listed = root / "classes.txt"
    labels = {label for _, _, row in rows for label in row.labels}
    classes = paths.read_classes(listed) if listed.is_file() else paths.checked_classes(sorted(labels), root)
    ids = {label: index for index, label in enumerate(classes)}
    images: dict[str, dict[str, tuple[int, ...]]] = {}
    problems = []
    for name, called, row in rows:
        split = row.split or ("all" if called == WHOLE else called)
        taken, problem = images.setdefault(split, {}), _problem(row, ids, images[split])
        if problem is not None:
            problems.append(Problem(*problem, root / name, row.number, split))
            continue
        inner = paths.inside("", row.image, absolute=True)
        assert inner is not None
        taken[inner] = tuple(sorted({ids[label] for label in row.labels}))
    order = paths.short_split_names(list(images))
    splits = {
        short: Split(short, classes, TagSource(root, tuple(images[raw]), tuple(images[raw].values())))
        for raw, short in order.items()
    }
    return Dataset(root.resolve().name, root, "tags", classes, splits, tuple(problems))


def _problem(row: Row, ids: Mapping[str, int], taken: Mapping[str, object]) -> Fault | None:
    """Return the kind of what is wrong with a row, and in words; None where nothing is."""
    name = paths.inside("", row.image, absolute=True)
    if not row.image:
        return "row-malformed", f"no {IMAGE}"
    if name is None:
        return "path-outside", f"{row.image!r} leaves the data set's folder: write an absolute path where that is meant"
    if name in taken:
        return "image-listed-twice", f"{row.image!r} is listed before"
    unknown = [label for label in row.labels if label not in ids]
    return ("class-unknown", f"label {unknown[0]!r} is not in classes.txt") if unknown else None


def _is_table(path: Path) -> bool:
    """Return whether the first line is that of a table of images."""
    with path.open("rb") as file:
        first = file.readline(65536).decode("utf-8-sig", "replace").strip()
    if path.suffix == ".jsonl":
        return first.startswith("{") and f'"{IMAGE}"' in first
    return IMAGE in (column.strip().strip('"').lower() for column in first.split(","))


def _rows(path: Path) -> Iterator[Row]:
    return _json_rows(path) if path.suffix == ".jsonl" else _csv_rows(path)


def _csv_rows(path: Path) -> Iterator[Row]:
    table = csv.reader(io.StringIO(paths.read_text(path, paths.MAX_LIST_BYTES), newline=""))
    try:
        header = [column.strip() for column in next(table, [])]
        low = [column.lower() for column in header]
        image = low.index(IMAGE)
        split = low.index(SPLIT) if SPLIT in low else None
        listed = low.index(LABELS) if LABELS in low else None
        flags = [index for index in range(len(header)) if index not in (image, split)] if listed is None else []
        for cells in table:
            if not any(cells):
                continue
            if len(cells) != len(header):
                raise DataInvalid(f"{path}:{table.line_num}: {len(cells)} cells, the header has {len(header)}")
            labels = (
                cells[listed].split(SEPARATOR) if listed is not None else _flagged(path, table, header, flags, cells)
            )
            named = tuple(" ".join(label.split()) for label in labels if label.strip())
            yield Row(table.line_num, cells[image].strip(), named, "" if split is None else cells[split].strip())
    except csv.Error as error:
        raise DataInvalid(f"{path}:{table.line_num}: not CSV: {error}") from None


def _flagged(path: Path, table: Any, header: list[str], flags: list[int], cells: list[str]) -> list[str]:
    """Return the labels of the columns that hold a 1."""
    odd = [cells[index] for index in flags if cells[index].strip() not in ("0", "1")]
    if odd:
        raise DataInvalid(f"{path}:{table.line_num}: expected 0 or 1 in the column of a class, got {odd[0][:40]!r}")
    return [header[index] for index in flags if cells[index].strip() == "1"]


def _json_rows(path: Path) -> Iterator[Row]:
    for number, line in paths.read_lines(path):
        try:
            row = json.loads(line)
        except ValueError as error:
            raise DataInvalid(f"{path}:{number}: not JSON: {error}") from None
        labels = row.get(LABELS, []) if isinstance(row, dict) else None
        if not isinstance(labels, list) or not all(
            isinstance(one, str) for one in (*labels, row.get(IMAGE), row.get(SPLIT, ""))
        ):
            raise DataInvalid(f'{path}:{number}: expected {{"{IMAGE}": "...", "{LABELS}": ["...", ...]}}')
        named = tuple(" ".join(label.split()) for label in labels if label.strip())
        yield Row(number, posixpath.normpath(row[IMAGE]) if row[IMAGE] else "", named, row.get(SPLIT, "").strip())
