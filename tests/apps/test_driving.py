import time

import numpy as np
import pytest

from openlepton.apps.dashcam import Dashcam, Lens, growth, read_dashcam
from openlepton.apps.driving import Drive, RoadStep, RoadUser, annotate, drive, joined, riders
from openlepton.errors import RulesInvalid
from openlepton.results import Detections
from openlepton.video.analytics import Track
from openlepton.video.stream import Frame, VideoWriter, frames

HW, FOCAL, ABOVE = (360, 640), 560.0, 1.35
CAMERA = Dashcam(camera=Lens(focal_px=FOCAL, width=640, height_m=ABOVE))
NAMES = ("person", "car", "bicycle", "motorbike", "dog")
SIGNS = ("trafficlight", "speedlimit", "crosswalk", "stop")


def box(x, distance, tall, wide, foot=0.0):
    """What a pinhole camera sees of an object `x` metres to the right whose foot is `foot` metres above the road."""
    scale = FOCAL / distance
    left, right = 320 + (x - wide / 2) * scale, 320 + (x + wide / 2) * scale
    return [left, 180 + (ABOVE - foot - tall) * scale, right, 180 + (ABOVE - foot) * scale]


def detections(*objects, names=NAMES):
    boxes = np.array([found for _, found in objects], np.float32).reshape(-1, 4)
    return Detections(boxes, [0.9] * len(objects), [names.index(label) for label, _ in objects], names, HW)


def track(label, boxes, fps=10):
    return Track(1, label, np.arange(len(boxes)) / fps, np.array(boxes, np.float64))


def play(scene, seconds, *, camera=CAMERA, signs=(), fps=10):
    """Return the steps of a drive on which `scene(t)` gives what one model finds, and `signs(t)` what another does."""
    frame = 0

    def general(_):
        return detections(*scene(frame / fps))

    def special(_):
        return detections(*(signs(frame / fps) if signs else ()), names=SIGNS)

    following = Drive([general, special], camera)
    image = np.zeros((*HW, 3), np.uint8)
    steps = []
    for frame in range(round(seconds * fps)):
        steps.append(following.step(Frame(image, frame, frame / fps, 0.0, "cam")))
    return steps


@pytest.mark.parametrize("distance", [8.0, 15.0, 40.0])
def test_distances_are_exact_from_the_ground_and_from_heights(distance):
    seen = track("car", [box(1.0, distance, 1.5, 1.8)] * 5)
    assert CAMERA.distance(seen, HW) == (pytest.approx(distance, rel=1e-3), "ground")
    without = Dashcam(camera=Lens(focal_px=FOCAL, width=640))
    assert without.distance(seen, HW) == (pytest.approx(distance, rel=1e-3), "height")
    assert CAMERA.lateral(seen, distance, HW) == pytest.approx(1.0, rel=1e-3)


def test_beyond_what_the_ground_can_tell_heights_do():
    far = track("car", [box(0, 120.0, 1.5, 1.8)] * 5)  # its foot is 6 pixels below the horizon
    assert CAMERA.distance(far, HW) == (pytest.approx(120, rel=1e-3), "height")
    sign = track("stop", [box(3, 20.0, 0.75, 0.75, foot=1.9)] * 5)
    assert CAMERA.distance(sign, HW) == (pytest.approx(20, rel=1e-3), "height")


def test_what_the_edge_cuts_off_has_no_distance_rather_than_a_wrong_one():
    near = track("car", [[200, 100, 440, 360]] * 5)
    assert CAMERA.distance(near, HW) == (None, "")
    assert growth(near, HW) is None
    unknown = Dashcam(camera=Lens(focal_px=FOCAL, width=640))
    assert unknown.distance(track("dog", [box(0, 10, 0.5, 0.5)] * 5), HW) == (None, "")
    assert unknown.model_copy(update={"heights_m": {"dog": 0.5}}).distance(
        track("dog", [box(0, 10, 0.5, 0.5)] * 5), HW
    )[0] == (pytest.approx(10, rel=1e-3))


