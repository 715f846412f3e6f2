"""Texts to the ids that encoders read; a tokenizer is a `tokenizer.json`, which holds data and no code."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from openlepton.errors import ModelFormatRefused, missing_extra

TOKENIZER = "tokenizer.json"
CHARACTERS_A_TOKEN = 64
"""What lies behind so many characters for each token that is read is not even looked at: a line may have a million."""


@dataclass(frozen=True, eq=False)
class Tokens:
    """A tokenizer that cuts what is too long; safe from any number of threads."""

    tokenizer: Any
    max_tokens: int

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the ids of each text, at most `max_tokens` of them, with those that mark its begin and its end."""
        seen = self.max_tokens * CHARACTERS_A_TOKEN
        found = self.tokenizer.encode_batch([clean(text[:seen]) for text in texts])
        return [one.ids for one in found]


def clean(text: str) -> str:
    """Return `text` without halves of surrogate pairs, which no tokenizer takes."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def read_tokens(data: bytes, max_tokens: int, where: str = TOKENIZER) -> Tokens:
    """Return the tokenizer that the bytes of a `tokenizer.json` describe.

    Raises:
        ModelFormatRefused: They are not one.
        MissingExtra: tokenizers is not installed.
    """
    try:
        from tokenizers import Tokenizer
    except ModuleNotFoundError as error:
        raise missing_extra(error.name, "text") from None
    try:
        tokenizer = Tokenizer.from_buffer(data)
        tokenizer.no_padding()
        tokenizer.enable_truncation(max_tokens)
    except Exception as error:  # noqa: BLE001 - the library raises plain Exception
        raise ModelFormatRefused(f"{where}: not a tokenizer: {' '.join(str(error).split())[:300]}") from None
    return Tokens(tokenizer, max_tokens)
