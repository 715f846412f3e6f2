"""What every tracker promises, and the three against the papers written out with loops."""

import itertools
import time

import numpy as np
import pytest

from openlepton.errors import ShapeError, UsageError
from openlepton.ops.boxes import iou
from openlepton.ops.masks import rle_of_mask
from openlepton.results import Detections
from openlepton.video.tracker import TRACKERS, ByteTrack, OcSort, Sort, make_tracker
from openlepton.video.tracks import assign, centres, overlap

pytest.importorskip("scipy")

NAMES = ("person", "car")
EVERY = pytest.mark.parametrize("name", TRACKERS)


def detections(boxes, scores=0.9, class_ids=0, **fields):
    boxes = np.asarray(boxes, np.float32).reshape(-1, 4)
    count = len(boxes)
    scores, class_ids = np.broadcast_to(scores, count), np.broadcast_to(class_ids, count)
    return Detections(boxes, scores, class_ids, NAMES, (480, 640), **fields)


def walkers(frame, count=3):
    """Boxes of people who walk side by side, 4 pixels a frame."""
    return [[20 + 4 * frame, 10 + 100 * row, 50 + 4 * frame, 90 + 100 * row] for row in range(count)]


def crowd(seed, frames=60, count=12):
    """Detections of a crowd that crosses itself: missed, doubtful, trembling and false ones among them."""
    rng = np.random.default_rng(seed)
    places, speeds = rng.uniform(50, 400, (count, 2)), rng.normal(0, 5, (count, 2))
    sides = rng.uniform(30, 80, (count, 2))
    scene = []
    for _ in range(frames):
        places = places + speeds
        speeds += rng.normal(0, 0.4, speeds.shape)
        seen = rng.random(count) < 0.85
        boxes = np.concatenate([places - sides / 2, places + sides / 2], axis=1) + rng.normal(0, 2, (count, 4))
        false = rng.uniform(0, 400, (rng.poisson(0.5), 2))
        boxes = np.concatenate([boxes[seen], np.concatenate([false, false + 40], axis=1)])
        scores = np.where(
            rng.random(len(boxes)) < 0.7, rng.uniform(0.75, 1, len(boxes)), rng.uniform(0.05, 0.75, len(boxes))
        )
        scene.append(detections(boxes, scores, rng.random(len(boxes)) < 0.1))
    return scene


# ---- what every tracker promises


@EVERY
def test_identities_start_at_one_and_stay(name):
    tracker = make_tracker(name)
    for frame in range(20):
        out = tracker.update(detections(walkers(frame)))
        assert out.track_ids.tolist() == [1, 2, 3]


@EVERY
def test_the_detected_box_comes_out_with_everything_that_belongs_to_it(name):
    tracker = make_tracker(name)
    masks = []
    for row in range(3):
        mask = np.zeros((480, 640), bool)
        mask[row, : row + 1] = True
        masks.append(rle_of_mask(mask))
    for frame in range(6):
        found = detections(walkers(frame), [0.95, 0.05, 0.8], [0, 1, 1], masks=masks)
        out = tracker.update(found)
        assert np.array_equal(out.boxes, found.boxes[[0, 2]])
        assert np.array_equal(out.scores, found.scores[[0, 2]])
        assert np.array_equal(out.class_ids, [0, 1])
        assert [mask.area for mask in out.masks] == [1, 3]
        assert out.names is found.names


@EVERY
def test_state_belongs_to_the_instance(name):
    first, second = make_tracker(name), make_tracker(name)
    for frame in range(5):
        first.update(detections(walkers(frame, 4)))
    assert second.update(detections(walkers(0, 2))).track_ids.tolist() == [1, 2]
    assert first.update(detections(walkers(5, 4))).track_ids.tolist() == [1, 2, 3, 4]


@EVERY
def test_identities_are_never_given_twice_and_never_shared_in_a_frame(name):
    tracker = make_tracker(name, max_age=2)
    last, highest = {}, 0
    for number, found in enumerate(crowd(1, frames=200)):
        ids = tracker.update(found).track_ids.tolist()
        assert len(set(ids)) == len(ids)
        for one in ids:
            assert one <= highest + len(found)
            assert number - last.get(one, number) <= 3, "an identity came back after its track was dropped"
            last[one] = number
        highest = max([highest, *ids])
    assert sorted(last) == list(range(1, highest + 1))
    assert highest > 12


