import pytest
from hypothesis import given
from hypothesis import strategies as st

from openlepton.text.sentences import sentences, shortened


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("It rains. We stay.", ["It rains. ", "We stay."]),
        (
            "Dr. Smith met J. Doe at 5 p.m. in the U.S. capital.",
            ["Dr. Smith met J. Doe at 5 p.m. in the U.S. capital."],
        ),
        ("It costs 3.50 euros. Cheap!", ["It costs 3.50 euros. ", "Cheap!"]),
        ("1. First point\n2. Second", ["1. First point\n", "2. Second"]),
        ("下雨了。我们留下！好吗？好。", ["下雨了。", "我们留下！", "好吗？", "好。"]),
        ("他说：“走吧。”然后走了。", ["他说：“走吧。”", "然后走了。"]),
        ("Python很好用.它是一种语言。OK", ["Python很好用.", "它是一种语言。", "OK"]),
        ("等等……她来了。", ["等等……", "她来了。"]),
        ("He left at 5 p.m. She stayed.", ["He left at 5 p.m. ", "She stayed."]),
        ("See e.g. the docs, i.e. this page.", ["See e.g. the docs, i.e. this page."]),
        ("", []),
    ],
)
def test_sentences_end_where_a_reader_says_they_end(text, wanted):
    assert sentences(text) == wanted


MIXED = st.text(st.sampled_from("ab .!?…。！？，,;:\"'“”（）\n\r\t12中文 Mr.x"), max_size=80)


@given(MIXED)
def test_sentences_joined_are_the_text(text):
    assert "".join(sentences(text)) == text


@given(MIXED, st.integers(1, 20))
def test_parts_joined_are_the_sentence_and_none_is_too_long(text, longest):
    parts = list(shortened(text, longest))
    assert "".join(parts) == text
    assert all(0 < len(part) <= longest for part in parts)


def test_long_sentences_are_cut_after_a_comma_else_after_a_blank():
    assert list(shortened("one two, three four five", 16)) == ["one two, ", "three four five"] or list(
        shortened("one two, three four five", 16)
    ) == ["one two,", " three four five"]
    assert list(shortened("aaaa bbbb cccc", 10)) == ["aaaa bbbb ", "cccc"]
