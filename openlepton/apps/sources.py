"""What to call the sources that a user names: in events, and in the names of files."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from openlepton.errors import UsageError
from openlepton.job import plain_name
from openlepton.video.decode import camera_number, display_name, is_url
from openlepton.video.stream import Source

_NAMED = re.compile(r"(\w[\w -]{0,63})=(.+)")


def named(sources: Iterable[str]) -> Mapping[str, Source]:
    """Return the sources by a name that is fit for a file: `front` for `front=rtsp://...`, otherwise made of the source itself.

    Raises:
        UsageError: Two sources were given the same name.
    """
    found: dict[str, Source] = {}
    for text in sources:
        match = _NAMED.fullmatch(text)
        name, source = (match[1].strip(), match[2]) if match else ("", text)
        if name in found:
            raise UsageError(f"two sources are called {name!r}")
        name = name or _unused(_own_name(source), found)
        found[name] = source
    return found


def is_live(source: Source) -> bool:
    """Return whether a source has no end that is known: a camera or a URL."""
    return is_url(source) or camera_number(source) is not None


def free(path: Path) -> Path:
    """Return `path`, or the first of `NAME-2`, `NAME-3`, ... with its suffix that does not exist yet."""
    number, chosen = 1, path
    while chosen.exists():
        number += 1
        chosen = path.with_stem(f"{path.stem}-{number}")
    return chosen


def _own_name(source: str) -> str:
    if camera_number(source) is not None:
        return f"camera{camera_number(source)}"
    shown = display_name(source).rstrip("/")
    if is_url(source):
        shown = shown.split("://", 1)[1].split("?", 1)[0]
        return plain_name(shown.replace("/", "-").replace(":", "-"))[:64]
    last = re.split(r"[/\\]", shown)[-1]
    return plain_name(last.rsplit(".", 1)[0] if "." in last[1:] else last)[:64]


def _unused(name: str, taken: Mapping[str, Source]) -> str:
    number, chosen = 1, name
    while chosen.casefold() in {other.casefold() for other in taken}:
        number += 1
        chosen = f"{name}-{number}"
    return chosen
