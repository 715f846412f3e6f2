import numpy as np
import pytest

from openlepton.card import ImageInput
from openlepton.errors import UsageError
from openlepton.images import write_image
from openlepton.ops.geometry import Frame
from openlepton.vision.detect import Detect

INPUT = ImageInput(size=640, resize="letterbox", multiple=32)
NAMES = ("person", "car", "dog")
FRAME = Frame((720, 1280), (0.5, 0.5), (0, 12), (384, 640))


def outputs(*rows):
    """Rows of x1, y1, x2, y2 in input pixels and a score for each class."""
    table = np.array(rows, np.float32).reshape(-1, 7)
    return {"boxes": table[:, :4], "scores": table[:, 4:]}


def test_prepare_gives_the_letterboxed_tensor():
    image = np.full((720, 1280, 3), 51, np.uint8)
    inputs, frame = Detect(INPUT, NAMES).prepare(image)
    assert frame == FRAME
    assert inputs["images"].shape == (3, 384, 640)
    assert inputs["images"][:, 100, 100] == pytest.approx([0.2] * 3, abs=1e-6)
    assert inputs["images"][:, 0, 0] == pytest.approx([114 / 255] * 3, abs=1e-6)


def test_prepare_stretches_where_the_card_says_so():
    image = np.full((720, 1280, 3), 51, np.uint8)
    image[:, 640:] = 204
    task = Detect(ImageInput(size=448, resize="stretch", multiple=64), NAMES)
    inputs, frame = task.prepare(image)
    assert frame == Frame((720, 1280), (448 / 1280, 448 / 720), seen_hw=(448, 448))
    assert inputs["images"].shape == (3, 448, 448)
    assert inputs["images"][:, 447, 0] == pytest.approx([0.2] * 3, abs=1e-6)
    assert inputs["images"][:, 0, 447] == pytest.approx([0.8] * 3, abs=1e-6)
    found = task.finish(outputs([0, 0, 224, 448, 0.1, 0.9, 0.2]), frame)
    assert found.boxes[0] == pytest.approx([0, 0, 640, 720], abs=1e-3)


def test_a_detector_does_not_crop():
    with pytest.raises(UsageError, match="resize: a detector takes letterbox or stretch, got crop"):
        Detect(ImageInput(size=448, resize="crop", multiple=64), NAMES)


def test_finish_thresholds_suppresses_and_undoes_the_frame():
    found = Detect(INPUT, NAMES).finish(
        outputs(
            [100, 112, 200, 212, 0.1, 0.9, 0.2],
            [102, 112, 202, 212, 0.1, 0.8, 0.2],  # the same car
            [102, 112, 202, 212, 0.7, 0.1, 0.2],  # a person in it
            [0, 0, 640, 384, 0.1, 0.1, 0.25],  # exactly the threshold: not above it
        ),
        FRAME,
    )
    assert found.labels == ["car", "person"]
    assert found.boxes.tolist() == [[200, 200, 400, 400], [204, 200, 404, 400]]
    assert found.scores.tolist() == pytest.approx([0.9, 0.7])
    assert found.image_hw == (720, 1280)


def test_agnostic_suppression_crosses_classes():
    two = outputs([0, 12, 99, 99, 0.1, 0.9, 0], [0, 12, 99, 99, 0.8, 0.1, 0])
    assert Detect(INPUT, NAMES).finish(two, FRAME).labels == ["car", "person"]
    assert Detect(INPUT, NAMES, agnostic=True).finish(two, FRAME).labels == ["car"]


def test_a_box_has_one_label_unless_many_are_asked_for():
    one = outputs([0, 12, 99, 99, 0.6, 0.9, 0.3])
    assert Detect(INPUT, NAMES).finish(one, FRAME).labels == ["car"]
    assert Detect(INPUT, NAMES, multi_label=True).finish(one, FRAME).labels == ["car", "person", "dog"]


def test_classes_are_chosen_after_the_best_label():
    two = outputs([0, 12, 99, 99, 0.6, 0.9, 0.3], [200, 12, 299, 99, 0.6, 0.1, 0.3])
    people = Detect(INPUT, NAMES, class_ids=np.array([0]))
    assert people.finish(two, FRAME).boxes.tolist() == [[400, 0, 598, 174]]


def test_max_detections_keeps_the_best():
    three = outputs(*([200 * k, 12, 200 * k + 99, 99, 0, 0.5 + k / 10, 0] for k in range(3)))
    found = Detect(INPUT, NAMES, max_detections=2).finish(three, FRAME)
    assert found.scores.tolist() == pytest.approx([0.7, 0.6])


def test_nothing_found_is_an_empty_result():
    found = Detect(INPUT, NAMES).finish(outputs([0, 0, 9, 9, 0.1, 0.1, 0.1]), FRAME)
    assert len(found) == 0
    assert found.image_hw == (720, 1280)


def test_a_large_jpeg_gives_nearly_the_tensor_of_the_whole_decode(tmp_path):
    y, x = np.mgrid[:720, :1280]
    image = np.stack([x / 5, y / 3, (x + y) / 8], axis=-1).astype(np.uint8)
    write_image(tmp_path / "wide.jpg", image)
    whole, frame = Detect(INPUT, NAMES).prepare(image)
    reduced, same = Detect(INPUT, NAMES).prepare(tmp_path / "wide.jpg")
    assert same == frame
    assert np.abs(whole["images"] - reduced["images"]).max() < 8 / 255


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"min_score": 1.5}, "min_score: expected 0 to 1"),
        ({"max_iou": -0.1}, "max_iou: expected 0 to 1"),
        ({"max_detections": 0}, "max_detections: expected 1 or more"),
    ],
)
def test_options_out_of_range_are_refused(option, message):
    with pytest.raises(UsageError, match=message):
        Detect(INPUT, NAMES, **option)


def test_a_size_that_the_stride_does_not_divide_is_refused():
    with pytest.raises(UsageError, match="multiple of 32, got 600"):
        Detect(INPUT.model_copy(update={"size": 600}), NAMES)