def test_a_view_in_degrees_is_a_focal_length_and_follows_the_size_of_the_picture():
    assert Dashcam(camera=Lens(fov_deg=90)).focal((100, 640)) == pytest.approx(320)
    assert CAMERA.focal((720, 1280)) == pytest.approx(1120)


@pytest.mark.parametrize(("speed", "distance"), [(10.0, 30.0), (3.0, 12.0), (-5.0, 20.0)])
def test_time_to_collision_and_closing_speed_are_those_of_the_motion(speed, distance):
    """At the middle of the 0.8 s over which growth is measured, to the curvature of a logarithm."""
    boxes = [box(0, distance - speed * (frame / 10 - 0.8), 1.5, 1.8) for frame in range(9)]
    grown = growth(track("car", boxes), HW)
    middle = distance + speed * 0.4
    assert grown.rate == pytest.approx(speed / middle, rel=0.02)
    if speed > 0:
        assert grown.collision_s == pytest.approx(middle / speed, rel=0.02)
    else:
        assert grown.collision_s is None


def test_who_walks_into_the_path_is_warned_of_before_and_who_stays_beside_it_never():
    steps = play(lambda t: [("person", box(6 - 1.4 * t, 15, 1.7, 0.6)), ("person", box(-4, 15, 1.7, 0.6))], 5)
    warned = [(event.kind, event.start_s, event.track) for step in steps for event in step.warnings]
    crossing = next(user.track for user in steps[-1].users if user.lateral_m > -3)
    assert [(kind, track) for kind, _, track in warned] == [("pedestrian-ahead", crossing)]
    # In the path (1.8 m) at 3.0 s; announced 1.5 s before
    assert warned[0][1] == pytest.approx(1.5, abs=0.15)
    assert steps[40].going[0].reason.startswith("person ")


def test_who_walks_into_the_path_is_seen_to_do_so_from_a_car_that_drives():
    """At 10 m/s, somebody 5 m beside the path walks into it at 2 m/s; somebody who stands 3 m beside it only seems to drift."""
    steps = play(
        lambda t: [("person", box(5 - 2 * t, 35 - 10 * t, 1.7, 0.6)), ("person", box(-3, 36 - 10 * t, 1.7, 0.6))], 2.5
    )
    warned = [event for step in steps for event in step.warnings]
    assert len(warned) == 1
    crossing = next(user.track for user in steps[0].users if user.lateral_m > 0)
    assert warned[0].track == crossing
    # Within 30 m from 0.5 s on, when it is 4 m beside and will be 1 m beside 1.5 s later
    assert warned[0].start_s == pytest.approx(0.6, abs=0.15)


def test_a_warning_that_holds_tells_the_distance_of_now_and_is_reported_with_that_of_its_beginning():
    steps = play(lambda t: [("person", box(0, 29.6 - 10 * t, 1.7, 0.6))], 2)
    begun = next(event for step in steps for event in step.warnings)
    assert begun.reason == "person 1 is ahead, 30 m away"
    assert steps[-1].going[0].id == begun.id
    assert steps[-1].users[0].distance_m == pytest.approx(29.6 - 10 * steps[-1].frame.time_s, abs=0.1)
    assert steps[-1].going[0].reason == f"person 1 is ahead, {steps[-1].users[0].distance_m:.0f} m away"
    assert steps[-1].going[0].reason_zh == f"前方 {steps[-1].users[0].distance_m:.0f} 米处有person 1"


def test_who_is_far_away_is_not_warned_of():
    steps = play(lambda t: [("person", box(0, 45, 1.7, 0.6))], 2)
    assert [event for step in steps for event in step.warnings] == []


