"""Where sentences end, in Chinese, in English and where both are mixed; every character of the text stays in exactly one part."""

import re
from collections.abc import Iterator

_END = re.compile(
    r"""
    [。！？｡]+[”’」』）】》"')\]]*         # full-width: the end of a sentence wherever it stands
    | (?:…{2}|⋯{2})[”’」』）】》"')\]]*(?=\s|[\u4e00-\u9fff]|$)
    | [.!?…]+[”’"')\]]*(?=\s|$|[\u4e00-\u9fff])   # half-width: only before a blank, the end or Chinese
    """,
    re.VERBOSE,
)
_ABBREVIATIONS = (
    " mr mrs ms dr prof sr jr st mt rev gen col sgt capt lt hon gov sen rep vs etc e.g i.e cf al no nos fig figs eq sec "
    " ch vol pp p  ed eds approx dept est inc ltd co corp a.m p.m u.s u.k u.n jan feb mar apr jun jul aug sep sept oct "
    " nov dec "
)
_CONTINUES = " a.m p.m u.s u.k u.n etc inc ltd co corp jr sr al "
"""Abbreviations that do end a sentence when what follows begins like one."""
_WORD = re.compile(r"(?:[A-Za-z]\.)*[A-Za-z]+\Z")
_PIECES = (re.compile(r"[，；：、]+[”’」』）】》]*|[,;:]+(?=\s)"), re.compile(r"\s+"))
_WINDOW = 64  # characters before a full stop that are looked at


def sentences(text: str) -> list[str]:
    """Return the sentences of `text`, each with the blanks that follow it; joined they are `text` again.

    A line break is always an end. A full stop after an abbreviation, an initial or inside a number is none.
    """
    found: list[str] = []
    for line in text.splitlines(keepends=True):
        start = 0
        for end in _ends(line):
            found.append(line[start:end])
            start = end
        if start < len(line):
            found.append(line[start:])
    return found


def shortened(sentence: str, longest: int) -> Iterator[str]:
    """Yield `sentence` in parts of at most `longest` characters, cut after a comma where there is one, else after a blank.

    Joined they are `sentence` again.
    """
    while len(sentence) > longest:
        cut = longest
        for pattern in _PIECES:
            ends = [found.end() for found in pattern.finditer(sentence, longest // 3, longest)]
            if ends:
                cut = ends[-1]
                break
        yield sentence[:cut]
        sentence = sentence[cut:]
    if sentence:
        yield sentence


def _ends(line: str) -> Iterator[int]:
    """Yield where each sentence of one line ends, the blanks after it included."""
    for found in _END.finditer(line):
        end = found.end()
        while end < len(line) and line[end].isspace():
            end += 1
        if end < len(line) and _ends_here(line, found, end):
            yield end


def _ends_here(line: str, found: re.Match[str], following: int) -> bool:
    mark = found.group()
    if mark[0] in "。！？｡…⋯":
        return True
    after = line[following]
    if mark[0] == ".":
        word = _WORD.search(line, max(found.start() - _WINDOW, 0), found.start())
        if word is not None:
            name = word.group().lower()
            if f" {name} " in _ABBREVIATIONS and (f" {name} " not in _CONTINUES or not after.isupper()):
                return False
            if len(name) == 1 and name != "i":  # an initial: J. Smith
                return False
        elif line[: found.start()].strip().isdigit() and not line[: found.start()].strip(" \t")[4:]:
            return False  # the number of an item: "1. First"
    return not after.islower()
