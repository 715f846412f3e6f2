import numpy as np
import pytest

from openlepton.errors import UsageError
from openlepton.results import Detections
from openlepton.video.analytics import MAX_SAMPLES, Analytics, Heat, Track, pace, speed_kmh, velocity
from openlepton.video.zones import Ground, Line, Scene, Zone

NAMES = ("person", "car")
HW = (400, 800)
SCENE = Scene(
    zone=(Zone(name="yard", points=((0.25, 0.0), (0.75, 0.0), (0.75, 1.0), (0.25, 1.0))),),  # x 200..600
    line=(Line(name="gate", points=((400, 400), (400, 0)), units="pixels"),),  # up: right is +x
)


def seen(*objects, hw=HW):
    """Detections of `(id, class, foot x, foot y)`, each 40 wide and 100 tall."""
    ids, classes, x, y = np.array(objects, np.float64).reshape(-1, 4).T
    boxes = np.column_stack([x - 20, y - 100, x + 20, y])
    return Detections(boxes, np.ones(len(ids)), classes, NAMES, hw, track_ids=ids)


def test_a_walk_through_the_gate_and_the_zone_is_counted_to_the_frame():
    analytics = Analytics(SCENE)
    crossings, stays = [], []
    for frame in range(101):  # from x = 100 to 700 in 10 s, 60 px/s
        moment = analytics.update(seen((7, 0, 100 + 6 * frame, 300)), frame * 0.1)
        crossings += moment.crossings
        stays += moment.stays
        inside = 200 <= 100 + 6 * frame < 600
        assert moment.inside == {"yard": {7: pytest.approx(1.7)} if inside else {}}
    assert [(c.line, c.track, c.label, c.direction) for c in crossings] == [("gate", 7, "person", "in")]
    assert crossings[0].time_s == pytest.approx(
        5.1
    )  # x = 406 is the first beyond 400 by more than the margin of 4.5 px
    assert [(s.zone, s.track, round(s.entered_s, 3), round(s.left_s, 3)) for s in stays] == [("yard", 7, 1.7, 8.3)]
    assert analytics.totals() == {
        "lines": {"gate": {"person": {"in": 1, "out": 0}}},
        "zones": {"yard": {"occupancy": {}, "dwell": {"person": {"count": 1, "mean_s": 6.6, "longest_s": 6.6}}}},
    }


def test_each_class_and_direction_is_counted_apart():
    analytics = Analytics(SCENE)
    for frame in range(21):
        step = 20 * frame
        people = [(1, 0, 200 + step, 300), (2, 0, 600 - step, 200)]
        cars = [(3, 1, 600 - step, 100), (4, 1, 200 + step / 10, 100)]
        analytics.update(seen(*people, *cars), frame / 10)
    assert analytics.totals()["lines"]["gate"] == {"car": {"in": 0, "out": 1}, "person": {"in": 1, "out": 1}}


def test_trembling_on_a_line_is_no_crossing_and_coming_back_is_two():
    analytics = Analytics(SCENE)
    rng = np.random.default_rng(0)
    path = [*np.linspace(300, 396, 20), *(400 + rng.uniform(-4, 4, 200)), *np.linspace(404, 500, 20), 300]
    directions = [
        crossing.direction
        for frame, x in enumerate(path)
        for crossing in analytics.update(seen((1, 0, x, 300)), frame / 10).crossings
    ]
    assert directions == ["in", "out"]


def test_going_around_the_end_of_a_line_is_no_crossing():
    scene = Scene(line=(Line(name="short", points=((400, 300), (400, 200)), units="pixels"),))
    analytics = Analytics(scene)
    around = [(350, 250), (350, 350), (450, 350), (450, 250)]
    assert not any(analytics.update(seen((1, 0, *at)), frame).crossings for frame, at in enumerate(around))
    assert analytics.update(seen((1, 0, 350, 250)), 9).crossings[0].direction == "out"


def test_who_is_lost_for_a_moment_has_not_left_and_who_is_lost_for_longer_has():
    analytics = Analytics(SCENE, gap_s=1.0)
    times = [0.0, 0.5, 1.0, 1.9, 2.5]  # lost between 1.0 and 1.9
    for time_s in times:
        moment = analytics.update(seen((1, 0, 400, 300)), time_s)
    assert moment.inside["yard"] == {1: 0.0}
    empty = [analytics.update(seen(), time_s) for time_s in (3.0, 3.5, 3.6)]
    assert [len(moment.stays) for moment in empty] == [0, 0, 1]
    assert (empty[2].stays[0].entered_s, empty[2].stays[0].left_s) == (0.0, 2.5)
    assert analytics.update(seen((1, 0, 400, 300)), 4.0).inside["yard"] == {1: 4.0}


def test_at_the_end_of_a_stream_all_have_left():
    analytics = Analytics(SCENE)
    analytics.update(seen((1, 0, 400, 300), (2, 1, 400, 300)), 0.0)
    analytics.update(seen((1, 0, 400, 300), (2, 1, 400, 300)), 2.0)
    assert analytics.totals()["zones"]["yard"]["occupancy"] == {"car": 1, "person": 1}
    assert [(stay.track, stay.left_s) for stay in analytics.finish()] == [(1, 2.0), (2, 2.0)]


