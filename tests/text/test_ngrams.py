import time
import unicodedata
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openlepton.card import NgramFacts
from openlepton.text.languages import language_of
from openlepton.text.ngrams import MAX_CHARACTERS, ngrams, normalised


def sets(texts, **facts):
    starts, found = ngrams(texts, NgramFacts(**{"buckets": 1 << 24, "words": 0, "chars": 0} | facts))
    return [found[a:b].tolist() for a, b in pairwise(starts)]


def spelled(text, words, chars):
    """The n-grams of a text, as strings: slowly, and without a hash."""
    padded = f" {normalised(text)} "
    if not padded.strip():
        return set()
    found = {
        ("c", padded[i : i + n])
        for n in range(1, chars + 1)
        for i in range(len(padded) - n + 1)
        if padded[i : i + n] != " " or n > 1
    }
    tokens, begin = [], None  # where each begins and ends
    for place, character in enumerate(padded):
        code = ord(character)
        if (character.isalnum() or character in "'’") and not 0x2E80 <= code <= 0x9FFF and code < 0x10000:
            begin = place if begin is None else begin
            continue
        if begin is not None:
            tokens.append((begin, place))
            begin = None
        if not character.isspace():
            tokens.append((place, place + 1))
    runs = [tokens[i : i + n] for n in range(1, words + 1) for i in range(len(tokens) - n + 1)]
    return found | {("w", padded[run[0][0] : run[-1][1]]) for run in runs}


texts = st.lists(st.text("ab cé中文,😀\n\t'A①", max_size=12), max_size=5)


@given(texts, st.integers(0, 2), st.integers(0, 4))
def test_a_text_has_as_many_features_as_it_has_different_ngrams(given, words, chars):
    found = sets(given, words=words, chars=chars)
    assert len(found) == len(given)
    for text, one in zip(given, found, strict=True):
        blank_kept = spelled(text, words, chars)
        assert len(set(one)) == len(one)
        assert len(one) <= len(blank_kept)
        assert len(one) >= len(blank_kept) - 1 - len(blank_kept) // 1000  # of 2^24 buckets two seldom meet


@given(texts)
def test_features_do_not_depend_on_the_batch(given):
    assert sets(given, words=2, chars=3) == [sets([text], words=2, chars=3)[0] for text in given]


def test_equal_ngrams_have_equal_features_wherever_they_stand():
    one, other, third = sets(["the cat sat", "a cat sat down", "dog"], words=2)
    assert len(set(one) & set(other)) == 3  # cat, sat, cat sat
    assert not set(one) & set(third)


def test_case_width_white_space_and_controls_make_no_difference():
    assert normalised("ＡＢＣ\t\x00 d\u200b") == "abc d"
    assert sets(["Ａ b"], chars=3) == sets(["a  B\x07"], chars=3)
    assert normalised("e\u0301") == unicodedata.normalize("NFC", "e\u0301")


def test_a_million_characters_are_cut_not_read():
    (long,) = sets(["中" * 1_000_000], chars=2)
    assert long == sets(["中" * MAX_CHARACTERS], chars=2)[0]


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("这个 iPhone 很好用", "zh"),
        ("I love 北京", "en"),
        ("", "en"),
        ("🙂", "en"),
        ("好", "zh"),
        ("He said hello to everyone in the room, and 再见.", "en"),
    ],
)
def test_the_language_is_that_of_most_of_the_text(text, language):
    assert language_of(text) == language
    assert language_of(text, ("en",)) == "en"


def test_no_text_takes_time_that_grows_faster_than_it_does():
    def seconds(count):
        began = time.process_time()
        ngrams(["ab cd " * count], NgramFacts(buckets=1 << 20, words=2, chars=3))
        return time.process_time() - began

    seconds(10)
    assert seconds(8000) < 100 * max(seconds(800), 1e-3)


def test_buckets_are_used_evenly():
    numbers = [str(number) for number in range(20_000)]
    counts = np.bincount(np.concatenate(sets(numbers, words=1, buckets=64)).astype(int), minlength=64)
    assert counts.min() > 200
    assert counts.max() < 430
