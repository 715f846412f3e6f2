"""Pictures of a training and of an evaluation, as PNG bytes. They need matplotlib, from the extra `train`."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from openlepton.arrays import Array, Ints
from openlepton.errors import UsageError, missing_extra
from openlepton.metrics.calibration import Reliability
from openlepton.metrics.curves import RECALLS, ScoreCurves

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLOURS = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#E69F00",
    "#56B4E9",
    "#8C564B",
    "#4D4D4D",
    "#B2A300",
    "#6A3D9A",
)
"""Ten that stay apart for most colour-blind readers (Okabe and Ito 2008, and three more)."""

_NAMED = 2 * len(_COLOURS)
"""With more classes than this, single ones are drawn grey and without a name; the second ten are dashed."""


def plot_columns(columns: Mapping[str, Sequence[float]], *, x: str = "epoch", title: str = "Losses") -> bytes:
    """Return a PNG of every column against the column `x`: the losses of a training.

    Columns named alike after a slash share a colour, those named alike before it a style: `train/box`, `val/box`.

    Raises:
        UsageError: There is no column `x`, nothing beside it, or columns differ in length.
        MissingExtra: matplotlib is not installed.
    """
    if x not in columns or len(columns) < 2 or len({len(values) for values in columns.values()}) != 1:
        raise UsageError(f"columns: expected {x!r} and others of the same length, got {list(columns)}")
    figure, axes = _axes(title, x, "")
    names = [name for name in columns if name != x]
    parts = list(dict.fromkeys(name.rpartition("/")[0] for name in names))
    kinds = list(dict.fromkeys(name.rpartition("/")[2] for name in names))
    for name in names:
        part, _, kind = name.rpartition("/")
        style = ("-", "--", ":", "-.")[parts.index(part) % 4]
        colour = _COLOURS[kinds.index(kind) % len(_COLOURS)]
        axes.plot(
            columns[x], columns[name], style, marker="." if len(columns[x]) < 3 else None, color=colour, label=name
        )
    axes.margins(x=0.01)
    axes.locator_params(axis="x", integer=True)
    _legend(axes)
    return _png(figure)


def plot_precision_recall(precision: Array, names: Sequence[str], *, title: str = "Precision and recall") -> bytes:
    """Return a PNG of precision against recall, each class and the mean; `(C, 101)` as from `precision_at_recall`.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    figure, axes = _axes(title, "recall", "precision")
    labels = [f"{name}  {row.mean():.3f}" for name, row in zip(names, precision, strict=True)]
    _lines(axes, RECALLS, precision, labels, lambda mean: f"mean  AP {mean.mean():.3f}")
    _unit(axes)
    _legend(axes)
    return _png(figure)


