"""Batches: the same whatever prepares them, from whatever files there are."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter

import cv2
import numpy as np
import pytest

from openlepton.data.augment import PRESETS
from openlepton.data.cache import ImageCache
from openlepton.data.loader import Batch, in_order, stack, training_batches, validation_batches
from openlepton.data.reader import Reader
from openlepton.data.samples import Annotation, Objects, Split, no_objects
from openlepton.data.warp import Labelled, boxes_around
from openlepton.errors import DataEmpty, ShapeError, UsageError
from openlepton.ops.masks import rle_of_mask

COLOURS = PRESETS["high"]


class Files:
    """A source of images on the disk, with labels from memory."""

    def __init__(self, images, objects):
        self.images, self.objects = list(images), list(objects)

    def __len__(self):
        return len(self.images)

    def image(self, index):
        return self.images[index]

    def annotation(self, index):
        return Annotation(self.images[index], index, self.objects[index])


def write(path, height, width, seed=0):
    """Write a smooth random picture, whatever letters its path has."""
    small = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
    path.write_bytes(cv2.imencode(path.suffix, cv2.resize(small, (width, height)))[1].tobytes())
    return path


def split_of(images, objects, classes=("thing",)):
    return Split("train", classes, Files(images, objects))


def box(x1, y1, x2, y2, class_id=0):
    return Objects(np.array([[x1, y1, x2, y2]], float), np.array([class_id]))


@pytest.fixture
def split(tmp_path):
    """Eleven images of different shapes, every other one without an object."""
    images = [write(tmp_path / f"{row}.png", 60 + 9 * row, 120 - 7 * row, row) for row in range(11)]
    objects = [box(10, 20, 50, 55) if row % 2 else no_objects() for row in range(11)]
    return split_of(images, objects)


def batches(split, *, epoch=0, workers=1, size=64, batch_size=4, seed=3, config=COLOURS, **options):
    return list(
        training_batches(
            Reader(split, size, **options), epoch, batch_size=batch_size, config=config, seed=seed, workers=workers
        )
    )


def assert_same(ours, theirs):
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        for name in ("images", "boxes", "class_ids", "rows", "indices"):
            assert np.array_equal(getattr(a, name), getattr(b, name)), name


@pytest.mark.parametrize("workers", [0, 2, 5])
def test_the_number_of_workers_does_not_change_a_bit(split, workers):
    for epoch in (0, 1):
        assert_same(batches(split, epoch=epoch, workers=1), batches(split, epoch=epoch, workers=workers))


@pytest.mark.parametrize("cache_bytes", [30_000, 1 << 30])
def test_the_cache_does_not_change_a_bit(split, cache_bytes):
    reader = Reader(split, 64, cache_bytes=cache_bytes)
    for epoch in (0, 1):
        made = list(training_batches(reader, epoch, batch_size=4, config=COLOURS, seed=3, workers=2))
        assert_same(made, batches(split, epoch=epoch))
    assert 0 < reader.cache.held_bytes <= cache_bytes


def test_an_epoch_shows_every_image_once_and_the_next_in_another_order(split):
    first, second = (np.concatenate([batch.indices for batch in batches(split, epoch=epoch)]) for epoch in (0, 1))
    assert sorted(first) == sorted(second) == list(range(11))
    assert first.tolist() != second.tolist()
    assert [len(batch.indices) for batch in batches(split)] == [4, 4, 3]


def test_seed_and_epoch_change_the_pixels_of_the_same_image(split):
    alike = [
        np.concatenate([batch.images for batch in made])[np.argsort(np.concatenate([batch.indices for batch in made]))]
        for made in (batches(split), batches(split, epoch=1), batches(split, seed=4))
    ]
    for a, b in ((0, 1), (0, 2), (1, 2)):
        assert all((alike[a][row] != alike[b][row]).any() for row in range(11))


def test_a_batch_says_which_image_each_box_is_in(split):
    for batch in batches(split, config=PRESETS["none"], size=120):
        assert batch.images.shape == (len(batch.indices), 3, 120, 120)
        assert batch.images.dtype == np.uint8
        assert [int(batch.indices[row]) % 2 for row in batch.rows] == [1] * len(batch.rows)
        assert sorted(batch.rows.tolist()) == [row for row, index in enumerate(batch.indices) if index % 2]
        for row, found in zip(batch.rows, batch.boxes, strict=True):
            height, width = 60 + 9 * int(batch.indices[row]), 120 - 7 * int(batch.indices[row])
            ratio = 120 / max(height, width)
            left, top = (120 - round(width * ratio)) // 2, (120 - round(height * ratio)) // 2
            assert found == pytest.approx(np.array([10, 20, 50, 55]) * ratio + [left, top, left, top], abs=0.5)


def test_one_image_of_4000_pixels_at_a_path_with_spaces_and_chinese_letters_is_a_data_set(tmp_path):
    folder = tmp_path / "训练 数据 é"
    folder.mkdir()
    split = split_of([write(folder / "图 片 1.jpg", 3000, 4000)], [box(1000, 1000, 3000, 2500)])
    for epoch in range(3):
        (batch,) = batches(split, epoch=epoch, batch_size=16, config=PRESETS["high"])
        assert batch.images.shape == (1, 3, 64, 64)
        assert batch.indices.tolist() == [0]
        assert set(batch.class_ids.tolist()) <= {0}
        assert batch.boxes.min(initial=0) >= 0
        assert batch.boxes.max(initial=0) <= 64
    (plain,) = batches(split, config=PRESETS["none"])
    assert plain.boxes == pytest.approx(np.float32([[16, 24, 48, 48]]), abs=1e-4)


def test_a_broken_image_is_reported_once_with_its_path_and_stands_aside_for_the_next(split, tmp_path):
    split.source.images[4] = tmp_path / "broken.jpg"
    split.source.images[4].write_bytes(b"not an image")
    errors = []
    reader = Reader(split, 64, report=errors.append)
    runs = [
        [
            list(training_batches(reader, epoch, batch_size=4, config=PRESETS["none"], workers=workers))
            for epoch in (0, 1)
        ]
        for workers in (1, 2)
    ]
    assert len(errors) == 1
    assert "broken.jpg" in str(errors[0])
    assert list(reader.unreadable) == [split.source.images[4]]
    for one, two in zip(*runs, strict=True):
        assert_same(one, two)
    by_index = {
        int(index): image for batch in runs[0][0] for index, image in zip(batch.indices, batch.images, strict=True)
    }
    assert np.array_equal(by_index[4], by_index[5])


def test_a_broken_image_becomes_a_warning_by_default(split, tmp_path):
    split.source.images[0] = tmp_path / "gone.jpg"
    with pytest.warns(UserWarning, match=r"left out: .*gone\.jpg"):
        batches(split)


def test_a_split_without_a_readable_image_says_so(tmp_path):
    with pytest.raises(DataEmpty, match="none of its 2 images can be read"):
        batches(split_of([tmp_path / "a.jpg", tmp_path / "b.jpg"], [no_objects()] * 2), report=lambda error: None)
    lost = Reader(split_of([tmp_path / "a.jpg"], [no_objects()]), 64, report=lambda error: None)
    with pytest.raises(DataEmpty, match="none of its 1 images can be read"):
        list(validation_batches(lost, batch_size=4))
    with pytest.raises(DataEmpty, match="there is no image"):
        Reader(split_of([], []), 64)


def test_an_unforeseen_error_in_a_worker_arrives_with_the_file_it_happened_at(split):
    split.source.objects[7] = None
    with pytest.raises(AttributeError) as caught:
        batches(split, workers=2)
    assert caught.value.__notes__ == [f"while preparing {split.source.images[7]}"]


def test_labels_are_cut_at_the_image_and_crowds_left_out(tmp_path):
    objects = Objects(np.array([[-20.0, 10, 40, 90], [0, 0, 50, 50]]), np.array([0, 0]), crowd=np.array([False, True]))
    (batch,) = batches(split_of([write(tmp_path / "a.png", 60, 60)], [objects]), size=60, config=PRESETS["none"])
    assert batch.boxes.tolist() == [[0, 10, 40, 60]]


def test_outlines_come_from_polygons_masks_and_boxes(tmp_path):
    mask = np.zeros((60, 60), bool)
    mask[30:50, 4:10] = mask[30:36, 4:30] = True
    polygon = np.array([[10.0, 5], [30, 5], [20, 25]])
    boxes = np.array([[10.0, 5, 30, 25], [4, 30, 30, 50], [40, 40, 50, 55]])
    objects = Objects(boxes, np.array([0, 1, 2]), shapes=((polygon,), rle_of_mask(mask), ()))
    split = split_of([write(tmp_path / "a.png", 60, 60)], [objects], classes=("a", "b", "c"))
    (batch,) = batches(split, size=120, config=PRESETS["none"], outlines=True)
    assert batch.boxes.tolist() == (2 * boxes).tolist()
    assert np.array_equal(boxes_around(batch.outlines), batch.boxes)
    assert batch.outlines[0][0].tolist() == (2 * polygon).tolist()
    assert cv2.contourArea(batch.outlines[1][0]) == 4 * mask.sum()
    assert cv2.contourArea(batch.outlines[2][0]) == 4 * 10 * 15
    assert batches(split, size=120)[0].outlines is None


def test_validation_shows_each_image_once_as_it_is_letterboxed_alone(split):
    reader = Reader(split, 96)
    seen = Counter()
    for batch in validation_batches(reader, batch_size=3, workers=2):
        assert len(batch.indices) <= 3
        assert all(side % 32 == 0 for side in batch.images.shape[2:])
        for row, (index, image) in enumerate(zip(batch.indices, batch.images, strict=True)):
            seen[int(index)] += 1
            alone, frame = reader.letterboxed(int(index), multiple=32, square=False)
            assert np.array_equal(image, alone.image.transpose(2, 0, 1))
            assert batch.frames[row] == frame
            back = frame.undo(batch.boxes[batch.rows == row])
            assert back == pytest.approx(np.array([[10, 20, 50, 55]] if index % 2 else np.zeros((0, 4))), abs=1e-4)
    assert seen == Counter(range(11))


def test_square_validation_has_one_shape(split):
    made = list(validation_batches(Reader(split, 96), batch_size=4, square=True))
    assert [batch.images.shape for batch in made] == [(4, 3, 96, 96), (4, 3, 96, 96), (3, 3, 96, 96)]
    assert np.concatenate([batch.indices for batch in made]).tolist() == list(range(11))


def test_a_reader_stretches_images_and_labels_for_networks_that_see_squares(tmp_path):
    path = write(tmp_path / "wide.png", 50, 200)
    reader = Reader(split_of([path], [box(20, 10, 100, 40)]), 64, stretch=True)
    seen = reader(0)
    assert seen.image.shape == (64, 64, 3)
    assert seen.boxes == pytest.approx(np.array([[6.4, 12.8, 32, 51.2]]), abs=1e-4)
    plain = Reader(split_of([path], [box(20, 10, 100, 40)]), 64)(0)
    assert plain.image.shape == (16, 64, 3)
    assert plain.boxes == pytest.approx(np.array([[6.4, 3.2, 32, 12.8]]), abs=1e-4)


def test_validation_leaves_a_broken_image_out_and_names_it(split, tmp_path):
    split.source.images[2] = tmp_path / "gone.png"
    reader = Reader(split, 64, report=lambda error: None)
    made = list(validation_batches(reader, batch_size=4))
    assert sorted(index for batch in made for index in batch.indices.tolist()) == [0, 1, *range(3, 11)]
    assert list(reader.unreadable) == [tmp_path / "gone.png"]


def test_a_stack_is_the_images_channel_by_channel():
    rng = np.random.default_rng(0)
    items = [
        Labelled(rng.integers(0, 256, (7, 9, 3), np.uint8), np.zeros((count, 4), np.float32), np.zeros(count, np.int64))
        for count in (2, 0, 1)
    ]
    batch = stack(items, [5, 6, 7])
    assert isinstance(batch, Batch)
    assert np.array_equal(batch.images, np.stack([item.image.transpose(2, 0, 1) for item in items]))
    assert batch.rows.tolist() == [0, 0, 2]
    with pytest.raises(ShapeError, match="one shape"):
        stack([items[0], Labelled(np.zeros((8, 9, 3), np.uint8), items[1].boxes, items[1].class_ids)], [0, 1])


def test_the_cache_holds_no_more_than_its_size_and_says_how_much():
    item = Labelled(np.zeros((10, 10, 3), np.uint8), np.zeros((1, 4), np.float32), np.zeros(1, np.int64))
    each = 300 + 16 + 8
    cache, reads = ImageCache(3 * each + 5), []

    def read(index):
        reads.append(index)
        return Labelled(item.image.copy(), item.boxes, item.class_ids)

    for index in [0, 1, 2, 3, 0, 1, 2, 3]:
        assert cache.get(index, read).image.shape == (10, 10, 3)
    assert reads == [0, 1, 2, 3, 3]
    assert (len(cache), cache.held_bytes) == (3, 3 * each)
    assert repr(cache) == "<ImageCache: 3 images, 0.0 of 0.0 MB>"
    with pytest.raises(ValueError, match="read-only"):
        cache.get(0, read).image[0, 0] = 1
    with pytest.raises(UsageError, match="max_bytes"):
        ImageCache(-1)


def test_the_cache_counts_right_when_many_threads_fill_it():
    boxes, ids = np.zeros((0, 4), np.float32), np.zeros(0, np.int64)
    cache = ImageCache(50 * 300)

    def read(index):
        time.sleep(0.0001)
        return Labelled(np.full((10, 10, 3), index, np.uint8), boxes, ids)

    rng = np.random.default_rng(0)
    wanted = rng.integers(0, 100, 2000).tolist()
    made = list(in_order(lambda index: cache.get(index, read), wanted, workers=8, ahead=64))
    assert [int(item.image[0, 0, 0]) for item in made] == wanted
    assert (len(cache), cache.held_bytes) == (50, 50 * 300)


def test_results_come_in_order_and_no_more_than_so_many_early():
    begun, taken, early = [], 0, []

    def slow(item):
        begun.append(item)
        time.sleep(0.002 * (item % 3))
        return item

    for item in in_order(slow, range(40), workers=4, ahead=6):
        assert item == taken
        taken += 1
        early.append(len(begun) - taken)
        time.sleep(0.002)
    assert taken == 40
    assert 4 <= max(early) <= 6


def test_leaving_early_ends_the_workers(split):
    reader = Reader(split, 64)
    before = set(threading.enumerate())
    made = training_batches(reader, 0, batch_size=2, config=COLOURS, workers=3)
    next(made)
    assert set(threading.enumerate()) - before
    made.close()
    assert not set(threading.enumerate()) - before


INTERRUPTED = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # a suite in the background inherits its being ignored
import sys, time
from openlepton.data.loader import in_order
def work(item):
    time.sleep(0.05)
    return item
try:
    for item in in_order(work, range(100_000), workers=2, ahead=32):
        print(item, flush=True)
except KeyboardInterrupt:
    print("interrupted", flush=True)
    sys.exit(130)
"""


@pytest.mark.skipif(os.name == "nt", reason="sends a POSIX signal")
def test_an_interrupt_ends_at_once_and_leaves_nothing_behind():
    with subprocess.Popen([sys.executable, "-c", INTERRUPTED], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "0\n"
        process.send_signal(signal.SIGINT)
        began = time.monotonic()
        output, _ = process.communicate(timeout=20)
    assert output.endswith("interrupted\n")
    assert process.returncode == 130
    assert time.monotonic() - began < 10


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"batch_size": 0}, "batch_size: expected 1 or more, got 0"),
        ({"workers": -1}, "workers: expected 0 or more, got -1"),
        ({"seed": -1}, "seed: expected 0 or more, got -1"),
        ({"size": 1}, "size: expected 2 or more pixels, got 1"),
    ],
)
def test_arguments_out_of_range_are_refused(split, wrong, message):
    with pytest.raises(UsageError, match=message):
        batches(split, **wrong)
