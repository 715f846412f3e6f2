"""What a training leaves to be looked at: `results.csv`, curves, sample batches, predictions, TensorBoard."""

import csv
import io
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np

from openlepton.arrays import Image
from openlepton.data.loader import Batch
from openlepton.drawing import draw
from openlepton.errors import MissingExtra
from openlepton.files import write_atomic
from openlepton.images import read_image, write_image
from openlepton.metrics import confusion_matrix, precision_at_recall, reliability, score_curves
from openlepton.ops.masks import rle_of_polygons
from openlepton.results import Detections
from openlepton.train.evaluate import Evaluation

SHOWN = 16
"""Pictures in a mosaic."""
SHOWN_SCORE = 0.25
TILE_PX = 320


def write_results(path: Path, history: Sequence[Mapping[str, float]]) -> None:
    """Write one row for each epoch, with a header; epochs without an evaluation have empty cells.

    Raises:
        OutputError: The file cannot be written.
    """
    columns = list(dict.fromkeys(name for row in history for name in row))
    text = io.StringIO(newline="")
    table = csv.DictWriter(text, columns, lineterminator="\n")
    table.writeheader()
    for row in history:
        table.writerow({name: f"{value:.6g}" for name, value in row.items()})
    write_atomic(path, text.getvalue().encode())


def draw_curves(folder: Path, history: Sequence[Mapping[str, float]]) -> None:
    """Write `losses.png` and `accuracy.png`; nothing where matplotlib is missing."""
    try:
        from openlepton.metrics.plots import plot_columns

        for name, prefix, title in (("losses", "train/", "Losses"), ("accuracy", "val/", "Accuracy")):
            rows = [row for row in history if any(key.startswith(prefix) for key in row)]
            if rows:
                keys = ["epoch", *(key for key in rows[0] if key.startswith(prefix))]
                columns = {key: [row[key] for row in rows] for key in keys}
                write_atomic(folder / f"{name}.png", plot_columns(columns, title=title))
    except MissingExtra:
        return


def draw_evaluation(folder: Path, evaluation: Evaluation) -> None:
    """Write curves, the confusion matrix and a mosaic of predictions; curves only where matplotlib is installed."""
    report, names = evaluation.report, evaluation.names
    write_image(folder / "predictions.png", prediction_mosaic(evaluation))
    try:
        from openlepton.metrics import plots

        confusion = confusion_matrix(evaluation.truth, evaluation.found, names)
        pictures = {
            "precision_recall": plots.plot_precision_recall(precision_at_recall(report.matches), names),
            "f1": plots.plot_f1(score_curves(report.matches), names),
            "confusion": plots.plot_confusion(confusion, names),
            "reliability": plots.plot_reliability(reliability(report.matches)),
        }
    except MissingExtra:
        return
    for name, data in pictures.items():
        write_atomic(folder / f"{name}.png", data)


def draw_batch(path: Path, batch: Batch, names: Sequence[str]) -> None:
    """Write a mosaic of a training batch with its boxes, and outlines where there are any, as the network sees it."""
    tiles = []
    for row, pixels in enumerate(batch.images[:SHOWN]):
        mine = batch.rows == row
        masks = None
        if batch.outlines is not None:
            own = [batch.outlines[index] for index in np.flatnonzero(mine)]
            masks = [rle_of_polygons(outline, pixels.shape[1:]) for outline in own]
        labelled = Detections(
            batch.boxes[mine], np.ones(mine.sum()), batch.class_ids[mine], names, pixels.shape[1:], masks
        )
        tiles.append(draw(np.ascontiguousarray(pixels.transpose(1, 2, 0)), labelled))
    write_image(path, mosaic(tiles))


def prediction_mosaic(evaluation: Evaluation) -> Image:
    """Return pictures of the split, spread over it evenly, with what was found above a score of 0.25."""
    chosen = np.unique(np.linspace(0, len(evaluation.images) - 1, SHOWN).astype(int))
    tiles = []
    for row in chosen:
        found = evaluation.found[row]
        tiles.append(draw(read_image(evaluation.images[row]), found[found.scores > SHOWN_SCORE]))
    return mosaic(tiles)


def mosaic(tiles: Sequence[Image]) -> Image:
    """Return pictures side by side on white, as square an arrangement as there is, each at most 320 pixels wide and high."""
    columns = int(np.ceil(np.sqrt(len(tiles))))
    rows = -(-len(tiles) // columns)
    canvas = np.full((rows * TILE_PX, columns * TILE_PX, 3), 255, np.uint8)
    for place, tile in enumerate(tiles):
        ratio = min(TILE_PX / max(tile.shape[:2]), 1)
        width, height = max(round(tile.shape[1] * ratio), 1), max(round(tile.shape[0] * ratio), 1)
        small = cv2.resize(tile, (width, height), interpolation=cv2.INTER_AREA)
        y, x = place // columns * TILE_PX, place % columns * TILE_PX
        canvas[y : y + height, x : x + width] = small
    return canvas


_NO_TENSORFLOW = "tensorboard.compat.notf"
"""The module whose presence tells TensorBoard to write files by itself; else it loads TensorFlow for that, where there is one."""


class Board:
    """Scalars for TensorBoard, if it is installed; otherwise nothing."""

    def __init__(self, folder: Path) -> None:
        self._writer: Any = None
        sys.modules.setdefault(_NO_TENSORFLOW, ModuleType(_NO_TENSORFLOW))
        try:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(folder))
        except ImportError:
            return
        finally:
            sys.modules.pop(_NO_TENSORFLOW, None)

    def add(self, row: Mapping[str, float]) -> None:
        """Add one row of `results.csv`."""
        if self._writer is not None:
            for name, value in row.items():
                if name != "epoch":
                    self._writer.add_scalar(name, value, int(row["epoch"]))

    def close(self) -> None:
        """Write what has not been written."""
        if self._writer is not None:
            self._writer.close()