def plot_f1(curves: ScoreCurves, names: Sequence[str], *, title: str = "F1 and confidence") -> bytes:
    """Return a PNG of F1 against confidence, each class and the mean, with the best confidence marked.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    best, mean = curves.best_score, curves.mean_f1
    figure, axes = _axes(title, "confidence", "F1")
    _lines(axes, curves.thresholds, curves.f1, list(names), lambda mean: f"mean  {mean.max():.3f} at {best:.3f}")
    axes.plot([best], [mean.max()], "o", color="black", zorder=4)
    _unit(axes)
    _legend(axes)
    return _png(figure)


def plot_confusion(table: Ints, names: Sequence[str], *, title: str = "Confusion") -> bytes:
    """Return a PNG of `(C + 1, C + 1)` counts as from `confusion_matrix`; shades are shares of a row, numbers counts.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    labels = [*names, "background"]
    side = float(np.clip(2.2 + 0.42 * len(labels), 5.5, 20))
    sums = table.sum(axis=1, keepdims=True)
    shares = np.divide(table, sums, out=np.zeros(table.shape), where=sums > 0)
    figure, axes = _axes(title, "found", "truth", size=(side + 0.8, side))
    picture = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    bar = figure.colorbar(picture, ax=axes, fraction=0.04, pad=0.02)
    bar.set_label("share of the row")
    every = -(-len(labels) // 60)
    ticks = range(0, len(labels), every)
    axes.set_xticks(ticks, [labels[tick] for tick in ticks], rotation=90)
    axes.set_yticks(ticks, [labels[tick] for tick in ticks])
    axes.grid(visible=False)
    if len(labels) <= 40:
        for row, column in np.argwhere(table > 0).tolist():
            shade = "white" if shares[row, column] > 0.55 else "black"
            axes.text(column, row, str(table[row, column]), ha="center", va="center", fontsize=7, color=shade)
    return _png(figure)


def plot_reliability(curve: Reliability, *, title: str = "Reliability") -> bytes:
    """Return a PNG of precision against confidence in bins, with how many detections each holds.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    figure, axes = _axes(title, "confidence", "precision")
    widths = np.diff(curve.edges)
    axes.bar(curve.edges[:-1], curve.precision, widths, align="edge", color=_COLOURS[5], edgecolor="white")
    axes.plot([0, 1], [0, 1], "--", color="#666666", label="calibrated")
    axes.plot(curve.score, curve.precision, "o", markersize=4, color=_COLOURS[0], label=f"D-ECE {curve.error:.3f}")
    counts = axes.twinx()
    counts.stairs(curve.counts, curve.edges, color=_COLOURS[1], label="detections")
    counts.set_yscale("log")
    counts.set_ylabel("detections", color=_COLOURS[1])
    counts.grid(visible=False)
    _unit(axes)
    _legend(axes)
    return _png(figure)


def _lines(axes: Axes, x: Array, table: Array, labels: Sequence[str], name_mean: Any) -> None:
    """Draw a thin line for each class that has objects and a thick one for their mean."""
    present = [index for index in range(len(table)) if not np.isnan(table[index]).any()]
    for place, index in enumerate(present):
        if len(present) <= _NAMED:
            style = "-" if place < len(_COLOURS) else "--"
            axes.plot(x, table[index], style, lw=1.2, color=_COLOURS[place % len(_COLOURS)], label=labels[index])
        else:
            axes.plot(x, table[index], lw=0.7, color="#BBBBBB", label="each class" if place == 0 else None)
    if present:
        mean = table[present].mean(axis=0)
        axes.plot(x, mean, lw=2.8, color="black", label=name_mean(mean), zorder=3)


def _unit(axes: Axes) -> None:
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.02)


def _legend(axes: Axes) -> None:
    labels = axes.get_legend_handles_labels()[1]
    twin = len(axes.figure.axes) > 1
    if labels:
        size = 10 if len(labels) <= len(_COLOURS) + 1 else 8
        axes.legend(loc="upper left", bbox_to_anchor=(1.12 if twin else 1.01, 1), frameon=False, fontsize=size)


def _axes(title: str, x: str, y: str, size: tuple[float, float] = (7.5, 4.8)) -> tuple[Figure, Axes]:
    """Return a figure of its own, apart from pyplot's state, so that threads may draw."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise missing_extra("matplotlib", "train") from None
    figure = Figure(figsize=size, dpi=120)
    axes = figure.add_subplot()
    axes.set(title=title, xlabel=x, ylabel=y)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _fonts() -> list[str]:
    """Return the families to draw with: matplotlib's own, then the bundled one for Chinese names."""
    from matplotlib import font_manager

    families = ["DejaVu Sans"]
    for path in sorted(Path(str(files("openlepton") / "assets")).glob("*.ttf")):
        name = font_manager.FontProperties(fname=path).get_name()
        if name not in font_manager.fontManager.get_font_names():
            font_manager.fontManager.addfont(path)
        families.append(name)
    return families


def _png(figure: Figure) -> bytes:
    from matplotlib.text import Text

    families = _fonts()
    for axes in figure.axes:
        axes.tick_params(which="both", labelfontfamily=families)
    for text in figure.findobj(Text):
        text.set_fontfamily(families)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", bbox_inches="tight")
    return buffer.getvalue()
