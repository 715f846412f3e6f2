import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openlepton.errors import RulesInvalid, UsageError
from openlepton.video.zones import Ground, Line, Scene, Zone, contains, homography, meets, offset, project, read_toml

HW = (400, 800)
number = st.integers(-20, 20).map(float)
point = st.tuples(number, number)


def array(*points):
    return np.array(points, np.float64)


@given(st.lists(point, min_size=3, max_size=9), point)
def test_a_point_is_inside_where_opencv_says_so(polygon, where):
    """`pointPolygonTest` counts crossings too; on an edge the two may differ, and there it returns 0."""
    reference = cv2.pointPolygonTest(np.array(polygon, np.float32), where, False)
    if reference != 0:
        assert contains(array(*polygon), array(where))[0] == (reference > 0)


@given(st.integers(1, 5), st.integers(1, 5), number, number)
def test_zones_that_share_edges_leave_no_gap_and_never_overlap(columns, rows, x, y):
    """A grid of squares over the plane part 0..10 holds each point of it exactly once, corners included."""
    where = array((abs(x) % 10, abs(y) % 10))
    w, h = 10 / columns, 10 / rows
    squares = [
        array((c * w, r * h), ((c + 1) * w, r * h), ((c + 1) * w, (r + 1) * h), (c * w, (r + 1) * h))
        for r in range(rows)
        for c in range(columns)
    ]
    assert sum(bool(contains(square, where)[0]) for square in squares) == 1


def test_a_hole_made_by_the_even_odd_rule_is_outside():
    star = array((0, 0), (10, 0), (10, 10), (0, 10), (0, 0), (3, 3), (7, 3), (7, 7), (3, 7), (3, 3))
    assert contains(star, array((1, 5), (5, 5), (11, 5))).tolist() == [True, False, False]


def test_relative_points_follow_the_size_of_the_picture():
    zone = Zone(name="z", points=((0.25, 0.5), (0.75, 0.5), (0.75, 1.0)))
    assert zone.pixels(HW).tolist() == [[200, 200], [600, 200], [600, 400]]
    assert zone.contains(array((500, 210), (300, 390)), HW).tolist() == [True, False]
    fixed = Zone(name="z", points=((200, 200), (600, 200), (600, 400)), units="pixels")
    assert (fixed.pixels(HW) == zone.pixels(HW)).all()


def test_right_of_a_line_is_right_as_seen_along_it():
    up = array((100, 300), (100, 100))  # up on the picture, where y points down
    assert offset(up, array((130, 200), (90, 0))).tolist() == [30, -10]


@pytest.mark.parametrize(
    ("before", "after", "met"),
    [
        ((80, 200), (120, 200), True),
        ((120, 200), (80, 200), True),
        ((80, 320), (120, 320), False),  # below the line's end
        ((80, 290), (120, 330), False),  # passes the line's row end at y = 310
        ((80, 260), (120, 300), True),
        ((80, 200), (95, 200), False),
    ],
)
def test_a_way_meets_a_line_only_between_its_ends(before, after, met):
    assert meets(array((100, 300), (100, 100)), array(before), array(after)).tolist() == [met]


def test_a_homography_is_opencvs():
    rng = np.random.default_rng(0)
    for _ in range(20):
        source = array((0, 0), (640, 0), (640, 360), (0, 360)) + rng.uniform(-80, 80, (4, 2))
        target = array((0, 0), (6, 0), (6, 20), (0, 20)) + rng.uniform(-0.5, 0.5, (4, 2))
        ours = homography(source, target)
        theirs = cv2.getPerspectiveTransform(source.astype(np.float32), target.astype(np.float32))
        points = source.mean(axis=0) + rng.uniform(-50, 50, (30, 2))
        expected = cv2.perspectiveTransform(points[None], theirs)[0]
        assert np.abs(project(ours, points) - expected).max() < 1e-3  # OpenCV's corners are single precision
        assert np.abs(project(ours, source) - target).max() < 1e-9


