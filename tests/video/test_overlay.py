import numpy as np
import pytest

from openlepton.video.analytics import Track
from openlepton.video.overlay import ALERT, CALM, counted, draw_label, draw_line, draw_panel, draw_trail, draw_zone
from openlepton.video.zones import Line, Zone

SQUARE = Zone(name="square", points=((0.25, 0.25), (0.75, 0.25), (0.75, 0.75), (0.25, 0.75)))


def grey(h=240, w=320):
    return np.full((h, w, 3), 100, np.uint8)


@pytest.mark.parametrize(("alert", "color"), [(False, CALM), (True, ALERT)])
def test_a_zone_is_tinted_inside_and_nothing_outside(alert, color):
    canvas = grey()
    draw_zone(canvas, SQUARE, alert=alert)
    expected = np.rint(0.82 * 100 + 0.18 * np.array(color))
    assert np.abs(canvas[120, 160] - expected).max() <= 1
    assert (canvas[60, 160] == color).all()  # its edge
    assert (canvas[:55] == 100).all()
    assert (canvas[:, 245:] == 100).all()


def test_the_arrow_of_a_line_points_to_where_in_is():
    canvas = grey()
    draw_line(canvas, Line(name="up", points=((0.5, 0.9), (0.5, 0.1))))  # seen upwards, right is right
    changed = (canvas != 100).any(axis=2)
    assert changed[:, 162:].sum() > 3 * changed[:, :158].sum()


def test_a_trail_goes_where_the_feet_were():
    canvas = grey()
    boxes = np.array([[x - 5, 100, x + 5, 150] for x in range(20, 200, 20)], np.float64)
    draw_trail(canvas, Track(1, "person", np.arange(9.0), boxes), (255, 0, 0))
    assert (canvas[150, 30:170] == (255, 0, 0)).all()
    assert (canvas[:140] == 100).all()


@pytest.mark.parametrize("at", [(-50, -50), (5, 3), (319, 239), (1000, 1000)])
def test_a_label_is_moved_into_the_picture(at):
    canvas = grey()
    draw_label(canvas, "院子 yard 3", at, (0, 0, 200))
    blue = (canvas == (0, 0, 200)).all(axis=2)
    assert blue.sum() > 300
    assert (canvas[blue.any(axis=1)][:, blue.any(axis=0)] != 100).any(axis=2).mean() > 0.95  # a whole plate, not cut


def test_a_panel_has_a_mark_and_white_letters_for_each_row():
    canvas = grey()
    draw_panel(canvas, [("one", (250, 0, 0)), ("two", (0, 250, 0))])
    assert (canvas == (250, 0, 0)).all(axis=2).sum() == (canvas == (0, 250, 0)).all(axis=2).sum() > 80
    assert (canvas == 255).all(axis=2).any()
    assert (canvas[120:] == 100).all()


@pytest.mark.parametrize("size", [(1, 1), (5, 400), (400, 5), (20, 20)])
def test_small_pictures_are_no_trouble(size):
    canvas = grey(*size)
    draw_zone(canvas, SQUARE, text="a long name of a zone", alert=True)
    draw_line(canvas, Line(name="l", points=((0, 0), (1, 1))), text="gate: in 1, out 2")
    draw_panel(canvas, [("a long reason " * 20, ALERT)] * 50)
    assert canvas.shape == (*size, 3)


def test_counts_are_told_in_words():
    assert counted({"person": 2, "car": 1}) == "2 person, 1 car"