@EVERY
def test_a_gap_is_bridged_up_to_the_greatest_age_and_no_longer(name):
    for gap, same in ((3, True), (4, False)):
        tracker = make_tracker(name, max_age=3)
        for frame in range(10):
            tracker.update(detections(walkers(frame, 1)))
        for _ in range(gap):
            assert len(tracker.update(detections([]))) == 0
        seen = [tracker.update(detections(walkers(frame, 1))) for frame in range(10 + gap, 16 + gap)]
        assert set(np.concatenate([one.track_ids for one in seen])) == ({1} if same else {2})


@EVERY
def test_classes_keep_apart_unless_told_otherwise(name):
    for aware, wanted in ((True, {1, 2}), (False, {1})):
        tracker = make_tracker(name, class_aware=aware)
        seen = [tracker.update(detections(walkers(frame, 1), class_ids=int(frame >= 6))) for frame in range(14)]
        assert set(np.concatenate([one.track_ids for one in seen])) == wanted


@EVERY
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_a_number_is_an_error_and_changes_nothing(name, bad):
    tracker, twin = make_tracker(name), make_tracker(name)
    for frame in range(4):
        twin.update(detections(walkers(frame)))
        tracker.update(detections(walkers(frame)))
    boxes = walkers(4)
    boxes[1][2] = bad
    with pytest.raises(ShapeError, match="detection 1: expected finite numbers"):
        tracker.update(detections(boxes))
    with pytest.raises(ShapeError, match="detection 2"):
        tracker.update(detections(walkers(4), [0.9, 0.9, bad]))
    a, b = (each.update(detections(walkers(4))) for each in (tracker, twin))
    assert a.track_ids.tolist() == b.track_ids.tolist()


@EVERY
def test_boxes_without_an_extent_inside_out_or_far_away_do_no_harm(name):
    tracker = make_tracker(name)
    odd = [[5, 5, 5, 5], [9, 9, 3, 3], [1e30, 1e30, 2e30, 3e30], [-1e6, 0, 1e6, 1], [0, 0, 1e-30, 1e-30]]
    with np.errstate(all="raise"):
        for frame in range(8):
            out = tracker.update(detections([*walkers(frame), *odd]))
            assert np.isfinite(out.boxes).all()
            assert {1, 2, 3} <= set(out.track_ids.tolist())
        for _ in range(40):
            tracker.update(detections([]))


@EVERY
def test_a_thousand_boxes_in_a_frame_keep_their_identities(name):
    rows, columns = np.mgrid[:25, :40]
    corners = np.column_stack([columns.ravel() * 40, rows.ravel() * 40])
    rng = np.random.default_rng(0)
    tracker, first = make_tracker(name), {}
    started = time.process_time()
    for frame in range(5):
        order = rng.permutation(1000)
        places = corners[order] + 2 * frame
        out = tracker.update(detections(np.concatenate([places, places + 30], axis=1)))
        now = dict(zip(order.tolist(), out.track_ids.tolist(), strict=True))
        first = first or now
        assert now == first
    assert time.process_time() - started < 10


@pytest.mark.slow
@EVERY
def test_an_hour_of_nothing_leaves_nothing_behind(name):
    tracker = make_tracker(name)
    for frame in range(10):
        tracker.update(detections(walkers(frame)))
    empty = detections([])
    for _ in range(3600 * 25):
        assert len(tracker.update(empty)) == 0
    assert tracker._table.shape[1] == 0
    for frame in range(5):
        out = tracker.update(detections(walkers(frame)))
    assert out.track_ids.tolist() == [4, 5, 6]


