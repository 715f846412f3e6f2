"""What ships beside the code: each file's licence is stated, and it is what it is said to be."""

import importlib.util
import io
import logging
import re
import unicodedata
from pathlib import Path

import pytest
from fontTools.ttLib import TTFont
from PIL import Image

import openlepton

ROOT = Path(__file__).resolve().parents[2]
ASSETS = Path(openlepton.__file__).parent / "assets"
FILES = sorted(path for path in ASSETS.rglob("*") if path.is_file())
PHOTOS = sorted((ASSETS / "photos").iterdir())
NOTICE = (ROOT / "NOTICE").read_text(encoding="utf-8")
FONT = ASSETS / "sans.ttf"


def load_tool():
    spec = importlib.util.spec_from_file_location("make_font", ROOT / "tools" / "make_font.py")
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    return tool


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_the_notice_names_each_asset_with_its_licence_and_source(path):
    name = "openlepton/assets/" + path.relative_to(ASSETS).as_posix()
    entry = re.search(rf"^{re.escape(name)}\n((?:    .+\n)+)", NOTICE, re.MULTILINE)
    assert entry is not None, f"NOTICE does not describe {name}"
    assert re.search(r"^    Source: \S", entry[1], re.MULTILINE)
    allowed = {".ttf": "Apache-2.0", ".jpg": "CC0-1.0|public domain", ".mp4": "CC0-1.0"}[path.suffix]
    assert re.search(rf"Licence: ({allowed})\b", entry[1])


def test_the_notice_names_no_asset_that_is_not_there():
    named = re.findall(r"^openlepton/assets/(\S+)$", NOTICE, re.MULTILINE)
    assert sorted(named) == sorted(path.relative_to(ASSETS).as_posix() for path in FILES)


@pytest.mark.parametrize("path", PHOTOS, ids=lambda path: path.name)
def test_a_photograph_is_a_plain_jpeg_without_metadata(path):
    with Image.open(path) as photo:
        photo.load()
        assert (photo.format, photo.mode) == ("JPEG", "RGB")
        assert 300 <= min(photo.size) <= max(photo.size) <= 800
        assert not photo.getexif()
        assert not {"exif", "icc_profile", "comment", "xmp"} & set(photo.info)


def test_assets_stay_small():
    assert sum(path.stat().st_size for path in PHOTOS) <= 700_000
    assert FONT.stat().st_size <= 2_500_000
    assert sum(path.stat().st_size for path in (ASSETS / "clips").iterdir()) <= 500_000


def test_the_font_has_every_character_of_gb_2312_and_of_european_languages():
    covered = set(TTFont(FONT, lazy=True).getBestCmap())
    pairs = (bytes((lead, trail)) for lead in range(0xB0, 0xF8) for trail in range(0xA1, 0xFF))
    hanzi = {text for text in (pair.decode("gb2312", "ignore") for pair in pairs) if text}
    assert len(hanzi) == 6763
    assert not {text for text in hanzi if ord(text) not in covered}
    wanted = [
        *range(0x20, 0x7F),
        *range(0xA0, 0x180),
        *range(0x3B1, 0x3CA),
        *range(0x410, 0x450),
        *map(ord, "，。、：；！？（）《》“”"),
    ]
    assert [unicodedata.name(chr(point)) for point in wanted if point not in covered] == []


def test_the_font_says_whose_it_is():
    names = TTFont(FONT, lazy=True)["name"]
    assert names.getDebugName(1) == "OpenLepton Sans"
    assert "WenQuanYi" in names.getDebugName(0)
    assert "Apache License, Version 2.0" in names.getDebugName(13)


@pytest.mark.slow
def test_the_tool_keeps_exactly_the_glyphs_of_the_font_that_ships():
    logging.getLogger("fontTools").setLevel(logging.ERROR)
    tool = load_tool()
    data = FONT.read_bytes()
    ours, made = (TTFont(io.BytesIO(source), lazy=False) for source in (data, tool.make(data, tool.characters())))
    assert made.getBestCmap() == ours.getBestCmap()
    assert made.getGlyphOrder() == ours.getGlyphOrder()
    assert made["hmtx"].metrics == ours["hmtx"].metrics
    assert all(made["glyf"][name] == ours["glyf"][name] for name in ours.getGlyphOrder())


@pytest.mark.slow
def test_the_tool_makes_the_same_bytes_every_time():
    tool = load_tool()
    first, second = (tool.make(FONT.read_bytes(), [0x41, 0x4EBA]) for _ in range(2))
    assert first == second
    assert sorted(TTFont(io.BytesIO(first)).getBestCmap()) == [0x41, 0x4EBA]
