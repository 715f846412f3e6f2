"""Pictures show what the arrays hold: pixels are read back."""

import subprocess
import sys
import warnings

import cv2
import numpy as np
import pytest

from openlepton.errors import MissingExtra, UsageError
from openlepton.metrics import confusion_matrix, match_detections, precision_at_recall, reliability, score_curves

pytest.importorskip("matplotlib")

from openlepton.metrics.plots import (
    plot_columns,
    plot_confusion,
    plot_f1,
    plot_precision_recall,
    plot_reliability,
)

BLUE, ORANGE = (0, 114, 178), (213, 94, 0)


def decoded(png):
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    return cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)[:, :, ::-1]


def pixels(picture, colour):
    return np.argwhere((np.abs(picture.astype(int) - colour) < 12).all(axis=2))


def test_a_loss_that_falls_is_drawn_falling_and_one_that_rises_rising():
    picture = decoded(
        plot_columns({"epoch": range(50), "falls": np.linspace(1, 0, 50), "rises": np.linspace(0, 1, 50)})
    )
    for colour, sign in ((BLUE, 1), (ORANGE, -1)):
        rows, columns = pixels(picture, colour).T
        inside = columns < picture.shape[1] * 0.75  # beside the legend
        assert np.corrcoef(rows[inside], columns[inside])[0, 1] * sign > 0.95


def test_parts_share_colours_by_kind():
    steps = range(10)
    picture = decoded(
        plot_columns({"epoch": steps, "train/box": steps, "val/box": steps[::-1], "train/class": [3] * 10})
    )
    assert len(pixels(picture, BLUE)) > 3 * len(pixels(picture, ORANGE)) / 2
    assert len(pixels(picture, ORANGE)) > 100
    assert len(pixels(picture, (0, 158, 115))) == 0  # no third colour


def test_precision_is_drawn_at_its_height():
    low, high = np.full((1, 101), 0.25), np.full((1, 101), 0.75)
    heights = []
    for precision in (low, high):
        rows = pixels(decoded(plot_precision_recall(precision, ["a"])), (0, 0, 0))[:, 0]
        heights.append(np.flatnonzero(np.bincount(rows) > 500)[0])  # the mean, above the axis
    frame = 576 * 0.77  # the axes take this part of the figure's height
    assert (heights[0] - heights[1]) / frame == pytest.approx(0.5 / 1.02, abs=0.03)


def test_the_confusion_matrix_is_darkest_where_most_of_a_row_is():
    picture = decoded(plot_confusion(np.array([[9, 1, 0], [0, 8, 0], [0, 0, 0]]), ["a", "b"]))
    dark = pixels(picture, (8, 48, 107))  # a whole row: the second, and the top of the colour bar
    inside = dark[dark[:, 1] < picture.shape[1] * 0.7]
    assert len(inside) > 10_000
    assert inside[:, 0].mean() == pytest.approx(picture.shape[0] * 0.43, rel=0.1)


@pytest.mark.slow
def test_real_results_give_every_picture(real_set):
    truth, found, names = real_set
    matches = match_detections(truth, found, names)
    for png in (
        plot_precision_recall(precision_at_recall(matches), names),
        plot_f1(score_curves(matches), names),
        plot_confusion(confusion_matrix(truth, found, names), names),
        plot_reliability(reliability(matches)),
    ):
        picture = decoded(png)
        assert min(picture.shape[:2]) > 400
        assert 0.02 < (picture < 200).any(axis=2).mean() < 0.6


def test_eighty_classes_are_drawn_without_eighty_names():
    rng = np.random.default_rng(0)
    table = np.sort(rng.random((80, 101)))[:, ::-1]
    assert decoded(plot_precision_recall(table, [f"class {index}" for index in range(80)])).shape[0] < 700


def test_chinese_class_names_have_glyphs():
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # matplotlib warns of each glyph that no font has
        plot_confusion(np.eye(3, dtype=np.int64), ["行人", "交通信号灯"])
        plot_precision_recall(np.full((1, 101), 0.5), ["自行车 bicycle"], title="精确率与召回率")


def test_drawing_leaves_pyplot_alone():
    code = "import sys; from openlepton.metrics.plots import plot_columns as draw; draw({'epoch': [1, 2], 'loss': [2, 1]}); "
    code += "print('matplotlib.pyplot' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_columns_without_an_axis_are_refused():
    with pytest.raises(UsageError, match="columns: expected 'epoch' and others of the same length"):
        plot_columns({"loss": [1.0, 2.0]})
    with pytest.raises(UsageError, match="same length"):
        plot_columns({"epoch": [1], "loss": [1.0, 2.0]})


def test_without_the_extra_the_error_names_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtra, match=r"matplotlib is not installed: pip install 'openlepton\[train\]'"):
        plot_columns({"epoch": [1], "loss": [1.0]})