@EVERY
def test_the_motion_of_the_camera_is_made_up_for(name):
    """A camera that pans faster than boxes overlap: without the pictures every identity is lost."""
    rng = np.random.default_rng(0)
    world = rng.integers(0, 256, (300, 2000, 3), np.uint8)
    world = np.repeat(np.repeat(world[::6, ::6], 6, axis=0), 6, axis=1)[:300, :2000]
    standing = np.array([[900, 100, 930, 180], [1000, 120, 1030, 200]])
    kept = {}
    for motion in (False, True):
        tracker = make_tracker(name, camera_motion=motion)
        seen = []
        for frame in range(12):
            left = 700 + 36 * (frame % 2)  # to and fro, so that no constant velocity explains it
            image = np.ascontiguousarray(world[:, left : left + 480])
            boxes = standing - [left, 0, left, 0]
            seen.append(tracker.update(detections(boxes), image=image if motion else None).track_ids.tolist())
        kept[motion] = seen
    assert kept[True] == [[1, 2]] * 12
    assert kept[False] != kept[True]
    with pytest.raises(UsageError, match="needs the frame's image"):
        make_tracker(name, camera_motion=True).update(detections([]))


def test_wrong_names_and_options_are_errors():
    with pytest.raises(UsageError, match="choose sort, bytetrack, ocsort"):
        make_tracker("deepsort")
    with pytest.raises(UsageError, match="sort: has no option of that name"):
        make_tracker("sort", low_score=0.1)
    for name, option in itertools.product(TRACKERS, ({"min_score": 1.5}, {"max_age": -1})):
        with pytest.raises(UsageError):
            make_tracker(name, **option)


# ---- the parts


def test_overlap_is_iou_in_another_layout():
    rng = np.random.default_rng(0)
    a, b = (np.cumsum(rng.uniform(1, 50, (count, 2, 2)), axis=1).reshape(count, 4) for count in (7, 5))
    wanted = iou(a, b)
    assert overlap(centres(detections(a)), centres(detections(b))) == pytest.approx(wanted, abs=1e-5)


@pytest.mark.parametrize("shape", [(4, 4), (3, 5), (5, 2), (0, 3), (2, 0)])
def test_the_assignment_is_the_best_of_all(shape):
    rng = np.random.default_rng(sum(shape))
    for _ in range(30):
        gain = rng.random(shape)
        rows, columns = assign(gain, 0.4)
        assert len(set(rows.tolist())) == len(rows)
        assert len(set(columns.tolist())) == len(columns)
        assert (gain[rows, columns] > 0.4).all()
        fewer, more = min(shape), max(shape)
        every = itertools.permutations(range(more), fewer)
        turned = gain if shape[0] <= shape[1] else gain.T
        best = max(sum(max(turned[row, column] - 0.4, 0) for row, column in enumerate(one)) for one in every)
        assert (gain[rows, columns] - 0.4).sum() == pytest.approx(best)


# ---- ByteTrack


def test_doubtful_detections_continue_tracks_but_begin_none():
    tracker = ByteTrack()
    for frame in range(12):
        score = 0.9 if frame < 3 or frame > 8 else 0.2
        out = tracker.update(detections([*walkers(frame, 1), [400, 300, 440, 380]], [score, 0.3]))
        assert out.track_ids.tolist() == [1]


def test_a_new_track_needs_a_second_frame_but_not_in_the_first():
    tracker = ByteTrack()
    assert tracker.update(detections(walkers(0, 1))).track_ids.tolist() == [1]
    assert tracker.update(detections(walkers(1, 2))).track_ids.tolist() == [1]
    assert tracker.update(detections(walkers(2, 2))).track_ids.tolist() == [1, 2]
    tracker.update(detections([*walkers(3, 2), [400, 300, 440, 380]]))
    tracker.update(detections(walkers(4, 2)))
    assert tracker.update(detections([*walkers(5, 2), [400, 300, 440, 380]])).track_ids.tolist() == [1, 2]


# ---- the papers, written out: one object a track, matrices, loops


class Loop:
    """The textbook's filter for one track; coordinates in, coordinates out."""

    def __init__(self, value, value_var, rate_var):
        self.x, self.P = np.concatenate([value, np.zeros(4)]), np.diag(np.concatenate([value_var, rate_var]))

    def predict(self, value_noise, rate_noise):
        move = np.eye(8) + np.eye(8, k=4)
        self.x, self.P = move @ self.x, move @ self.P @ move.T + np.diag(np.concatenate([value_noise, rate_noise]))

    def correct(self, measured, noise):
        see = np.eye(4, 8)
        gain = self.P @ see.T @ np.linalg.inv(see @ self.P @ see.T + np.diag(noise))
        self.x, self.P = self.x + gain @ (measured - see @ self.x), (np.eye(8) - gain @ see) @ self.P


