"""Names of files as data sets write them: on any system, in any common encoding, and never out of the data set unasked."""

import os
import posixpath
import re
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath

from openlepton.data.samples import Problem
from openlepton.errors import DataInvalid, DataNotFound

IMAGE_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})

MAX_LABEL_BYTES = 16 * 1024**2
"""Largest label file of one image."""

MAX_LIST_BYTES = 512 * 1024**2
"""Largest list of images or of class names."""

SPLIT_PATTERN = re.compile(r"(train|training|val|valid|validation|test|testing)((?:19|20)\d\d)?")
_SHORT = {"training": "train", "valid": "val", "validation": "val", "testing": "test"}
_ORDER = ("train", "val", "test")


def read_bytes(path: Path, limit: int) -> bytes:
    """Return the bytes of a file.

    Raises:
        DataNotFound: There is no such file.
        DataInvalid: It cannot be read, or has more than `limit` bytes.
    """
    try:
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except FileNotFoundError:
        raise DataNotFound(f"{path}: no such file") from None
    except OSError as error:
        raise DataInvalid(f"{path}: {error.strerror or error}") from None
    if len(data) > limit:
        raise DataInvalid(f"{path}: more than {limit:,} bytes")
    return data


def read_text(path: Path, limit: int = MAX_LABEL_BYTES) -> str:
    """Return the text of a file in UTF-8, or in UTF-16 with a byte order mark as Windows shells write it; without the mark.

    Raises:
        DataNotFound: There is no such file.
        DataInvalid: It cannot be read, is too large, or is not text in one of these encodings.
    """
    data = read_bytes(path, limit)
    try:
        text = data.decode("utf-16" if data[:2] in {b"\xff\xfe", b"\xfe\xff"} else "utf-8-sig")
    except UnicodeDecodeError:
        raise DataInvalid(f"{path}: not UTF-8 text: save it as UTF-8") from None
    if "\0" in text:
        raise DataInvalid(f"{path}: not text")
    return text


def read_lines(path: Path) -> list[tuple[int, str]]:
    """Return the lines of a list that are not blank, without surrounding spaces, each with its number from 1."""
    lines = enumerate(read_text(path, MAX_LIST_BYTES).split("\n"), 1)
    return [(number, stripped) for number, line in lines if (stripped := line.strip())]


def list_images(root: Path, folder: str = "", *, deep: bool = True) -> list[str]:
    """Return the images in `folder` of `root` in the order of their names, relative to `root`, with forward slashes.

    Hidden files and folders are left out, such as the `._` files of macOS.
    """
    return [name for name in list_files(root, folder, deep=deep) if is_image(name)]


def list_files(root: Path, folder: str = "", *, deep: bool = True) -> list[str]:
    """Return the files in `folder` of `root` in the order of their names, relative to `root`, with forward slashes."""
    found: list[str] = []
    waiting = [folder]
    while waiting:
        at = waiting.pop()
        try:
            entries = list(os.scandir(root / at))
        except OSError as error:
            raise DataNotFound(f"{root / at}: {error.strerror or error}") from None
        for entry in entries:
            name = posixpath.join(at, entry.name)
            if entry.name.startswith("."):
                continue
            if entry.is_dir(follow_symlinks=False):
                if deep:
                    waiting.append(name)
            else:
                found.append(name)
    return sorted(found)


def is_image(name: str) -> bool:
    """Return whether the name ends as an image's does."""
    return posixpath.splitext(name)[1].lower() in IMAGE_SUFFIXES


def stem(name: str) -> str:
    """Return the last part of a name, without its suffix."""
    return posixpath.splitext(posixpath.basename(name))[0]