def test_the_ground_of_a_pinhole_camera_is_found_to_a_millimetre_and_ends_at_its_horizon():
    """A camera 5 m above a plane, tilted down by 20 degrees, focal length 800 px."""
    tilt, height, focal = np.deg2rad(20), 5.0, 800.0
    rotation = np.array([[1, 0, 0], [0, np.cos(tilt), -np.sin(tilt)], [0, np.sin(tilt), np.cos(tilt)]])

    def seen(places):  # x to the right, z ahead; the plane lies `height` below the camera
        rays = np.column_stack([places[:, 0], np.full(len(places), height), places[:, 1]]) @ rotation.T
        return focal * rays[:, :2] / rays[:, 2:] + (400, 200)

    marks = array((-3, 8), (3, 8), (3, 25), (-3, 25))
    ground = Ground(points=tuple(map(tuple, seen(marks))), metres=tuple(map(tuple, marks)), units="pixels")
    places = array((0, 10), (-5, 40), (4, 6), (10, 120))
    assert np.abs(ground.metres_at(seen(places), HW) - places).max() < 1e-3
    horizon = 200 - focal * np.tan(tilt)
    assert np.isnan(ground.metres_at(array((400, horizon - 5), (100, -300)), HW)).all()
    assert ground.metres_at(array((400, horizon + 0.5)), HW)[0, 1] > 4000


FILE = """
[[zone]]
name = "yard"
points = [[0.1, 0.5], [0.9, 0.5], [0.9, 1.0]]
[[line]]
name = "gate"
points = [[10, 20], [30, 40]]
units = "pixels"
[ground]
points = [[0.2, 0.9], [0.8, 0.9], [0.6, 0.5], [0.4, 0.5]]
metres = [[0, 0], [6, 0], [6, 20], [0, 20]]
"""


def test_a_scene_is_read_from_what_one_writes_by_hand(tmp_path):
    path = tmp_path / "scene.toml"
    path.write_text(FILE, encoding="utf-8")
    scene = read_toml(path, Scene)
    assert scene.zone_named("yard").points == ((0.1, 0.5), (0.9, 0.5), (0.9, 1.0))
    assert scene.line_named("gate") == Line(name="gate", points=((10, 20), (30, 40)), units="pixels")
    assert scene.ground.metres == ((0, 0), (6, 0), (6, 20), (0, 20))
    with pytest.raises(UsageError, match="no zone is called 'yrd'; drawn are: yard"):
        scene.zone_named("yrd")


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        (
            "0.9, 1.0",
            "9, 1.0",
            'zone 1: relative points lie within 0..1; write units = "pixels" where pixels are meant',
        ),
        (
            "[[0.1, 0.5], [0.9, 0.5], [0.9, 1.0]]",
            "[[0.1, 0.5], [0.9, 0.5]]",
            "zone 1: a zone has at least three points",
        ),
        ("[[0.1, 0.5], [0.9, 0.5], [0.9, 1.0]]", "[[0, 0], [0.5, 0.5], [1, 1]]", "zone 1: a zone has at least three"),
        ("0.9, 1.0", "nan, 1.0", "zone 1, points 3 1: Input should be a finite number"),
        ("[30, 40]", "[10, 20]", "line 1: a line has two different points"),
        ('"gate"', '"yard"', "'yard' is the name of more than one zone or line"),
        ('"gate"', '""', "line 1, name: String should have at least 1 character"),
        ("[6, 20], [0, 20]", "[6, 20]", "ground: the ground is told by four points and their four places"),
        ("[0.6, 0.5]", "[0.8, 0.5]", None),
        ("[0, 0], [6, 0]", "[0, 10], [0, 0]", "ground: no three of the ground's four points may lie on one line"),
        ("metres", "meters", "ground, metres: Field required (and 1 more)"),
        ("[[line]]", "[[line", "not TOML"),
    ],
)
def test_a_fault_in_the_file_is_told_in_one_line_with_its_place(tmp_path, before, after, message):
    path = tmp_path / "scene.toml"
    path.write_text(FILE.replace(before, after, 1), encoding="utf-8")
    if message is None:
        read_toml(path, Scene)
        return
    with pytest.raises(RulesInvalid) as caught:
        read_toml(path, Scene)
    assert str(caught.value).startswith(f"{path}: {message}"), caught.value
    assert "\n" not in str(caught.value)


def test_a_file_that_is_missing_or_enormous_is_an_error(tmp_path):
    with pytest.raises(RulesInvalid, match="none.toml: cannot be read: No such file"):
        read_toml(tmp_path / "none.toml", Scene)
    path = tmp_path / "big.toml"
    path.write_bytes(b"#" * (1024 * 1024 + 1))
    with pytest.raises(RulesInvalid, match="has more than 1,048,576 bytes"):
        read_toml(path, Scene)