class One:
    """A track of the loops."""

    def __init__(self, loop, class_id):
        self.filter, self.class_id, self.id, self.missed, self.hits = loop, class_id, 0, 0, 1
        self.seen, self.course, self.frozen = {}, None, None


def area(box):
    w, h = box[2] - box[0], box[3] - box[1]
    return np.array([(box[0] + box[2]) / 2, (box[1] + box[3]) / 2, w * h, w / h])


def from_area(x):
    w = np.sqrt(x[2] * x[3])
    h = x[2] / w
    return np.array([x[0] - w / 2, x[1] - h / 2, x[0] + w / 2, x[1] + h / 2])


def one_iou(a, b):
    w, h = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    shared = max(w, 0) * max(h, 0)
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)


def pairs(tracks, boxes, gain, least):
    """The best assignment of what gains more than `least`."""
    table = np.array([[gain(track, box) for box in boxes] for track in tracks]).reshape(len(tracks), len(boxes))
    return list(zip(*assign(table, least), strict=True))


def step_area(track):
    if track.filter.x[2] + track.filter.x[6] <= 0:
        track.filter.x[6] = 0
    track.filter.predict([1, 1, 1, 1], [0.01, 0.01, 0.0001, 0])


def sort_loops(scene, *, oc):
    """SORT, and OC-SORT on top of it."""
    tracks, given, result = [], 0, []
    min_score, max_age = (0.6, 30) if oc else (0.5, 1)
    for frame, found in enumerate(scene, 1):
        good = [(row, found.boxes[row].astype(float)) for row in range(len(found)) if found.scores[row] >= min_score]
        for track in tracks:
            step_area(track)

        def alike(track, item, of):
            return (found.class_ids[item[0]] == track.class_id) * one_iou(of(track), item[1])  # noqa: B023

        def before(track):
            return next(
                (track.seen[frame - back] for back in (3, 2, 1) if frame - back in track.seen),  # noqa: B023
                track.seen[max(track.seen)],
            )

        def centre_way(a, b):
            return np.array([b[0] + b[2] - a[0] - a[2], b[1] + b[3] - a[1] - a[3]]) / 2

        def gain(track, item):
            value = alike(track, item, lambda track: from_area(track.filter.x))
            if not oc or value <= 0.3:
                return value if value > 0.3 else 0
            way = centre_way(before(track), item[1])
            if track.course is not None and np.hypot(*way) > 0:
                angle = np.arccos(np.clip(way @ track.course / np.hypot(*way), -1, 1))
                value += 0.2 * (np.pi / 2 - angle) / np.pi * found.scores[item[0]]  # noqa: B023
            return value

        matched = [(tracks[a], good[b]) for a, b in pairs(tracks, good, gain, 0 if oc else 0.3)]
        if oc:
            left = [track for track in tracks if not any(track is one for one, _ in matched)]
            rest = [item for item in good if not any(item is other for _, other in matched)]
            again = pairs(left, rest, lambda track, item: alike(track, item, lambda one: one.seen[max(one.seen)]), 0.3)  # noqa: B023
            matched += [(left[a], rest[b]) for a, b in again]
        out = {}
        for track in tracks:
            item = next((item for one, item in matched if one is track), None)
            if item is None:
                track.missed, track.hits = track.missed + 1, 0
                continue
            row, box = item
            if oc:
                if track.missed:
                    last = track.seen[max(track.seen)]
                    track.filter.x, track.filter.P = (part.copy() for part in track.frozen)
                    for back in range(1, track.missed + 1):
                        step_area(track)
                        track.filter.correct(area(last + (box - last) * back / (track.missed + 1)), [1, 1, 10, 10])
                    step_area(track)
                way = centre_way(before(track), box)
                track.course = way / np.hypot(*way)
            track.filter.correct(area(box), [1, 1, 10, 10])
            track.frozen = track.filter.x, track.filter.P
            track.seen[frame] = box
            track.missed, track.hits = 0, track.hits + 1
            out[row] = track
        for row, box in good:
            if row not in out:
                out[row] = One(Loop(area(box), [10] * 4, [1e4, 1e4, 1e4, 0]), found.class_ids[row])
                out[row].seen[frame], out[row].frozen = box, (out[row].filter.x, out[row].filter.P)
                tracks.append(out[row])
        for track in tracks:  # in the order of their birth
            if track.missed == 0 and track.id == 0 and (track.hits >= 3 or frame <= 3):
                given += 1
                track.id = given
        tracks = [track for track in tracks if track.missed <= max_age]
        result.append({row: track.id for row, track in out.items() if track.id})
    return result


