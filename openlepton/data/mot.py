"""MOTChallenge's text files: one detection or one box of a track on each line.

`frame,id,left,top,width,height,score,class,visibility,...`, frames from 1; the identity of a mere detection is -1. In ground truth
the score is 0 for what does not count, and the class is -1 in the files of 2015.
"""

import os
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import ArrayLike

from openlepton.arrays import Array, Ints
from openlepton.errors import DataInvalid, DataNotFound
from openlepton.files import write_atomic

_COLUMNS = 6  # at least these
_FAR = 1e9  # no number is larger


@dataclass(frozen=True, eq=False)
class MotRows:
    """The lines of a file, in their order."""

    frames: Ints
    """`(N,)` from 1."""
    track_ids: Ints
    """`(N,)`, -1 for detections."""
    boxes_ltwh: Array
    """`(N, 4)` float64 left, top, width, height in pixels."""
    scores: Array
    """`(N,)` float64; 1 where the file has none."""
    class_ids: Ints
    """`(N,)`, -1 where the file has none."""

    @classmethod
    def of(cls, frames: ArrayLike, track_ids: ArrayLike, boxes: Array, scores: ArrayLike) -> Self:
        """Return the rows for boxes `(N, 4)` x1, y1, x2, y2."""
        corners = np.asarray(boxes, np.float64).reshape(-1, 4)
        ids = np.asarray(track_ids, np.int64)
        ltwh = np.concatenate((corners[:, :2], corners[:, 2:] - corners[:, :2]), axis=1)
        return cls(np.asarray(frames, np.int64), ids, ltwh, np.asarray(scores, np.float64), np.full(len(ids), -1))

    def __len__(self) -> int:
        return len(self.frames)

    def by_frame(self, count: int | None = None) -> list[Ints]:
        """Return for each frame, from the first to the last (or `count`), the rows `(K,)` that are in it, in their order."""
        last = int(self.frames.max(initial=0)) if count is None else count
        order = np.argsort(self.frames, kind="stable")
        bounds = np.searchsorted(self.frames[order], np.arange(1, last + 2))
        return [order[start:end] for start, end in pairwise(bounds)]


def read_mot(path: str | os.PathLike[str]) -> MotRows:
    """Return what a file of MOTChallenge says.

    Raises:
        DataNotFound: There is no such file.
        DataInvalid: A line is not what it should be; the message says which.
    """
    try:
        text = Path(path).read_text(encoding="ascii")
    except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
        raise DataNotFound(f"{path}: {error.strerror}") from error
    except ValueError as error:
        raise DataInvalid(f"{path}: not a text of numbers") from error
    lines = [(number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    rows = np.tile([0.0, 0, 0, 0, 0, 0, 1, -1], (len(lines), 1))  # without a score or a class
    for row, (number, line) in zip(rows, lines, strict=True):
        cells = line.replace(",", " ").split()
        if len(cells) < _COLUMNS:
            raise DataInvalid(f"{path}:{number}: expected at least {_COLUMNS} numbers, got {len(cells)}")
        try:
            row[: len(cells)] = [float(cell) for cell in cells[:8]]
        except ValueError as error:
            raise DataInvalid(f"{path}:{number}: {error}") from error
    bad = ~np.isfinite(rows).all(axis=1) | (rows[:, 0] < 1) | (rows[:, 0] % 1 != 0) | (abs(rows) > _FAR).any(axis=1)
    if bad.any():
        number, line = lines[int(bad.argmax())]
        raise DataInvalid(f"{path}:{number}: expected a frame from 1 and finite numbers, got {line[:60]}")
    frames, ids, class_ids = rows[:, [0, 1, 7]].T.astype(np.int64)
    return MotRows(frames, ids, rows[:, 2:6].copy(), rows[:, 6].copy(), class_ids)


def write_mot(path: str | os.PathLike[str], rows: MotRows) -> None:
    """Write a file of MOTChallenge, whole or not at all.

    Raises:
        OutputError: The disk does not take it.
    """
    lines = (
        f"{frame},{track},{x:.3f},{y:.3f},{w:.3f},{h:.3f},{score:.6g},{class_id},-1,-1\n"
        for frame, track, (x, y, w, h), score, class_id in zip(
            rows.frames, rows.track_ids, rows.boxes_ltwh, rows.scores, rows.class_ids, strict=True
        )
    )
    write_atomic(path, "".join(lines).encode())
