"""Subtitles (SubRip, `.srt`): the texts of the cues translated, everything around them byte for byte as it was."""

import re
from collections.abc import Callable, Iterator, Sequence

from openlepton.errors import DataInvalid

Translate = Callable[[Sequence[str]], Sequence[str]]
"""Takes texts, returns one translation for each."""

_TIMES = re.compile(r"\s*\d+:\d\d:\d\d[,.]\d{1,3}\s*-->\s*\d+:\d\d:\d\d[,.]\d{1,3}.*")
_MARKUP = re.compile(r"(</?[a-zA-Z][^<>]*>|\{\\[^{}]*\})")
_SPEAKER = re.compile(r"\s*[-–—]\s*\S")
_DASH = re.compile(r"[-–—]\s*")
_HAN = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uff00-\uffef]")


def translate_srt(text: str, translate: Translate, where: str = "subtitles") -> str:
    r"""Return the SubRip file `text` with its cues translated.

    Numbers, times, empty lines, line ends, `<i>` and `{\an8}` stay. The lines of a cue are read as one sentence, unless each
    begins with a dash, which is another speaker.

    Raises:
        DataInvalid: There is no line of times in it: it is not a SubRip file.
    """
    lines = text.splitlines(keepends=True)
    cues = _cues(lines)
    if text.strip() and not cues:
        raise DataInvalid(f"{where}: no line such as 00:00:01,000 --> 00:00:02,000: not a SubRip file")
    parts = [part for first, last in cues for part in _speeches(lines[first:last])]
    split = [_MARKUP.split(part) for part in parts]
    words = [_core(piece) for pieces in split for piece in pieces[::2] if piece.strip()]
    spoken = iter(translate(words) if words else ())
    done = iter(
        ["".join(_spoken(piece, spoken) if row % 2 == 0 else piece for row, piece in enumerate(p)) for p in split]
    )
    out, at = list[str](), 0
    for first, last in cues:
        out += lines[at:first]
        ending = lines[last - 1][len(lines[last - 1].rstrip("\r\n")) :]
        between = lines[first][len(lines[first].rstrip("\r\n")) :]
        speeches = [next(done) for _ in _speeches(lines[first:last])]
        out.append(between.join(speeches) + ending)
        at = last
    return "".join(out + lines[at:])


def _cues(lines: Sequence[str]) -> list[tuple[int, int]]:
    """Return the first line of each cue's text and the one after its last; cues without text are left out."""
    found = []
    for row, line in enumerate(lines):
        if _TIMES.fullmatch(line.rstrip("\r\n")):
            last = row + 1
            while last < len(lines) and lines[last].strip():
                last += 1
            if last > row + 1:
                found.append((row + 1, last))
    return found


def _speeches(lines: Sequence[str]) -> list[str]:
    """Return the text of a cue: a line for each speaker, or all lines as one."""
    plain = [line.rstrip("\r\n") for line in lines]
    if len(plain) > 1 and all(_SPEAKER.match(line) for line in plain):
        return plain
    joined = plain[0]
    for line in plain[1:]:
        chinese = joined and line and _HAN.match(joined[-1]) and _HAN.match(line[0])
        joined = joined + line if chinese else f"{joined.rstrip()} {line.lstrip()}"
    return [joined]


def _spoken(piece: str, spoken: Iterator[str]) -> str:
    """Return the next translation with the blanks, and the dash, that were around `piece`."""
    if not piece.strip():
        return piece
    head, tail = piece.split(_core(piece), 1)
    return f"{head}{next(spoken)}{tail}"


def _core(piece: str) -> str:
    """Return what is said in `piece`, without the blanks around it and the dash before it."""
    text = piece.strip()
    dash = _DASH.match(text)
    return text[dash.end() :] or text if dash else text
