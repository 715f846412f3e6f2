"""Make `openlepton/assets/sans.ttf`, the font of drawn labels: `python tools/make_font.py wqy-microhei.ttc`.

The source is WenQuanYi Micro Hei, in Debian's package fonts-wqy-microhei (Apache-2.0 or GPL-3.0 with a font exception; taken
under Apache-2.0). The same source gives the same bytes: no time stamp is renewed.
"""

import hashlib
import io
import logging
import sys
from collections.abc import Iterable
from pathlib import Path

from fontTools import subset
from fontTools.ttLib import TTFont

SOURCE_SHA256 = "2420e8078af796b19a3f6ef13de527a1a91c1e7171eea115926c614ced1009b3"
TARGET = Path(__file__).resolve().parent.parent / "openlepton" / "assets" / "sans.ttf"
FAMILY = "OpenLepton Sans"
BLOCKS = (
    (0x20, 0x7E),  # ASCII
    (0xA0, 0x17F),  # Latin-1 and Latin Extended-A: every accent of Europe's languages
    (0x1EA0, 0x1EF9),  # Vietnamese
    (0x386, 0x3CE),  # Greek
    (0x400, 0x45F),  # Cyrillic
    (0x490, 0x4F5),
    (0x2010, 0x2027),  # dashes, quotation marks, the ellipsis
    (0x2030, 0x203A),
    (0x20AC, 0x20AC),  # euro
    (0x2190, 0x2193),  # arrows
    (0x3000, 0x301F),  # Chinese punctuation
    (0xFF01, 0xFF5E),  # full-width forms
)
"""First and last code points; those the source lacks are left out."""

KEPT_NAMES = {0, 13, 14}
"""Copyright, licence, and its address."""


CHARSETS = (
    ("gb2312", range(0xA1, 0xF8)),  # simplified Chinese, both levels
    ("big5", range(0xA4, 0xC7)),  # traditional Chinese, the frequent level
    ("euc_jp", range(0xA1, 0xD0)),  # Japanese punctuation, kana and the first level of kanji
    ("euc_kr", range(0xB0, 0xC9)),  # hangul
)
"""Encodings and the first bytes whose characters are taken."""


def characters() -> set[int]:
    """Return the code points of `BLOCKS` and `CHARSETS`, and of the labels of every model that ships."""
    pairs = [(name, bytes((lead, trail))) for name, leads in CHARSETS for lead in leads for trail in range(0x40, 0xFF)]
    texts = [pair.decode(name, "ignore") for name, pair in pairs]
    written = {ord(text) for text in texts if len(text) == 1 and not text.isascii()}
    cards = (TARGET.parents[1] / "zoo").glob("*/card.toml")  # animals have names outside the common character sets
    written |= {ord(character) for card in cards for character in card.read_text("utf-8") if character.isprintable()}
    return written | {point for first, last in BLOCKS for point in range(first, last + 1)}


def make(source: bytes, points: Iterable[int]) -> bytes:
    """Return the first font of `source`, a TrueType file or collection, with no more than the characters `points`."""
    face = 0 if source[:4] == b"ttcf" else -1
    font = TTFont(io.BytesIO(source), fontNumber=face, recalcTimestamp=False, lazy=False)
    options = subset.Options()
    options.layout_features = []
    options.drop_tables += ["FFTM", "GDEF", "GPOS", "GSUB", "vhea", "vmtx"]
    options.glyph_names = False
    options.notdef_outline = True
    options.name_IDs = sorted(KEPT_NAMES)
    subsetter = subset.Subsetter(options)
    subsetter.populate(unicodes=points)
    subsetter.subset(font)
    for number, text in ((1, FAMILY), (2, "Regular"), (4, FAMILY), (6, FAMILY.replace(" ", ""))):
        font["name"].setName(text, number, 3, 1, 0x409)
    out = io.BytesIO()
    font.save(out)
    return out.getvalue()


def main() -> None:
    """Write the font; refuse a source other than the one that was looked at."""
    if len(sys.argv) != 2:
        sys.exit(__doc__.partition("\n")[0] if __doc__ else 2)
    logging.getLogger("fontTools").setLevel(logging.ERROR)
    source = Path(sys.argv[1]).read_bytes()
    found = hashlib.sha256(source).hexdigest()
    if found != SOURCE_SHA256:
        sys.exit(f"{sys.argv[1]}: sha256 is {found}, expected {SOURCE_SHA256} (wqy-microhei.ttc 0.2.0-beta)")
    data = make(source, characters())
    TARGET.parent.mkdir(parents=True, exist_ok=True)
    fresh = TARGET.with_suffix(".new")
    fresh.write_bytes(data)
    fresh.replace(TARGET)
    print(f"{TARGET.name}: {len(data):,} bytes, sha256 {hashlib.sha256(data).hexdigest()}")


if __name__ == "__main__":
    main()