def test_a_vehicle_is_warned_of_when_it_would_be_reached_within_four_seconds():
    steps = play(lambda t: [("car", box(0, 50 - 10 * t, 1.5, 1.8)), ("car", box(-3.6, 80 - 20 * t, 1.5, 1.8))], 3)
    warned = [event for step in steps for event in step.warnings]
    assert [event.kind for event in warned] == ["vehicle-closing"]  # not of the one that comes in the other lane
    begun = next(step for step in steps if step.warnings)
    assert begun.frame.time_s == pytest.approx(
        1.4 + 0.3, abs=0.25
    )  # 4.0 s away at 1.0 s; measured 0.4 s late; lasts 0.3 s
    ahead = next(user for user in begun.users if abs(user.lateral_m) < 1)
    assert ahead.closing_ms == pytest.approx(10, rel=0.15)
    assert ahead.distance_m == pytest.approx(50 - 10 * begun.frame.time_s, rel=0.01)


def test_each_sign_is_warned_of_once_though_another_model_finds_it():
    def signs(t):
        return [
            ("stop", box(3, 40 - 8 * t, 0.75, 0.75, foot=1.9)),
            ("speedlimit", box(4, 30 - 8 * t, 0.75, 0.75, foot=1.9)),
        ]

    steps = play(lambda t: [], 3, signs=signs)
    warned = [(event.kind, event.label) for step in steps for event in step.warnings]
    assert sorted(warned) == [("speed-limit", "speedlimit"), ("stop-sign", "stop")]
    assert {user.group for user in steps[-1].users} == {"sign"}


def test_a_stop_sign_that_flickers_once_is_not_told():
    steps = play(
        lambda t: [], 2, signs=lambda t: [("stop", box(3, 20, 0.75, 0.75, foot=1.9))] if 0.95 < t < 1.15 else []
    )
    assert [event for step in steps for event in step.warnings] == []


def test_models_are_joined_without_mixing_up_their_classes():
    found = joined(
        [
            detections(("car", [0, 0, 10, 10])),
            detections(("stop", [5, 5, 9, 9]), ("trafficlight", [1, 1, 2, 2]), names=SIGNS),
        ]
    )
    assert found.labels == ["car", "stop", "trafficlight"]
    assert found.names == (*NAMES, *SIGNS)


def test_a_person_on_a_bicycle_is_a_cyclist_and_one_beside_it_is_not():
    rider, bike = [100, 20, 140, 110], [90, 70, 160, 130]
    found = riders(detections(("person", rider), ("bicycle", bike), ("person", [300, 20, 340, 130])))
    assert found.labels == ["cyclist", "person"]
    assert found.boxes[0].tolist() == [90, 20, 160, 130]
    beside = riders(detections(("person", [40, 20, 80, 130]), ("bicycle", bike)))
    assert sorted(beside.labels) == ["bicycle", "person"]
    behind = riders(detections(("person", [100, 20, 140, 60]), ("bicycle", bike)))  # does not reach the saddle
    assert sorted(behind.labels) == ["bicycle", "person"]
    assert riders(detections(("person", rider), ("motorbike", bike))).labels == ["motorbike"]


