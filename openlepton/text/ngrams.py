"""Texts to features: which n-grams of words and of characters occur in them, hashed, all texts of a batch at once.

A substring's hash is polynomial, so that with sums of powers each of any length costs one subtraction and one product; no n-gram
is ever a Python object.
"""

import unicodedata
from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from openlepton.arrays import Array
from openlepton.card import NgramFacts

MAX_CHARACTERS = 1 << 16
"""Of a text; what is behind them is not read."""
TOGETHER = 1 << 17
"""Characters that are hashed at once; more cost memory and gain nothing."""

_BASE = 0x5851F42D4C957F2D
_INVERSE = pow(_BASE, -1, 1 << 64)
_MIX = 0xD6E8FEB86659FD93
_BETWEEN, _LETTER, _ALONE = 0, 1, 2
_BREAK = 10  # a line feed before each text, which no text has any more

Uints = NDArray[np.uint64]


def normalised(text: str) -> str:
    """Return `text` as n-grams see it: compatible forms are one, lower case, one blank for white space and controls."""
    found = unicodedata.normalize("NFKC", text[:MAX_CHARACTERS]).lower()
    if not found.isprintable():
        found = "".join(character if character.isprintable() else " " for character in found)
    return " ".join(found.split())[:MAX_CHARACTERS]


def ngrams(texts: Sequence[str], facts: NgramFacts) -> tuple[Array, Array]:
    """Return the features of each text: `(N + 1,)` int64 where each text's begin, and `(F,)` int32 buckets, each once a text."""
    starts, found = [np.zeros(1, np.int64)], list[Array]()
    total = 0
    for group in _groups([normalised(text) for text in texts]):
        rows, buckets = _hashed(group, facts)
        starts.append(np.searchsorted(rows, np.arange(1, len(group) + 1)) + total)
        found.append(buckets)
        total += len(buckets)
    return np.concatenate(starts), np.concatenate(found) if found else np.zeros(0, np.int32)


def _groups(texts: Sequence[str]) -> Iterator[list[str]]:
    group, size = list[str](), 0
    for text in texts:
        if group and size + len(text) > TOGETHER:
            yield group
            group, size = [], 0
        group.append(text)
        size += len(text) + 3
    if group:
        yield group


def _hashed(texts: Sequence[str], facts: NgramFacts) -> tuple[Array, Array]:
    """Return the row and the bucket of every feature, sorted, none twice."""
    joined = "".join(f"\n {text} " if text else "\n" for text in texts)
    codes = np.frombuffer(joined.encode("utf-32-le", "surrogatepass"), np.uint32)
    rows = np.cumsum(codes == _BREAK) - 1
    powers, inverse = (_powers(base, len(codes) + 1) for base in (_BASE, _INVERSE))
    sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(codes.astype(np.uint64) * powers[:-1])])
    keys = []

    def add(begin: Array, end: Array, kind: int) -> None:
        hashes = _mixed((sums[end] - sums[begin]) * inverse[begin] + np.uint64(kind * _MIX % (1 << 64)))
        buckets = (hashes % np.uint64(facts.buckets)).astype(np.int64)
        keys.append((rows[begin] << 32) | buckets)

    places = np.arange(len(codes))
    for length in range(1, facts.chars + 1):
        begin = places[: max(len(codes) - length + 1, 0)]
        inside = (codes[begin] != _BREAK) & (rows[begin] == rows[begin + length - 1])
        if length == 1:
            inside &= codes != 32
        begin = begin[inside]
        add(begin, begin + length, 1)
    if facts.words:
        begin, end = _words(codes)
        for length in range(1, facts.words + 1):
            first, last = begin[: max(len(begin) - length + 1, 0)], end[length - 1 :]
            inside = rows[first] == rows[last - 1]
            add(first[inside], last[inside], 2)
    found = np.unique(np.concatenate(keys)) if keys else np.zeros(0, np.int64)
    return found >> 32, (found & 0xFFFFFFFF).astype(np.int32)


def _words(codes: NDArray[np.uint32]) -> tuple[Array, Array]:
    """Return where each word begins and ends: a run of letters and digits, or anything else that is no blank, alone."""
    kinds = np.full(len(codes), _ALONE, np.uint8)
    small = codes < 0x10000
    kinds[small] = _kinds()[codes[small]]
    before = np.concatenate([np.zeros(1, np.uint8), kinds[:-1]])
    after = np.concatenate([kinds[1:], np.zeros(1, np.uint8)])
    letters = kinds == _LETTER
    alone = kinds == _ALONE
    begin = np.flatnonzero((letters & (before != _LETTER)) | alone)
    return begin, np.flatnonzero((letters & (after != _LETTER)) | alone) + 1


@lru_cache(1)
def _kinds() -> NDArray[np.uint8]:
    """Return of each character of the basic plane whether it stands between words, within one, or is one."""
    found = np.full(0x10000, _ALONE, np.uint8)
    for code in range(0x10000):
        character = chr(code)
        if character.isspace() or code == _BREAK:
            found[code] = _BETWEEN
        elif (character.isalnum() or character in "'’") and not 0x2E80 <= code <= 0x9FFF:
            found[code] = _LETTER
    return found


def _powers(base: int, count: int) -> Uints:
    found = np.full(count, base, np.uint64)
    found[:1] = 1
    return np.cumprod(found)


def _mixed(hashes: Uints) -> Uints:
    """Return well-spread hashes: the low bits of a polynomial know little of the text."""
    hashes = (hashes ^ (hashes >> np.uint64(32))) * np.uint64(_MIX)
    hashes = (hashes ^ (hashes >> np.uint64(32))) * np.uint64(_MIX)
    return hashes ^ (hashes >> np.uint64(32))