def bytetrack_loops(scene):
    """ByteTrack's algorithm 1."""

    def measure(box):
        w, h = box[2] - box[0], box[3] - box[1]
        return np.array([(box[0] + box[2]) / 2, (box[1] + box[3]) / 2, w / h, h])

    def box_of(track):
        x, y, ratio, h = track.filter.x[:4]
        return np.array([x - ratio * h / 2, y - h / 2, x + ratio * h / 2, y + h / 2])

    def var(h, share, ratio):
        return np.array([(h * share) ** 2, (h * share) ** 2, ratio**2, (h * share) ** 2])

    tracks, given, result = [], 0, []
    for frame, found in enumerate(scene, 1):
        items = [(row, found.boxes[row].astype(float), float(found.scores[row])) for row in range(len(found))]
        for track in tracks:
            if track.missed:
                track.filter.x[7] = 0
            h = track.filter.x[3]
            track.filter.predict(var(h, 1 / 20, 1e-2), var(h, 1 / 160, 1e-5))

        def alike(track, item):
            return (found.class_ids[item[0]] == track.class_id) * one_iou(box_of(track), item[1])  # noqa: B023

        def fused(track, item):
            return alike(track, item) * item[2]

        free, matched = list(tracks), []

        def match(some, candidates, gain, least):
            took = [(some[a], candidates[b]) for a, b in pairs(some, candidates, gain, least)]
            matched.extend(took)  # noqa: B023
            for track, item in took:
                free.remove(track)  # noqa: B023
                items.remove(item)  # noqa: B023

        match([t for t in free if t.id], [item for item in items if item[2] >= np.float32(0.6)], fused, 0.2)
        doubtful = [item for item in items if np.float32(0.1) <= item[2] < np.float32(0.6)]
        match([t for t in free if t.id and not t.missed], doubtful, alike, 0.5)
        match([t for t in free if not t.id], [item for item in items if item[2] >= np.float32(0.6)], fused, 0.3)
        out = {}
        for track in tracks:
            item = next((item for one, item in matched if one is track), None)
            if item is None:
                track.missed += 1
                continue
            track.filter.correct(measure(item[1]), var(track.filter.x[3], 1 / 20, 0.1))
            track.missed = 0
            out[item[0]] = track
        for row in sorted(out):
            if out[row].id == 0:
                given += 1
                out[row].id = given
        tracks = [track for track in tracks if track.missed <= (30 if track.id else 0)]
        for row, box, score in items:
            if score >= 0.7:
                h = box[3] - box[1]
                out[row] = One(Loop(measure(box), var(h, 1 / 10, 1e-2), var(h, 1 / 16, 1e-5)), found.class_ids[row])
                tracks.append(out[row])
                if frame == 1:
                    given += 1
                    out[row].id = given
        result.append({row: track.id for row, track in out.items() if track.id})
    return result


def ours(tracker, scene):
    """For each frame the identity of each row."""
    result = []
    for found in scene:
        out = tracker.update(found)
        rows = {tuple(box): row for row, box in enumerate(found.boxes.tolist())}
        result.append(
            {rows[tuple(box)]: one for box, one in zip(out.boxes.tolist(), out.track_ids.tolist(), strict=True)}
        )
    return result


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", ["sort", "bytetrack", "ocsort"])
def test_the_vectorised_tracker_is_the_paper_written_out(name, seed):
    scene = crowd(seed)
    wanted = bytetrack_loops(scene) if name == "bytetrack" else sort_loops(scene, oc=name == "ocsort")
    got = ours({"sort": Sort, "bytetrack": ByteTrack, "ocsort": OcSort}[name](), scene)
    assert max(one for frame in wanted for one in frame.values()) > 12
    assert [partition(frame) for frame in zip(wanted, got, strict=True)] == [True] * len(scene)


def partition(frame):
    return frame[0] == frame[1]
