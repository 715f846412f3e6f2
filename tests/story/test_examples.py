"""Every code block of the README and the guides is a file of `examples/`, and every file of `examples/` runs."""

import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from openlepton import read_image

ROOT = Path(__file__).resolve().parents[2]
SERVED = {"service.py"}  # they run until they are stopped: tests/serve/test_service.py
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
PAGES = [*ROOT.glob("README*.md"), *(ROOT / "docs").glob("*.md")]


@pytest.fixture(scope="module")
def home(tmp_path_factory, photos, yolov5n_folder):
    """A folder as the examples expect one: a photograph, a folder of them, a data set, a model folder and a checkpoint."""
    folder = tmp_path_factory.mktemp("home")
    shutil.copy(photos[0], folder / "photo.jpg")
    shutil.copytree(yolov5n_folder, folder / "my-yolov5n")
    card = folder / "my-yolov5n" / "card.toml"  # a user's model has names, the fixture's are numbers
    card.write_text(card.read_text(encoding="utf-8").replace('"class0"', '"person"'), encoding="utf-8")
    shutil.copy(ROOT / "tests" / "fixtures" / "yolov5" / "yolov5n.pt", folder / "yolov5n.pt")
    for suffix in ("cfg", "weights"):
        shutil.copy(ROOT / "tests" / "fixtures" / "darknet" / f"yolov3-kind.{suffix}", folder / f"yolov3.{suffix}")
    shutil.copytree(ROOT / "tests" / "fixtures" / "translators" / "toy-en-zh", folder / "my-en-zh")
    (folder / "coco.names").write_text("person\nbicycle\ncar\n")
    for clip in (ROOT / "openlepton" / "assets" / "clips").glob("*.mp4"):
        shutil.copy(clip, folder / clip.name)
    for settings in (ROOT / "examples").glob("*.toml"):
        shutil.copy(settings, folder / settings.name)
    (folder / "photos").mkdir()
    for photo in photos:
        shutil.copy(photo, folder / "photos" / photo.name)
    for split, photo in zip(("train", "val"), photos, strict=False):
        images, labels = (folder / "my-data" / place / split for place in ("images", "labels"))
        images.mkdir(parents=True)
        labels.mkdir(parents=True)
        shutil.copy(photo, images / photo.name)
        (labels / f"{photo.stem}.txt").write_text("0 0.5 0.5 0.2 0.4\n")
    (folder / "my-data" / "classes.txt").write_text("person\n")
    shutil.copy(sorted((ROOT / "tests" / "fixtures" / "nuclei" / "images").glob("*.jpg"))[1], folder / "cells.jpg")
    for split in ("train", "val"):
        for label in ("cat", "coffee"):
            (folder / "my-classes" / split / label).mkdir(parents=True)
            photo = next(photo for photo in photos if photo.stem == label)
            shutil.copy(photo, folder / "my-classes" / split / label / photo.name)
    return folder


SLOW = {
    "convert.py",
    "darknet.py",
    "drive.py",
    "evaluate.py",
    "export.py",
    "few_shot.py",
    "train.py",
    "train_classifier.py",
    "watch.py",
    "zones.py",
}
IN_TENSORFLOW = {"between_frameworks.py", "lines_tensorflow.py"}
TRANSLATES = {"texts.py", "translate.py"}
WITHOUT_TEXT = pytest.mark.skipif(find_spec("ctranslate2") is None, reason="the extra text is not installed")
WITHOUT = pytest.mark.skipif(find_spec("tensorflow") is None, reason="the extra tf is not installed")
RUNS = [
    pytest.param(
        path,
        id=path.name,
        marks=[pytest.mark.slow] * (path.name in SLOW)
        + [WITHOUT] * (path.name in IN_TENSORFLOW)
        + [WITHOUT_TEXT] * (path.name in TRANSLATES),
    )
    for path in EXAMPLES
    if path.name not in SERVED
]


@pytest.mark.slow
@pytest.mark.parametrize("example", RUNS)
def test_an_example_runs_as_it_stands(example, home, tmp_path):
    if example.name == "convert.py":  # it makes the folder that the others use
        shutil.copy(home / "yolov5n.pt", tmp_path)
        home = tmp_path
    done = subprocess.run([sys.executable, str(example)], cwd=home, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
    if "augmented.jpg" in example.read_text(encoding="utf-8"):
        assert read_image(home / "augmented.jpg").shape == (320, 320, 3)
    if "annotated.jpg" in example.read_text(encoding="utf-8"):
        assert read_image(home / "annotated.jpg").shape == read_image(home / "photo.jpg").shape
        (home / "annotated.jpg").unlink()


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_a_code_block_is_a_tested_file(page):
    files = {path.read_text(encoding="utf-8").strip() for path in EXAMPLES}
    for block in re.findall(r"```toml\n(#.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
        settings = {path.read_text(encoding="utf-8").strip() for path in (ROOT / "examples").glob("*.toml")}
        assert block.strip() in settings, f"{page.name} has settings that are no file of examples/:\n{block}"
    for block in re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
        assert block.strip() in files, f"{page.name} has a block that is no file of examples/:\n{block}"


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_a_link_leads_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.mark.parametrize(
    "page", [page for page in PAGES if page.name.endswith(".zh-CN.md")], ids=lambda path: path.name
)
def test_both_languages_say_the_same(page):
    """The same headings, blocks, tables and links, in the same order."""
    english = (page.parent / page.name.replace(".zh-CN", "")).read_text(encoding="utf-8")
    chinese = page.read_text(encoding="utf-8")
    for pattern in (r"^#+ ", r"^\|", r"^```\w*", r"^- ", r"^\d+\. "):
        count = [len(re.findall(pattern, text, re.MULTILINE)) for text in (english, chinese)]
        assert count[0] == count[1], f"{page.name}: {pattern!r} stands {count[1]} times, in English {count[0]}"
    assert re.findall(r"```.*?```", english, re.DOTALL) == re.findall(r"```.*?```", chinese, re.DOTALL)
