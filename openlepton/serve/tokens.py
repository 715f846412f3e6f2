"""Who may ask: bearer tokens, kept as sha256 and compared in constant time."""

import hashlib
import hmac
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from openlepton.errors import UsageError

Scope = Literal["predict", "admin"]

_SCOPES: tuple[Scope, ...] = ("predict", "admin")
_LEAST = 16  # characters; shorter ones can be guessed
_MAX_BYTES = 1024 * 1024


@dataclass(frozen=True)
class Caller:
    """Who asks; without tokens everybody is the same caller and may do everything."""

    key: str = ""
    """The sha256 of the token: what jobs belong to."""
    scopes: frozenset[str] = frozenset(_SCOPES)


@dataclass(frozen=True)
class Tokens:
    """The tokens that a server knows; false if it asks for none."""

    callers: tuple[Caller, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.callers)

    def find(self, token: str) -> Caller | None:
        """Return whose token this is; how long it takes tells nothing about the tokens that there are."""
        digest = hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()
        found = None
        for caller in self.callers:
            if hmac.compare_digest(caller.key, digest):
                found = caller
        return found


NOBODY = Tokens()
"""No tokens: whoever reaches the server may ask."""


def parse_tokens(lines: Iterable[str], where: str) -> Tokens:
    """Return the tokens of a file: on each line a token, or `sha256:` and its hash, then its scopes (default: `predict`).

    Raises:
        UsageError: A token is shorter than 16 characters, a scope is unknown, or there is no token at all.
    """
    callers = []
    for number, line in enumerate(lines, 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        token, *scopes = words
        unknown = set(scopes) - set(_SCOPES)
        if unknown:
            raise UsageError(f"{where}:{number}: unknown scope {min(unknown)!r}, expected {' or '.join(_SCOPES)}")
        hashed = re.fullmatch(r"sha256:([0-9a-f]{64})", token)
        if hashed is None and (len(token) < _LEAST or token.startswith("sha256:")):
            raise UsageError(
                f"{where}:{number}: a token has {_LEAST} characters or more, or is sha256: and 64 hex digits"
            )
        key = hashed[1] if hashed else hashlib.sha256(token.encode()).hexdigest()
        callers.append(Caller(key, frozenset(scopes or ("predict",))))
    if not callers:
        raise UsageError(f"{where}: no token in it")
    return Tokens(tuple(callers))


def read_tokens(path: Path) -> Tokens:
    """Return the tokens in the file at `path`.

    Raises:
        UsageError: The file cannot be read, or is not a list of tokens.
    """
    try:
        with path.open("rb") as file:
            text = file.read(_MAX_BYTES).decode()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise UsageError(f"{path}: tokens cannot be read: {reason}") from None
    return parse_tokens(text.splitlines(), str(path))
