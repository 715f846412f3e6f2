"""The check finds what was planted, nothing else, and touches nothing."""

import json

import cv2
import numpy as np
import pytest

from openlepton.data.datasets import open_dataset
from openlepton.data.doctor import SIDE_EDGES, check, write_report
from openlepton.data.duplicates import Look, find_pairs, look, perceptual_hashes
from openlepton.data.survey import survey
from openlepton.errors import DataEmpty, ImageUnreadable, OutputError, UsageError
from openlepton.images import read_image


def scene(seed, height=120, width=160):
    """Return a picture like no other: smooth random shapes."""
    small = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)


def paint(path, pixels, *options):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(path.suffix, pixels, options)[1].tobytes())


def label(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def files(root):
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in sorted(root.rglob("*")) if path.is_file()}


@pytest.fixture
def good(tmp_path):
    """Six different images in train, two in val, two classes."""
    root = tmp_path / "数据"
    for number in range(8):
        split = "train" if number < 6 else "val"
        paint(root / "images" / split / f"{number}.jpg", scene(number))
        label(root / "labels" / split / f"{number}.txt", f"{number % 2} 0.5 0.5 0.5 0.25\n")
    label(root / "classes.txt", "cat\ndog\n")
    return root


def found(root):
    report = check(open_dataset(root), workers=2)
    return sorted(
        (problem.kind, problem.file.relative_to(root).as_posix(), problem.line) for problem in report.problems
    )


def test_a_good_data_set_has_no_problems_and_right_counts(good):
    report = check(open_dataset(good))
    assert report.problems == report.pairs == ()
    train, val = report.splits
    assert (train.images, train.usable, train.backgrounds, train.objects) == (6, 6, 0, 6)
    assert (train.class_counts.tolist(), val.class_counts.tolist()) == ([3, 3], [1, 1])
    # 80 x 30 pixels: the root of the area is 49.
    assert train.side_counts.tolist() == [6 * (edge == 32) for edge in SIDE_EDGES]
    assert np.argwhere(train.size_counts).tolist() == [[8, 16]]


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (lambda root: (root / "images/train/0.jpg").write_bytes(b""), [("image-unreadable", "images/train/0.jpg", None)]),
        (
            lambda root: (root / "images/train/0.jpg").write_bytes((root / "images/train/0.jpg").read_bytes()[:2000]),
            [("image-unreadable", "images/train/0.jpg", None)],
        ),
        (lambda root: paint(root / "images/train/0.jpg", scene(0, 9, 40)), [("image-tiny", "images/train/0.jpg", None)]),
        (lambda root: (root / "labels/train/0.txt").unlink(), [("label-missing", "labels/train/0.txt", None)]),
        (lambda root: label(root / "labels/train/zero.txt", ""), [("label-orphan", "labels/train/zero.txt", None)]),
        (
            lambda root: label(root / "labels/train/0.txt", "0 0.5 0.5 0.5 0.25\n9 0.5 0.5 0.5 0.25\n"),
            [("class-unknown", "labels/train/0.txt", 2)],
        ),
        (
            lambda root: label(root / "labels/train/0.txt", "0 0.5 0.5 0.5 0.25\n0 0.9 0.5 0.5 0.25\n0 0.5 0.5 0.001 0.25"),
            [("box-outside", "labels/train/0.txt", 2), ("box-tiny", "images/train/0.jpg", None)],
        ),
        (
            lambda root: label(root / "classes.txt", "cat\ndog\ncow"),
            [("class-unused", ".", None), ("class-unused", ".", None)],
        ),
    ],
)  # fmt: skip
def test_what_is_planted_is_found_and_nothing_else(good, spoil, expected):
    spoil(good)
    assert found(good) == expected


def test_images_that_a_list_names_but_nobody_has_are_missing(good):
    (good / "train.txt").write_text("images/train/0.jpg\nimages/train/1.jpg\nimages/train/none.jpg\n")
    (good / "val.txt").write_text("images/val/6.jpg\nimages/val/7.jpg\n")
    report = check(open_dataset(good))
    assert report.kinds == {"label-missing": 1, "image-missing": 1}
    assert report.splits[0].usable == 2


