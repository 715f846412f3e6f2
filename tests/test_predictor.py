import dataclasses
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest

import openlepton
from openlepton.errors import ImageNotFound, ImageUnreadable, ModelCorrupt, ModelNotFound, UsageError
from openlepton.images import read_image, write_image
from openlepton.predictor import ordered_map
from openlepton.runtimes.onnx import OnnxRuntime


@pytest.fixture(scope="module")
def detector(yolov5n_folder):
    return openlepton.load(yolov5n_folder, runtime=partial(OnnxRuntime, threads=1), max_detections=50)


@pytest.fixture(scope="module")
def classifier():
    return openlepton.load("efficientnet-lite0")


@pytest.fixture(scope="module")
def pictures(photos):
    """Eight pictures of different sizes, three of them of one shape."""
    one, two = read_image(photos[0]), read_image(photos[1])
    return [one, two, one[:200], two[:, :150], one[::2, ::2].copy(), two[:97, :331], one.copy(), one[:, ::-1].copy()]


def assert_same(a, b, tolerance=1e-4):
    assert a.class_ids.tolist() == b.class_ids.tolist()
    assert a.scores == pytest.approx(b.scores, abs=tolerance)
    assert a.boxes == pytest.approx(b.boxes, abs=100 * tolerance)
    assert a.image_hw == b.image_hw


def test_an_image_gives_the_same_alone_and_in_a_batch_of_other_sizes(detector, pictures):
    together = detector.batch(pictures)
    assert len(together) == 8
    assert sum(len(found) for found in together) > 8
    for image, found in zip(pictures, together, strict=True):
        assert_same(found, detector(image))


def test_a_classifier_gives_the_same_alone_and_in_a_batch(classifier, pictures):
    for image, found in zip(pictures, classifier.batch(pictures), strict=True):
        assert found.scores == pytest.approx(classifier(image).scores, abs=1e-5)


@pytest.mark.slow
def test_thirty_two_threads_get_the_same_as_one(detector, pictures):
    expected = [detector(image) for image in pictures]
    barrier = threading.Barrier(32)

    def ask(number):
        barrier.wait()
        return detector(pictures[number % 8])

    with ThreadPoolExecutor(32) as pool:
        for number, found in enumerate(pool.map(ask, range(32))):
            assert_same(found, expected[number % 8], 1e-6)


def test_a_predictor_cannot_be_changed(detector):
    with pytest.raises(dataclasses.FrozenInstanceError):
        detector.task = None
    with pytest.raises(dataclasses.FrozenInstanceError):
        detector.task.min_score = 0.9


def test_stream_keeps_the_order_and_survives_bad_files(detector, photos, tmp_path):
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(photos[0].read_bytes()[:3000])
    found = list(detector.stream([photos[0], broken, photos[1], tmp_path / "missing.png"], workers=2))
    assert_same(found[0], detector(photos[0]))
    assert isinstance(found[1], ImageUnreadable)
    assert_same(found[2], detector(photos[1]))
    assert isinstance(found[3], ImageNotFound)


def test_ordered_map_reads_only_a_little_ahead():
    taken = []

    def items():
        for number in range(100):
            taken.append(number)
            yield number

    results = ordered_map(lambda number: number * 2, items(), workers=2)
    assert next(results) == 0
    assert len(taken) <= 6
    assert [next(results) for _ in range(3)] == [2, 4, 6]
    results.close()
    assert len(taken) < 12


def test_the_runtime_is_an_argument(yolov5n_folder):
    seen = []

    class Answer:
        def __init__(self, folder):
            seen.append(folder.card.name)

        def __call__(self, inputs):
            seen.append(inputs["images"].shape)
            scores = np.zeros((1, 2, 80), np.float32)
            scores[0, 1, 7] = 0.75
            boxes = np.array([[[0, 0, 1, 1], [10, 20, 30, 40]]], np.float32)
            return {"boxes": boxes, "scores": scores}

    found = openlepton.load(yolov5n_folder, runtime=Answer)(np.zeros((640, 320, 3), np.uint8))
    assert seen == ["yolov5n", (1, 3, 640, 320)]
    assert found.boxes.tolist() == [[10, 20, 30, 40]]
    assert found.scores.tolist() == [0.75]


def test_options_reach_the_task(yolov5n_folder, photos):
    names = openlepton.load(yolov5n_folder).card.labels
    loaded = openlepton.load(
        yolov5n_folder, min_score=0.3, max_detections=3, classes=[names[5], 7], size=320, agnostic=True
    )
    assert (loaded.task.min_score, loaded.task.max_detections, loaded.task.input.size) == (0.3, 3, 320)
    assert loaded.task.class_ids.tolist() == [5, 7]
    assert len(loaded(photos[0])) <= 3


def test_options_that_make_no_sense_are_refused(yolov5n_folder):
    with pytest.raises(UsageError, match="min_score: makes no sense for efficientnet-lite0"):
        openlepton.load("efficientnet-lite0", min_score=0.5)
    with pytest.raises(UsageError, match="top: makes no sense for yolov5n"):
        openlepton.load(yolov5n_folder, top=3)
    with pytest.raises(UsageError, match="no class 'unicorn'"):
        openlepton.load(yolov5n_folder, classes=["unicorn"])


def test_a_model_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ModelNotFound, match="efficientnet-lite0"):
        openlepton.load("efficientnet-lite")
    with pytest.raises(ModelNotFound, match="nowhere"):
        openlepton.load(tmp_path / "nowhere")


def test_a_flipped_byte_is_found_before_the_graph_is_parsed(yolov5n_folder, tmp_path):
    for file in yolov5n_folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    data = bytearray((tmp_path / "model.onnx").read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "model.onnx").write_bytes(data)
    with pytest.raises(ModelCorrupt, match="sha256 differs"):
        openlepton.load(tmp_path)


def test_class_names_in_chinese(photos):
    english = openlepton.load("efficientnet-lite0")(photos[0])
    chinese = openlepton.load("efficientnet-lite0", language="zh")(photos[0])
    assert chinese.class_id == english.class_id
    assert any("\u4e00" <= character <= "\u9fff" for character in chinese.label)


def test_every_kind_of_source_gives_the_same(classifier, photos, tmp_path):
    from PIL import Image

    image = read_image(photos[0])
    write_image(tmp_path / "same.png", image)
    data = (tmp_path / "same.png").read_bytes()
    expected = classifier(image).scores
    with (tmp_path / "same.png").open("rb") as file:
        for source in (tmp_path / "same.png", str(tmp_path / "same.png"), data, file, Image.fromarray(image)):
            assert classifier(source).scores == pytest.approx(expected, abs=1e-6)
