"""Sentences to the pieces that translators read, and back; tokenizers are SentencePiece files, which hold data and no code."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from openlepton.card import ModelFolder
from openlepton.errors import CardInvalid, ModelCorrupt, missing_extra

PIECES = "pieces.model"
"""The tokenizer of a model that OpenLepton trained: one for both languages."""
SOURCE, TARGET = "source.spm", "target.spm"
"""The tokenizers of a Marian model: one for each language."""
END = "</s>"

_WIDE = re.compile(r"[\u2e80-\u9fff\uf900-\ufaff\uff00-\uffef]")


def spaced(text: str) -> str:
    """Return `text` as a shared tokenizer reads it: with a blank before it unless it begins with a Chinese character.

    So a word is the same piece wherever it stands, and Chinese gets no piece for a blank that is not there.
    """
    return text if not text or _WIDE.match(text) else f" {text}"


class Pieces(Protocol):
    """Turns sentences into pieces and back."""

    def encode(self, sentences: Sequence[str]) -> list[list[str]]:
        """Return the pieces of each sentence, with what the model wants before and after them."""

    def decode(self, pieces: Sequence[str]) -> str:
        """Return the sentence that `pieces` spell."""


@dataclass(frozen=True, eq=False)
class SharedPieces:
    """One tokenizer for both languages."""

    tokenizer: Any
    prefix: tuple[str, ...] = ()

    def encode(self, sentences: Sequence[str]) -> list[list[str]]:
        """Return the pieces of each sentence, with the prefix before them and the end after them."""
        found = self.tokenizer.encode([spaced(text) for text in sentences], out_type=str)
        return [[*self.prefix, *pieces, END] for pieces in found]

    def decode(self, pieces: Sequence[str]) -> str:
        """Return the sentence that `pieces` spell."""
        return str(self.tokenizer.decode(list(pieces))).strip()


@dataclass(frozen=True, eq=False)
class MarianPieces:
    """A tokenizer for each language."""

    source: Any
    target: Any
    prefix: tuple[str, ...] = ()

    def encode(self, sentences: Sequence[str]) -> list[list[str]]:
        """Return the pieces of each sentence, with the prefix before them and the end after them."""
        return [[*self.prefix, *pieces, END] for pieces in self.source.encode(list(sentences), out_type=str)]

    def decode(self, pieces: Sequence[str]) -> str:
        """Return the sentence that `pieces` spell."""
        return str(self.target.decode(list(pieces))).replace("\u2581", " ").strip()


def open_pieces(folder: ModelFolder) -> Pieces:
    """Return the tokenizer of a translator, of whose files every byte was checked.

    Raises:
        CardInvalid: The card names no tokenizer.
        ModelCorrupt: A file is not what the card says, or not a tokenizer.
    """
    facts = folder.card.translate
    prefix = facts.prefix if facts is not None else ()
    if PIECES in folder.card.files:
        return SharedPieces(_processor(folder, PIECES), prefix)
    if SOURCE in folder.card.files and TARGET in folder.card.files:
        return MarianPieces(_processor(folder, SOURCE), _processor(folder, TARGET), prefix)
    raise CardInvalid(f"{folder.card.name}: files: neither {PIECES} nor {SOURCE} and {TARGET}: there is no tokenizer")


def _processor(folder: ModelFolder, name: str) -> Any:
    try:
        from sentencepiece import SentencePieceProcessor
    except ModuleNotFoundError as error:
        raise missing_extra(error.name, "text") from None
    try:
        return SentencePieceProcessor(model_proto=folder.read(name))
    except RuntimeError as error:
        raise ModelCorrupt(f"{folder.path / name}: not a SentencePiece model: {error}") from None
