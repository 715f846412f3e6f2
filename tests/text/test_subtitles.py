import pytest
from hypothesis import given
from hypothesis import strategies as st

from openlepton.errors import DataInvalid
from openlepton.text.subtitles import translate_srt

FILM = (
    "\ufeff1\r\n00:00:01,000 --> 00:00:02,500 X1:10\r\n<i>Hello there,</i>\r\nold friend.\r\n\r\n"
    "2\r\n00:00:03,000 --> 00:00:04,000\r\n- Who?\r\n- Me.\r\n\r\n\r\n"
    "3\r\n00:00:05,000 --> 00:00:06,000\r\n\r\n"
    "4\r\n00:00:07,000 --> 00:00:08,000\r\n{\\an8}Up.\r\n"
)


def shout(texts):
    return [text.upper() for text in texts]


def test_everything_but_the_words_stays_byte_for_byte():
    assert translate_srt(FILM, shout) == (
        "\ufeff1\r\n00:00:01,000 --> 00:00:02,500 X1:10\r\n<i>HELLO THERE,</i> OLD FRIEND.\r\n\r\n"
        "2\r\n00:00:03,000 --> 00:00:04,000\r\n- WHO?\r\n- ME.\r\n\r\n\r\n"
        "3\r\n00:00:05,000 --> 00:00:06,000\r\n\r\n"
        "4\r\n00:00:07,000 --> 00:00:08,000\r\n{\\an8}UP.\r\n"
    )


def test_lines_of_a_cue_are_one_sentence_and_speakers_are_not():
    asked = []
    translate_srt(FILM, lambda texts: asked.extend(texts) or list(texts))
    assert [text.strip() for text in asked] == ["Hello there,", "old friend.", "Who?", "Me.", "Up."]
    chinese = "1\n00:00:01,000 --> 00:00:02,000\n我今天\n很高兴\n"
    assert translate_srt(chinese, list) == "1\n00:00:01,000 --> 00:00:02,000\n我今天很高兴\n"


def test_what_is_no_subrip_file_is_refused():
    with pytest.raises(DataInvalid, match=r"film.srt: no line such as 00:00:01,000"):
        translate_srt("just text\n", shout, "film.srt")
    assert translate_srt("", shout) == ""


@given(st.lists(st.text(st.sampled_from("ab <i>{}-—中文.…"), max_size=12), max_size=4))
def test_any_cue_goes_through_with_its_times(lines):
    cue = "".join(f"{line}\n" for line in lines)
    text = f"1\n00:00:01,000 --> 00:00:02,000\n{cue}\n2\n00:00:03,000 --> 00:00:04,000\nlast\n"
    found = translate_srt(text, list)
    assert found.startswith("1\n00:00:01,000 --> 00:00:02,000\n")
    assert found.endswith("\n2\n00:00:03,000 --> 00:00:04,000\nlast\n")