def test_the_same_file_twice_is_a_duplicate_and_in_two_splits_a_leak(good):
    data = (good / "images/train/0.jpg").read_bytes()
    (good / "images/train/1.jpg").write_bytes(data)
    (good / "images/val/6.jpg").write_bytes(data)
    report = check(open_dataset(good))
    assert report.kinds == {"image-duplicate": 1, "leak": 1}
    assert [tuple(file.name for file in pair) for pair in report.pairs] == [("1.jpg", "6.jpg"), ("0.jpg", "1.jpg")]
    assert "the same file as images/val/6.jpg in val" in str(report.problems[-1])


@pytest.mark.parametrize("change", ["smaller", "compressed", "brighter", "shifted", "blurred", "png"])
def test_an_image_that_looks_the_same_in_another_split_is_a_leak(good, change):
    picture = scene(0, 480, 640)
    paint(good / "images/train/0.jpg", picture)
    options, suffix = [], ".jpg"
    match change:
        case "smaller":
            picture = cv2.resize(picture, (200, 150))
        case "compressed":
            options = [cv2.IMWRITE_JPEG_QUALITY, 8]
        case "brighter":
            picture = cv2.add(picture, np.full_like(picture, 8))
        case "shifted":
            picture = np.roll(picture, (4, 6), (0, 1))
        case "blurred":
            picture = cv2.GaussianBlur(picture, (0, 0), 5)
        case "png":
            suffix = ".png"
    (good / "images/val/6.jpg").unlink()
    paint(good / f"images/val/6{suffix}", picture, *options)
    assert found(good) == [("leak-similar", "images/train/0.jpg", None)]


def test_different_pictures_are_not_similar():
    looks = [Look(bytes([n]), cv2.cvtColor(scene(n, 32, 32), cv2.COLOR_RGB2GRAY), (32, 32)) for n in range(200)]
    assert find_pairs(looks) == []