def test_a_drive_is_written_frame_by_frame_and_as_a_video(tmp_path):
    import json

    clip = tmp_path / "road.mp4"
    with VideoWriter(clip, fps=10) as writer:
        for _ in range(20):
            writer.write(np.full((*HW, 3), 90, np.uint8))
    find = lambda _: detections(("car", box(0, 20, 1.5, 1.8)), ("dog", box(2, 20, 0.5, 0.5)))  # noqa: E731
    steps = list(drive({"road": clip}, [find], CAMERA, out=tmp_path / "out"))
    lines = [json.loads(line) for line in (tmp_path / "out" / "road.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len(steps) == len(lines) == 20
    car = lines[-1]["objects"][0]
    assert (car["label"], car["group"], car["distance_m"], car["method"], car["lateral_m"]) == (
        "car",
        "vehicle",
        20.0,
        "ground",
        0.0,
    )
    assert len(lines[-1]["objects"]) == 1  # a dog is no road user here
    written = list(frames(tmp_path / "out" / "road.mp4"))
    assert (len(written), written[0].image.shape) == (20, (*HW, 3))


@pytest.mark.parametrize("order", [1, -1])
def test_the_tag_of_what_is_near_lies_over_that_of_what_is_far(order):
    frame = Frame(np.zeros((*HW, 3), np.uint8), 0, 0.0, 0.0, "cam")

    def drawn(*users):
        return annotate(frame.image, RoadStep(frame, users, (), ()))[185:198, 300:330]

    near, far = (
        RoadUser(
            number,
            "car",
            "vehicle",
            0.9,
            np.array([x, 200, x + 90, 260], np.float32),
            distance,
            "ground",
            3.0,
            None,
            None,
        )
        for number, x, distance in ((1, 300, 8.0), (2, 308, 35.0))
    )
    assert np.array_equal(drawn(*(near, far)[::order]), drawn(near))
    assert not np.array_equal(drawn(far), drawn(near))


def test_frames_are_told_in_order_however_many_are_looked_at_together(tmp_path):
    with VideoWriter(tmp_path / "clip.mp4", fps=10) as writer:
        for number in range(24):
            writer.write(np.full((*HW, 3), 10 * number, np.uint8))

    def find(image):  # darker frames take longer, and show a person further to the left
        shade = int(image.mean())
        time.sleep(0.02 if shade % 20 < 10 else 0.0)
        return detections(("person", box(shade / 100 - 1, 15, 1.7, 0.6)))

    told = [
        [
            step.to_dict()
            for step in drive(
                {"road": tmp_path / "clip.mp4"}, [find], CAMERA, out=tmp_path / str(n), video=False, workers=n
            )
        ]
        for n in (1, 4)
    ]
    assert [step["frame"] for step in told[0]] == list(range(24))
    assert told[0] == told[1]


def test_warnings_name_the_recording_that_they_are_of(tmp_path):
    with VideoWriter(tmp_path / "clip.mp4", fps=10) as writer:
        for _ in range(8):
            writer.write(np.full((*HW, 3), 90, np.uint8))
    find = lambda _: detections(("person", box(0, 15, 1.7, 0.6)))  # noqa: E731
    sources = dict.fromkeys(("monday", "tuesday"), tmp_path / "clip.mp4")
    steps = list(drive(sources, [find], CAMERA, out=tmp_path / "out", video=False))
    warned = sorted((event.source, event.kind) for step in steps for event in step.warnings)
    assert warned == [("monday", "pedestrian-ahead"), ("tuesday", "pedestrian-ahead")]


def test_what_is_drawn_leaves_the_frame_alone_and_shows_the_legend():
    step = play(lambda t: [("person", box(0, 15, 1.7, 0.6))], 1)[-1]
    picture = annotate(step.frame.image, step)
    assert not step.frame.image.any()
    assert picture.any()
    assert (picture == (240, 228, 66)).all(axis=-1).any()  # the pedestrian's mark in the legend
    assert [event.kind for event in step.going] == ["pedestrian-ahead"]
    assert (picture == (213, 60, 40)).all(axis=-1).any()  # red, as it is warned of


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[camera]\n", "camera: say fov_deg, or focal_px together with width"),
        (
            "[camera]\nfov_deg = 60\nfocal_px = 500\nwidth = 640\n",
            "camera: say fov_deg, or focal_px together with width",
        ),
        ("[camera]\nfocal_px = 500\n", "camera: say fov_deg, or focal_px together with width"),
        ("[camera]\nfov_deg = 200\n", "camera, fov_deg: Input should be less than 170"),
        ("[camera]\nfov_deg = 60\nheight = 1\n", "camera, height: Extra inputs are not permitted"),
        ("", "camera: Field required"),
    ],
)
def test_a_fault_in_the_calibration_is_told_in_one_line(tmp_path, text, message):
    path = tmp_path / "camera.toml"
    path.write_text(text)
    with pytest.raises(RulesInvalid) as caught:
        read_dashcam(path)
    assert str(caught.value).startswith(f"{path}: {message}")
