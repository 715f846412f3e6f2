import shutil
import subprocess

import pytest

from openlepton.errors import DataInvalid
from openlepton.text.po import translate_po

CATALOGUE = """# translators
msgid ""
msgstr ""
"Content-Type: text/plain; charset=UTF-8\\n"
"Plural-Forms: nplurals=2; plural=(n != 1);\\n"

#: a.c:1
msgid "Open"
msgstr "已翻译"

#: a.c:2
#, c-format
msgid "%d file of {name}\\n"
msgstr ""

msgctxt "menu"
msgid ""
"long "
"text \\"quoted\\""
msgstr ""

msgid "one dog"
msgid_plural "%d dogs"
msgstr[0] ""
msgstr[1] ""

msgid "keep %s"
msgstr ""

#~ msgid "old"
#~ msgstr ""
"""


def shout(texts):
    return [
        text.replace("%s", "").upper().replace("%D", "%d").replace("{NAME}", "{name}").strip("\n") for text in texts
    ]


def test_gaps_are_filled_marked_fuzzy_and_the_rest_stays():
    filled = translate_po(CATALOGUE, shout)
    assert filled.filled == 4
    assert filled.left == ("keep %s",)
    wanted = (
        CATALOGUE.replace("#, c-format\n", "#, c-format, fuzzy\n")
        .replace('{name}\\n"\nmsgstr ""', '{name}\\n"\nmsgstr "%d FILE OF {name}\\n"')
        .replace('msgctxt "menu"', '#, fuzzy\nmsgctxt "menu"')
        .replace('\\"quoted\\""\nmsgstr ""', '\\"quoted\\""\nmsgstr "LONG TEXT \\"QUOTED\\""')
        .replace('msgid "one dog"', '#, fuzzy\nmsgid "one dog"')
        .replace('msgstr[0] ""\nmsgstr[1] ""', 'msgstr[0] "ONE DOG"\nmsgstr[1] "%d DOGS"')
    )
    assert filled.text == wanted


def test_a_filled_catalogue_has_nothing_left_to_fill():
    once = translate_po(CATALOGUE, shout).text
    assert translate_po(once, shout).text == once


@pytest.mark.skipif(shutil.which("msgfmt") is None, reason="gettext is not installed")
def test_msgfmt_takes_what_was_filled(tmp_path):
    path = tmp_path / "zh.po"
    path.write_text(translate_po(CATALOGUE, shout).text, encoding="utf-8")
    subprocess.run(["msgfmt", "-c", "-o", str(tmp_path / "zh.mo"), str(path)], check=True)


def test_windows_line_ends_stay():
    assert translate_po('msgid "a"\r\nmsgstr ""\r\n', shout).text == '#, fuzzy\r\nmsgid "a"\r\nmsgstr "A"\r\n'


@pytest.mark.parametrize(
    ("text", "said"), [('msgid "a\n', "line 1: a string that does not end"), ("hello\n", "line 1: not a line of a .po")]
)
def test_a_broken_line_is_named(text, said):
    with pytest.raises(DataInvalid, match=said):
        translate_po(text, shout)