def test_speed_over_ground_is_exact_with_and_without_perspective():
    """20 m in 4 s are 18 km/h, wherever in the picture."""
    flat = Ground(
        points=((0, 0), (800, 0), (800, 400), (0, 400)), metres=((0, 0), (40, 0), (40, 20), (0, 20)), units="pixels"
    )
    road = Ground(points=((0.1, 1), (0.9, 1), (0.6, 0.5), (0.4, 0.5)), metres=((0, 0), (4, 0), (4, 20), (0, 20)))
    times = np.arange(41) / 10
    feet = np.column_stack([100 + 100 * times, np.full(41, 300.0)])  # 100 px/s are 5 m/s
    track = Track(1, "car", times, np.column_stack([feet - np.array([20, 100]), feet + np.array([20, 0])]))
    assert speed_kmh(track, flat, HW) == pytest.approx(18.0)

    from openlepton.video.zones import homography, project

    to_picture = homography(np.array(road.metres, float), road.pixels(HW))
    feet = project(to_picture, np.column_stack([np.full(41, 2.0), 5 * times]))
    track = Track(1, "car", times, np.column_stack([feet - np.array([20, 100]), feet + np.array([20, 0])]))
    assert [speed_kmh(track.between(9, ago), road, HW) for ago in (0, 1, 2)] == pytest.approx([18.0] * 3)


def test_a_speed_is_steady_where_boxes_tremble():
    rng = np.random.default_rng(0)
    times = np.arange(26) / 25
    errors = [
        velocity(times, np.column_stack([50 * times, 0 * times]) + rng.normal(0, 2, (26, 2)))[0] - 50
        for _ in range(500)
    ]
    # Least squares: sigma over the root of the sum of squared distances from the mean time; differences of ends: 2.8
    assert np.std(errors) == pytest.approx(2 / np.sqrt(((times - times.mean()) ** 2).sum()), rel=0.1)


def test_a_speed_of_too_little_is_not_a_number():
    times = np.array([0.0, 0.04, 0.08])
    assert np.isnan(velocity(times, np.zeros((3, 2)))).all()
    assert np.isnan(velocity(times[:2] * 9, np.zeros((2, 2)))).all()


def test_pace_is_in_heights_a_second():
    times = np.arange(11) / 10
    boxes = np.column_stack([150 * times, 0 * times, 150 * times + 40, 0 * times + 100])
    assert pace(Track(1, "person", times, boxes)) == pytest.approx(1.5)


def test_the_past_of_a_track_is_bounded_and_in_order():
    analytics = Analytics(Scene(), keep_s=3.0)
    for frame in range(5000):
        moment = analytics.update(seen((1, 0, frame % 800, 300)), frame / 25)
    track = moment.tracks[0]
    assert len(track.times) == 76
    assert track.times[0] == pytest.approx(track.times[-1] - 3.0)
    assert (np.diff(track.times) > 0).all()
    assert track.feet[:, 0].tolist() == [frame % 800 for frame in range(4924, 5000)]
    for frame in range(5000):  # a thousand frames a second
        moment = analytics.update(seen((1, 0, 5, 300)), 200 + frame / 1000)
    assert len(moment.tracks[0].times) == MAX_SAMPLES


def test_nothing_is_kept_of_tracks_that_are_gone():
    analytics = Analytics(SCENE)
    for frame in range(2000):
        analytics.update(seen((frame, 0, 350 + frame % 100, 300)), float(frame))
    assert len(analytics._trails) <= 4
    assert all(len(kept) <= 4 for kept in (*analytics._sides.values(), *analytics._inside.values()))


def test_a_track_has_the_class_that_it_mostly_was():
    analytics = Analytics(Scene())
    labels = [
        analytics.update(seen((1, index, 100, 300)), float(frame)).tracks[0].label
        for frame, index in enumerate([0, 1, 0, 0, 1])
    ]
    assert labels[-3:] == ["person", "person", "person"]


def test_detections_without_identities_and_time_that_stands_still_are_errors():
    analytics = Analytics(Scene())
    with pytest.raises(UsageError, match="no track_ids"):
        analytics.update(Detections.empty(NAMES, HW), 0.0)
    analytics.update(seen(), 1.0)
    with pytest.raises(UsageError, match="a frame of second 1 came after one of second 1"):
        analytics.update(seen(), 1.0)


def test_the_heat_map_holds_the_seconds_spent_in_each_cell():
    analytics, heat = Analytics(Scene()), Heat(HW, cell=8)
    for frame in range(21):
        heat.update(analytics.update(seen((1, 0, 100, 300), (2, 0, 799.9, 450)), frame / 10))
    assert heat.seconds.sum() == pytest.approx(4.0)
    assert heat.seconds[37, 12] == pytest.approx(2.0)
    assert heat.seconds[-1, -1] == pytest.approx(2.0)  # below the picture counts at its edge
    picture = heat.drawn_on(np.full((*HW, 3), 100, np.uint8))
    assert picture.shape == (*HW, 3)
    assert (picture[300, 100] != 100).any()
    assert (picture[:200, 300:] == 100).all()


def test_who_was_lost_a_moment_ago_is_still_told_with_its_past():
    analytics = Analytics(Scene(), gap_s=1.0)
    for frame in range(11):
        analytics.update(seen((1, 0, 100, 300), (2, 0, 200, 300)), frame / 10)
    told = {time_s: analytics.update(seen((2, 0, 200, 300)), time_s) for time_s in (1.5, 2.0, 2.1)}
    assert [[track.id for track in moment.lost] for moment in told.values()] == [[1], [1], []]
    assert told[1.5].lost[0].times[-1] == 1.0
    assert [track.id for track in told[1.5].tracks] == [2]
