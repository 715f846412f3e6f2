"""Message catalogues of gettext (`.po`): missing translations filled in, every other line byte for byte as it was.

What a machine wrote is marked `fuzzy`, as gettext has it for what nobody has looked at yet.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from openlepton.errors import DataInvalid
from openlepton.text.subtitles import Translate

_FIELD = re.compile(r"(msgctxt|msgid_plural|msgid|msgstr(?:\[(\d+)\])?)\s+(\".*)")
_STRING = re.compile(r'\s*"((?:[^"\\]|\\.)*)"\s*')
_ESCAPE = re.compile(r"\\(?:([0-7]{1,3})|x([0-9a-fA-F]{1,2})|(.))", re.DOTALL)
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "a": "\a", "b": "\b", "f": "\f", "v": "\v"}
_PLACEHOLDER = re.compile(
    r"%(?:\(\w+\))?[-+ #0]*(?:\d+\$)?[\d*]*(?:\.[\d*]+)?[a-zA-Z%]|\$?\{[^{}\s]*\}|</?[a-zA-Z][^<>]*>|&[a-z]+;|https?://\S+"
)


@dataclass
class _Message:
    """One message: what its fields say, and which lines they are on."""

    fields: dict[str, str] = field(default_factory=dict)
    places: dict[str, tuple[int, int]] = field(default_factory=dict)
    fuzzy: int | None = None
    """The line of its flags, `#, ...`, where it has one."""


@dataclass(frozen=True)
class Filled:
    """A catalogue with its gaps filled."""

    text: str
    filled: int
    """How many translations were written."""
    left: tuple[str, ...]
    """Messages left empty because the translation lost one of their placeholders."""


def translate_po(text: str, translate: Translate, where: str = "catalogue") -> Filled:
    """Return the catalogue `text` with a translation for each message that has none.

    Messages that are translated, the header, comments and obsolete messages stay. A translation that does not hold exactly the
    placeholders of its message (`%s`, `{name}`, `%(count)d`, tags, addresses) is not written.

    Raises:
        DataInvalid: A line is none of a catalogue; the message says which.
    """
    lines = text.splitlines(keepends=True)
    wanted: list[tuple[_Message, str, str]] = []
    for message in _messages(lines, where):
        singular = message.fields.get("msgid", "")
        for key in (key for key in message.fields if key.startswith("msgstr") and not message.fields[key]):
            source = singular if key in ("msgstr", "msgstr[0]") else message.fields.get("msgid_plural", singular)
            if singular and source.strip():
                wanted.append((message, key, source))
    done = translate([source for _, _, source in wanted]) if wanted else ()
    changes: dict[int, tuple[int, list[str]]] = {}
    left: dict[str, None] = {}
    for (message, key, source), translated in zip(wanted, done, strict=True):
        if _placeholders(source) != _placeholders(translated):
            left[source] = None
            continue
        first, last = message.places[key]
        ending = lines[first][len(lines[first].rstrip("\r\n")) :] or "\n"
        changes[first] = (last, [f'{key} "{_escaped(_like(source, translated))}"{ending}'])
        if message.fuzzy is None:
            start = min(start for start, _ in message.places.values())
            before = changes.get(start)
            if before is None:
                changes[start] = (start, [f"#, fuzzy{ending}"])
        elif "fuzzy" not in lines[message.fuzzy]:
            flags = lines[message.fuzzy].rstrip("\r\n")
            changes[message.fuzzy] = (message.fuzzy + 1, [f"{flags}, fuzzy{ending}"])
    filled = sum(last > first and lines[first].startswith("msgstr") for first, (last, _) in changes.items())
    return Filled(_changed(lines, changes), filled, tuple(left))


def _changed(lines: Sequence[str], changes: dict[int, tuple[int, list[str]]]) -> str:
    """Return `lines` where those from a change's key to its first value are replaced by its second."""
    out, at = list[str](), 0
    for first in sorted(changes):
        last, new = changes[first]
        out += [*lines[at:first], *new] if first >= at else new
        at = max(at, last)
    return "".join(out + list(lines[at:]))


def _messages(lines: Sequence[str], where: str) -> list[_Message]:
    found, message, key = list[_Message](), _Message(), ""
    for row, line in enumerate(lines):
        stripped = line.strip().removeprefix("\ufeff")
        field_ = _FIELD.fullmatch(stripped)
        if stripped.startswith("#"):
            if message.fields:
                found, message = [*found, message], _Message()
            if stripped.startswith("#,"):
                message.fuzzy = row
            key = ""
        elif field_ is not None:
            if field_[1] in ("msgctxt", "msgid") and any(name.startswith("msgstr") for name in message.fields):
                found.append(message)
                message = _Message()
            key = field_[1]
            message.fields[key] = _string(field_[3], where, row)
            message.places[key] = (row, row + 1)
        elif stripped.startswith('"') and key:
            message.fields[key] += _string(stripped, where, row)
            message.places[key] = (message.places[key][0], row + 1)
        elif not stripped:
            if message.fields:
                found.append(message)
            message, key = _Message(), ""
        else:
            raise DataInvalid(f"{where}: line {row + 1}: not a line of a .po file: {stripped[:60]!r}")
    return [*found, message] if message.fields else found


def _string(quoted: str, where: str, row: int) -> str:
    found = _STRING.fullmatch(quoted)
    if found is None:
        raise DataInvalid(f"{where}: line {row + 1}: a string that does not end, or ends too early: {quoted[:60]!r}")

    def plain(escape: re.Match[str]) -> str:
        if escape[1] is not None or escape[2] is not None:
            return chr(int(escape[1], 8) if escape[1] is not None else int(escape[2], 16))
        return _ESCAPES.get(escape[3], escape[3])

    return _ESCAPE.sub(plain, found[1])


def _escaped(text: str) -> str:
    text = text.replace("\\", "\\\\").replace('"', '\\"')
    for letter, character in _ESCAPES.items():
        text = text.replace(character, f"\\{letter}")
    return text


def _placeholders(text: str) -> Counter[str]:
    return Counter(_PLACEHOLDER.findall(text))


def _like(source: str, translated: str) -> str:
    """Return `translated` with the line breaks at either end that `source` has: msgfmt insists on them."""
    body = translated.strip("\n")
    head, tail = "\n" * source.startswith("\n"), "\n" * source.endswith("\n")
    return f"{head}{body}{tail}"
