"""The command line as a user meets it: real processes' exit status, standard output and standard error."""

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from openlepton import read_image
from openlepton.cli import run

CHECKPOINT = Path(__file__).parent / "fixtures" / "yolov5" / "yolov5n.pt"


@pytest.fixture
def lepton(tmp_path, monkeypatch, capsys):
    """Run the command line in an empty folder; return its status, standard output and standard error."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        status = run([str(argument) for argument in arguments])
        return status, *capsys.readouterr()

    return call


def digest(folder):
    return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.rglob("*") if path.is_file()}


def test_classify_prints_a_table_and_writes_pictures(lepton, photos, tmp_path):
    status, out, err = lepton("classify", photos[0], photos[1], "--out", "seen")
    assert (status, err) == (0, "")
    assert str(photos[0]) in out
    assert "2 images in" in out
    assert sorted(path.name for path in (tmp_path / "seen").iterdir()) == sorted(path.name for path in photos[:2])
    assert read_image(tmp_path / "seen" / photos[0].name).shape == read_image(photos[0]).shape
    assert "\x1b[" not in out


def test_detect_prints_json_of_the_documented_form(lepton, photos, yolov5n_folder):
    status, out, err = lepton("detect", photos[0], "--model", yolov5n_folder, "--json", "--min-score", 0.3)
    assert (status, err) == (0, "")
    (line,) = out.splitlines()
    found = json.loads(line)
    assert list(found) == ["source", "image", "model", "detections"]
    assert found["source"] == str(photos[0])
    assert found["model"] == {"name": "yolov5n", "version": "1"}
    height, width = read_image(photos[0]).shape[:2]
    assert found["image"] == {"width": width, "height": height}
    assert found["detections"]
    for row in found["detections"]:
        assert set(row) == {"label", "label_id", "score", "box"}
        assert 0.3 < row["score"] <= 1
        assert 0 <= row["box"]["x1"] <= row["box"]["x2"] <= width
        assert 0 <= row["box"]["y1"] <= row["box"]["y2"] <= height


def test_json_without_out_writes_nothing(lepton, photos, tmp_path):
    assert lepton("classify", photos[0], "--json")[0] == 0
    assert list(tmp_path.iterdir()) == []


def test_bad_inputs_are_told_one_line_each_and_the_others_still_done(lepton, photos, tmp_path):
    folder = tmp_path / "mixed bag 图片"
    folder.mkdir()
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "text.png").write_text("not a picture")
    (folder / "half.jpg").write_bytes(photos[0].read_bytes()[:5000])
    shutil.copy(photos[0], folder / "good 好.jpg")
    before = digest(folder)
    status, out, err = lepton("classify", folder, tmp_path / "missing.jpg", "nothing-*.png", "--json")
    assert status == 1
    assert [json.loads(line)["source"] for line in out.splitlines()] == [str(folder / "good 好.jpg")]
    lines = err.splitlines()
    assert len(lines) == 5
    for name, code in [
        ("empty.jpg", "image-unreadable"),
        ("text.png", "image-unreadable"),
        ("half.jpg", "image-unreadable"),
        ("missing.jpg", "image-not-found"),
        ("nothing-*.png", "image-not-found"),
    ]:
        (line,) = [line for line in lines if name in line]
        assert line.startswith("openlepton: ")
        assert line.endswith(f"[{code}]")
    assert digest(folder) == before


def test_the_users_files_are_never_replaced(lepton, photos, tmp_path):
    mine = tmp_path / "mine"
    mine.mkdir()
    shutil.copy(photos[0], mine / "a.jpg")
    before = digest(mine)
    for flags in ([], ["--overwrite"]):
        assert lepton("classify", mine / "a.jpg", "--out", mine, "--save-txt", *flags)[0] == 0
        assert digest(mine).items() >= before.items()
    assert (mine / "a-2.jpg").exists()
    assert (mine / "labels" / "a-2.txt").exists()


def test_equal_names_in_different_folders_do_not_collide(lepton, photos, tmp_path):
    for folder, photo in zip(("x", "y"), photos, strict=False):
        (tmp_path / folder).mkdir()
        shutil.copy(photo, tmp_path / folder / "same.jpg")
    assert lepton("classify", "x/same.jpg", "y/same.jpg", "--out", "o")[0] == 0
    assert sorted(path.name for path in (tmp_path / "o").iterdir()) == ["same-2.jpg", "same.jpg"]


def test_labels_and_crops_follow_the_detections(lepton, photos, yolov5n_folder, tmp_path):
    arguments = ["detect", photos[0], "--model", yolov5n_folder, "--min-score", 0.3, "--max-detections", 5]
    _, out, _ = lepton(*arguments, "--json")
    found = json.loads(out)
    status, _, err = lepton(*arguments, "--no-images", "--save-txt", "--save-conf", "--save-crops", "--out", "o")
    assert (status, err) == (0, "")
    rows = (tmp_path / "o" / "labels" / f"{photos[0].stem}.txt").read_text().splitlines()
    assert len(rows) == len(found["detections"])
    width, height = found["image"]["width"], found["image"]["height"]
    for row, one in zip(rows, found["detections"], strict=True):
        class_id, cx, cy, w, h, score = map(float, row.split())
        box = one["box"]
        assert class_id == one["label_id"]
        assert [cx * width, cy * height] == pytest.approx(
            [(box["x1"] + box["x2"]) / 2, (box["y1"] + box["y2"]) / 2], abs=0.02
        )
        assert [w * width, h * height] == pytest.approx([box["x2"] - box["x1"], box["y2"] - box["y1"]], abs=0.02)
        assert score == pytest.approx(one["score"], abs=1e-5)
    crops = list((tmp_path / "o" / "crops").rglob("*.jpg"))
    assert len(crops) == len(rows)
    assert {crop.parent.name for crop in crops} == {one["label"] for one in found["detections"]}
    assert not (tmp_path / "o" / photos[0].name).exists()


def test_classes_limit_what_is_reported(lepton, photos, yolov5n_folder):
    base = ["detect", photos[0], "--model", yolov5n_folder, "--json", "--min-score", 0.3]
    labels = [one["label"] for one in json.loads(lepton(*base)[1])["detections"]]
    wanted = labels[0]
    only = json.loads(lepton(*base, "--classes", f"{wanted}, 3")[1])["detections"]
    assert only
    assert {one["label"] for one in only} <= {wanted, "motorcycle", "class3"} | {labels[0]}
    status, _, err = lepton(*base, "--classes", "unicorn")
    assert status == 2
    assert "no class 'unicorn'" in err


@pytest.mark.slow
def test_standard_input_and_pipes(photos):
    done = subprocess.run(
        [sys.executable, "-m", "openlepton", "classify", "-", "--json", "--lang", "zh"],
        input=photos[0].read_bytes(),
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.decode("utf-8"))
    assert found["source"] == "-"
    assert len(found["classes"]) == 5


def test_detect_without_a_model_finds_the_person_and_the_cat(lepton, photos):
    portrait, cat = (next(photo for photo in photos if photo.stem == name) for name in ("astronaut", "cat"))
    status, out, _ = lepton("detect", portrait, cat, "--json")
    assert status == 0
    found = [json.loads(line) for line in out.splitlines()]
    assert {one["model"]["name"] for one in found} == {"yolox-nano-voc20"}
    assert [[row["label"] for row in one["detections"]] for one in found] == [["person"], ["cat"]]


def test_wrong_usage_ends_with_two(lepton, photos):
    assert lepton("detect")[0] == 2
    assert lepton("classify", photos[0], "--no-such-option")[0] == 2
    status, _, err = lepton("detect", photos[0], "--model", "efficientnet-lite0")
    assert status == 2
    assert "openlepton classify" in err
    assert lepton("classify", photos[0], "--lang", "xx")[0] == 2


def test_models_lists_licence_and_numbers(lepton):
    status, out, _ = lepton("models")
    assert status == 0
    assert "efficientnet-lite0" in out
    assert "Apache-2.0" in out
    row = json.loads(lepton("models", "--json")[1].splitlines()[0])
    assert row["name"] == "efficientnet-lite0"
    assert row["files"]["model.onnx"]["size"] > 1_000_000
    assert lepton("models", "--verify")[0] == 0


def test_help_and_version(lepton):
    status, out, _ = lepton("--help")
    assert status == 0
    for command in ("detect", "classify", "models", "convert", "inspect"):
        assert command in out
    assert lepton("--version")[1].startswith("openlepton 0.")


@pytest.mark.slow
def test_convert_then_detect_as_the_readme_says(lepton, photos, tmp_path):
    checkpoint = tmp_path / "weights.pt"
    shutil.copy(CHECKPOINT, checkpoint)
    before = digest(tmp_path)
    status, out, err = lepton("convert", "weights.pt", "mine", "--licence", "CC0-1.0", "--precision", "float16")
    assert (status, err) == (0, "")
    assert "differ by at most" in out
    assert digest(tmp_path).items() >= before.items()
    assert lepton("detect", photos[0], "--model", "mine", "--no-images")[0] == 0
    status, _, err = lepton("convert", "weights.pt", "mine", "--licence", "CC0-1.0")
    assert status != 0
    assert "--overwrite" in err or "overwrite" in err


def test_inspect_lists_the_code_that_a_checkpoint_names(lepton):
    status, out, _ = lepton("inspect", CHECKPOINT)
    assert status == 0
    assert "models.yolo" in out
    assert "model.24.anchors" in out