def inside(folder: str, entry: str, *, absolute: bool = False) -> str | None:
    r"""Return `entry` of `folder` relative to the data set's root; None where it leaves the root, or an absolute `folder`.

    Backslashes count as slashes. `..` may be used as long as it stays within; links are the user's own and not resolved.
    With `absolute`, an absolute path (`/a/b`, `C:\a\b`) is returned as it is; without, it leaves the root.
    """
    if "\0" in entry:
        return None
    entry = entry.replace("\\", "/")
    if PurePosixPath(entry).is_absolute() or PureWindowsPath(entry).drive:
        return entry if absolute else None
    name = posixpath.normpath(posixpath.join(folder, entry))
    outside = (
        not f"{name}/".startswith(f"{folder.rstrip('/')}/") if folder.startswith("/") else f"{name}/".startswith("../")
    )
    return None if outside else name


def read_list(root: Path, listed: str, split: str) -> tuple[list[str], list[Problem]]:
    """Return the images that a list names, relative to `root`, each once, and what was wrong with the rest.

    Entries are relative to the list's folder, or to `root` where the first one is found there instead.
    """
    lines = read_lines(root / listed)
    folder = posixpath.dirname(listed)
    if folder and lines:
        first = inside(folder, lines[0][1], absolute=True)
        folder = folder if first is not None and (root / first).exists() else ""
    names: dict[str, None] = {}
    problems = []
    for number, line in lines:
        name = inside(folder, line, absolute=True)
        if name is None:
            message = f"{line!r} leaves the data set's folder: write an absolute path where that is meant"
            problems.append(Problem("path-outside", message, root / listed, number, split))
        elif name in names:
            problems.append(Problem("image-listed-twice", f"{line!r} is listed before", root / listed, number, split))
        else:
            names[name] = None
    return list(names), problems


def read_classes(path: Path) -> tuple[str, ...]:
    """Return class names, one a line.

    Raises:
        DataInvalid: There is none, or one of them twice.
    """
    return checked_classes([line for _, line in read_lines(path)], path)


def checked_classes(names: Iterable[str], where: Path) -> tuple[str, ...]:
    """Return the class names as a tuple.

    Raises:
        DataInvalid: There is none, or one of them twice.
    """
    classes = tuple(" ".join(name.split()) for name in names)
    if not classes:
        raise DataInvalid(f"{where}: no class names")
    twice = sorted({name for name in classes if classes.count(name) > 1}) if len(set(classes)) < len(classes) else []
    if twice:
        raise DataInvalid(f"{where}: class name {twice[0]!r} occurs twice")
    return classes


def short_split_names(raw: Sequence[str]) -> dict[str, str]:
    """Return what each split is called, by its raw name: `valid` is `val`, `train2017` is `train` unless two would be the same.

    Train, val and test come first, others after them by name.
    """
    short = {}
    for name in raw:
        found = SPLIT_PATTERN.fullmatch(name.lower())
        short[name] = _SHORT.get(found[1], found[1]) if found else name
    if len(set(short.values())) < len(short):
        short = {name: name for name in raw}
    rank = {name: index for index, name in enumerate(_ORDER)}
    return dict(sorted(short.items(), key=lambda item: (rank.get(item[1], len(rank)), item[1])))


def split_entries(names: Iterable[str]) -> dict[str, str]:
    """Return those of `names` that are called as splits are (without suffix), by what the split is called."""
    raw = {posixpath.splitext(name)[0]: name for name in names}
    short = short_split_names([name for name in raw if SPLIT_PATTERN.fullmatch(name.lower())])
    return {called: raw[name] for name, called in short.items()}


def subfolders(root: Path, folder: str = "") -> list[str]:
    """Return the names of the folders in `folder` of `root`, in order, hidden ones left out; none where it does not exist."""
    try:
        entries = list(os.scandir(root / folder))
    except OSError:
        return []
    return sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))


def subfolder(root: Path, *names: str) -> str | None:
    """Return the first folder in `root` whose name is one of `names` in any case."""
    found = {name.lower(): name for name in reversed(subfolders(root))}
    return next((found[name] for name in names if name in found), None)