def test_pictures_without_structure_are_compared_by_their_bytes_alone():
    flat = [Look(bytes([n // 2]), np.full((32, 32), 30 * n, np.uint8), (32, 32)) for n in range(4)]
    assert [(pair.first, pair.second, pair.exact) for pair in find_pairs(flat)] == [(0, 1, True), (2, 3, True)]
    assert find_pairs([]) == []


def test_pairs_are_found_across_blocks(monkeypatch):
    grey = [cv2.cvtColor(scene(n, 32, 32), cv2.COLOR_RGB2GRAY) for n in range(40)]
    grey[33] = cv2.add(grey[2], 3)
    looks = [Look(bytes([n]), each, (32, 32)) for n, each in enumerate(grey)]
    whole = find_pairs(looks)
    monkeypatch.setattr("openlepton.data.duplicates.BLOCK", 7)
    assert (
        [(pair.first, pair.second) for pair in whole]
        == [(pair.first, pair.second) for pair in find_pairs(looks)]
        == [(2, 33)]
    )


def test_the_perceptual_hash_ignores_brightness_and_contrast():
    grey = cv2.cvtColor(scene(1, 32, 32), cv2.COLOR_RGB2GRAY)
    both = np.stack([grey, (grey * 0.5 + 40).astype(np.uint8)])
    first, second = perceptual_hashes(both)
    assert (first != second).sum() <= 4
    assert len(first) == 64


def test_a_look_is_small_and_knows_the_size(good):
    seen = look(good / "images/train/0.jpg")
    assert (seen.size_hw, seen.grey.shape, len(seen.digest)) == ((120, 160), (32, 32), 16)
    assert isinstance(look(good / "classes.txt"), ImageUnreadable)


def test_checking_changes_no_file(good, tmp_path):
    before = files(good)
    (good / "labels/train/0.txt").write_text("broken")
    before = files(good)
    dataset = open_dataset(good)
    write_report(check(dataset), dataset, tmp_path / "报告")
    assert files(good) == before


@pytest.mark.slow
def test_the_report_holds_numbers_and_pictures(good, tmp_path):
    paint(good / "images/val/6.jpg", read_image(good / "images/train/0.jpg")[..., ::-1])
    (good / "classes.txt").write_text("猫\ndog\n", "utf-8")
    dataset = open_dataset(good)
    written = write_report(check(dataset), dataset, tmp_path / "out")
    assert [path.name for path in written] == ["report.json", "classes.png", "samples.png", "sizes.png", "same.png"]
    facts = json.loads((tmp_path / "out" / "report.json").read_text("utf-8"))
    assert facts["problem_counts"] == {"leak-similar": 1}
    assert facts["splits"][0]["class_counts"] == {"猫": 3, "dog": 3}
    assert facts["splits"][1]["side_counts"]["32+"] == 2
    for path in written[1:]:
        picture = read_image(path)
        assert picture.shape[0] >= 100
        assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 5


def test_bars_are_as_long_as_their_counts(good, tmp_path):
    label(good / "labels/train/1.txt", "0 0.5 0.5 0.1 0.1\n")
    dataset = open_dataset(good)
    write_report(check(dataset), dataset, tmp_path / "out")
    picture = read_image(tmp_path / "out" / "classes.png")
    blue = (picture == (0, 114, 178)).all(2).sum(1)
    assert blue[:60].max() == pytest.approx(700, abs=2)
    assert 351 in set(blue.tolist())  # two of four


def test_a_report_is_not_written_into_the_data_set(good, tmp_path):
    dataset = open_dataset(good)
    report = check(dataset)
    with pytest.raises(UsageError, match="lies in the data set"):
        write_report(report, dataset, good / "report")
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        write_report(report, dataset, tmp_path / "file" / "out")


def test_a_size_that_the_label_gets_wrong_is_said(tmp_path):
    paint(tmp_path / "images" / "a.jpg", scene(0))
    (tmp_path / "annotations").mkdir()
    box = "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>120</xmax><ymax>160</ymax></bndbox>"
    size = "<size><width>120</width><height>160</height></size>"
    (tmp_path / "annotations" / "a.xml").write_text(
        f"<annotation>{size}<object><name>x</name>{box}</object></annotation>"
    )
    (tmp_path / "annotations" / "b.xml").write_text("<annotation><filename>b</filename></annotation>")
    report = check(open_dataset(tmp_path))
    assert report.kinds == {"size-differs": 1, "box-outside": 1, "label-orphan": 1}
    assert "120x160, the image has 160x120: turned by 90 degrees?" in str(report.problems[0])


def test_class_folders_are_checked_too(tmp_path):
    for number, name in enumerate(("train/a/0", "train/a/1", "train/b/2", "val/a/3")):
        paint(tmp_path / "set" / f"{name}.png", scene(number))
    (tmp_path / "set/val/a/4.png").write_bytes((tmp_path / "set/train/b/2.png").read_bytes())
    dataset = open_dataset(tmp_path / "set")
    report = check(dataset)
    assert report.kinds == {"class-unused": 1, "leak": 1}
    assert [split.class_counts.tolist() for split in report.splits] == [[2, 1], [2, 0]]
    assert "sizes.png" not in [path.name for path in write_report(report, dataset, tmp_path / "out")]


def test_a_survey_says_which_images_can_be_used(good):
    label(good / "labels/train/0.txt", "")
    label(good / "labels/train/1.txt", "317 240 64 80 1\n")
    (good / "labels/train/2.txt").unlink()
    (good / "images/train/3.jpg").unlink()
    (good / "train.txt").write_text("".join(f"images/train/{number}.jpg\n" for number in range(6)))
    counted = survey(open_dataset(good)["train"])
    assert counted.usable.tolist() == [0, 2, 4, 5]
    assert (counted.images, counted.backgrounds, counted.unlabelled) == (6, 2, 1)
    assert counted.class_counts.tolist() == [1, 1]
    assert [problem.kind for problem in counted.problems] == ["class-unknown", "label-missing", "image-missing"]
    counted.require_usable()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("320 240 64 80\n", "no usable image in 6 images: row-malformed 6 times, such as .*txt:1"),
        ("", "no labelled object in 6"),
    ],
)
def test_a_split_with_nothing_to_learn_is_an_error_that_says_why(good, text, message):
    for number in range(6):
        label(good / f"labels/train/{number}.txt", text)
    with pytest.raises(DataEmpty, match=message):
        survey(open_dataset(good)["train"]).require_usable()


def test_progress_is_told_after_each_image(good):
    told = []
    survey(open_dataset(good)["train"], lambda done, total: told.append((done, total)))
    check(open_dataset(good), progress=lambda done, total: told.append((done, total)))
    assert told == [(n, 6) for n in range(1, 7)] + [(n, 8) for n in range(1, 9)]
