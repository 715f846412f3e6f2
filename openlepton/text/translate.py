"""Translation: text in, `Translation` out, by CTranslate2; sentence by sentence, whatever surrounds them stays.

::

    text -> lines -> sentences -> pieces     of all texts together, sorted into groups of like length
                                   | engine
    Translation <- joined <- sentences <- pieces
"""

import math
import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from openlepton.card import ModelCard, ModelFolder
from openlepton.errors import ModelFailed, UsageError, missing_extra
from openlepton.results import Translation
from openlepton.text.predictor import TextPredictor
from openlepton.text.sentences import sentences, shortened
from openlepton.text.translate_tokens import Pieces, open_pieces

MODEL = ("model.bin", "config.json")
"""Files of the engine that every model has, beside its vocabulary."""
VOCABULARIES = ("shared_vocabulary.json", "source_vocabulary.json", "target_vocabulary.json")

LONGEST = 128
"""Pieces of a sentence that a model sees at once, unless its card says otherwise."""
BATCH_PIECES = 2048
"""Pieces that go through the engine together, padding included."""

_IN_MEMORY = 32 << 20  # bytes of a model
_CHARACTERS = 6  # of a piece, at most, so that a tokenizer is not given much more than the model can see
_LOOPS = 4  # times that the same pieces in a row make a loop
_LOOP_LENGTHS = range(1, 13)  # pieces that such a loop may be long
_UNSPACED = frozenset(("zh", "ja", "th"))  # languages that put no blank between sentences
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


@dataclass(frozen=True)
class _Part:
    """One part of a text: what the model gets, if anything, and what is around it."""

    before: str
    words: str
    """"" where nothing is to translate."""
    after: str
    pieces: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Sentence:
    """What came out of the engine for one part."""

    text: str
    total: float
    """Logarithm of the probabilities of all pieces together."""
    pieces: int
    complete: bool


@dataclass(frozen=True, eq=False)
class Translator(TextPredictor[Translation]):
    """A loaded translator: call it with one text, with `batch`, or with `stream`; safe from any number of threads.

    A text may be of any length; blanks, line breaks and what has no words stay as they are.
    """

    TOGETHER = 64

    card: ModelCard
    engine: Any
    """What CTranslate2 calls a Translator."""
    pieces: Pieces
    beam: int
    """Hypotheses kept at each step; 1 is greedy."""
    longest: int
    """Pieces that the model sees at once."""

    @property
    def pair(self) -> tuple[str, str]:
        """The language it reads and the one it writes."""
        assert self.card.translate is not None
        return self.card.translate.source, self.card.translate.target

    def batch(self, texts: Sequence[str]) -> list[Translation]:
        """Return one translation for each text, in order, each what the text gives alone.

        Sentences of like length go through the engine together, so that a long text does not make short ones slow.

        Raises:
            UsageError: One of them is not a string.
        """
        parts = [self._parts(text) for text in texts]
        flat = [part for found in parts for part in found if part.words]
        done = iter(self._translated([part.pieces for part in flat]))
        return [self._joined(found, done) for found in parts]

    def _parts(self, text: str) -> list[_Part]:
        if not isinstance(text, str):
            raise UsageError(f"text: expected a string, got {type(text).__name__}")
        clean = unicodedata.normalize("NFC", _CONTROL.sub("", text))
        found = [self._part(part) for line in sentences(clean) for part in shortened(line, _CHARACTERS * self.longest)]
        rows = [row for row, part in enumerate(found) if part.words]
        encoded = self.pieces.encode([found[row].words for row in rows]) if rows else []
        for row, pieces in zip(reversed(rows), reversed(encoded), strict=True):
            found[row : row + 1] = self._fitting(found[row], pieces)
        return found

    @staticmethod
    def _part(text: str) -> _Part:
        body = text.strip()
        if not any(character.isalnum() for character in body):
            return _Part(text, "", "")
        start = text.index(body)
        return _Part(text[:start], body, text[start + len(body) :])

    def _fitting(self, part: _Part, pieces: list[str]) -> list[_Part]:
        """Return `part` with its pieces, in several where the model would not see all of them."""
        if len(pieces) <= self.longest:
            return [_Part(part.before, part.words, part.after, tuple(pieces))]
        cut = list(shortened(part.words, max(len(part.words) * self.longest // (len(pieces) + 8), 1)))
        if len(cut) == 1:  # one character of many pieces
            return [_Part(part.before, part.words, part.after, (*pieces[: self.longest - 1], pieces[-1]))]
        rows = [self._part(text) for text in cut]
        rows[0] = _Part(part.before + rows[0].before, rows[0].words, rows[0].after)
        rows[-1] = _Part(rows[-1].before, rows[-1].words, rows[-1].after + part.after)
        encoded = iter(self.pieces.encode([row.words for row in rows if row.words]))
        return [fit for row in rows for fit in (self._fitting(row, next(encoded)) if row.words else [row])]

    def _translated(self, sources: Sequence[tuple[str, ...]]) -> list[_Sentence]:
        """Return what the engine says to each source; equal sources are translated once."""
        groups: dict[int, dict[tuple[str, ...], None]] = {}
        for source in sources:
            groups.setdefault(limit(len(source)), {})[source] = None
        known: dict[tuple[str, ...], _Sentence] = {}
        for most, group in groups.items():
            known |= zip(group, self._run(list(group), most), strict=True)
        return [known[source] for source in sources]

    def _run(self, sources: list[tuple[str, ...]], limit: int) -> list[_Sentence]:
        found = self._search(sources, limit, beam_size=self.beam)
        loops = [row for row, (pieces, _) in enumerate(found) if len(pieces) >= limit or _loop(pieces)]
        loops = [row for row in loops if not _loop(sources[row][:-1])]
        if loops:  # again, where no three pieces may come twice
            again = self._search(
                [sources[row] for row in loops], limit, beam_size=max(self.beam, 2), no_repeat_ngram_size=3
            )
            for row, better in zip(loops, again, strict=True):
                found[row] = better
        return [
            _Sentence(self.pieces.decode(pieces), score * max(len(pieces), 1), max(len(pieces), 1), len(pieces) < limit)
            for pieces, score in found
        ]

    def _search(self, sources: list[tuple[str, ...]], limit: int, **options: Any) -> list[tuple[list[str], float]]:
        """Return the best pieces for each source and the mean logarithm of their probabilities."""
        try:
            results = self.engine.translate_batch(
                [list(source) for source in sources],
                max_batch_size=BATCH_PIECES,
                batch_type="tokens",
                max_decoding_length=limit,
                return_scores=True,
                **options,
            )
        except (RuntimeError, ValueError) as error:
            raise ModelFailed(f"{self.card.name}: the engine failed: {error}") from None
        return [(list(result.hypotheses[0]), float(result.scores[0])) for result in results]

    def _joined(self, parts: Sequence[_Part], done: Iterator[_Sentence]) -> Translation:
        source, target = self.pair
        text, total, count, complete = list[str](), 0.0, 0, True
        for row, part in enumerate(parts):
            text.append(part.before)
            if not part.words:
                continue
            sentence = next(done)
            text += [sentence.text, _blank(part.after, target, last=row + 1 == len(parts))]
            total, count = total + sentence.total, count + sentence.pieces
            complete = complete and sentence.complete
        score = math.exp(min(total / count, 0.0)) if count else 1.0
        return Translation("".join(text), score, source, target, complete)


def limit(length: int) -> int:
    """Return how many pieces the translation of `length` pieces may have: it depends on nothing else in the batch."""
    return 2 * (1 << max(math.ceil(math.log2(length)), 4)) + 16


def _loop(pieces: Sequence[str]) -> bool:
    """Return whether `pieces` end in the same few, again and again."""
    for length in _LOOP_LENGTHS:
        times = _LOOPS if length > 2 else 2 * _LOOPS
        tail = pieces[-length * times :]
        if len(tail) == length * times and all(tail[row] == tail[row % length] for row in range(len(tail))):
            return True
    return False


def _blank(after: str, target: str, *, last: bool) -> str:
    """Return what stands between two sentences of `target` where the source had `after`."""
    if last or "\n" in after or "\r" in after:
        return after
    return "" if target in _UNSPACED else after or " "


def open_translator(
    folder: ModelFolder, *, beam: int | None = None, threads: int = 0, compute: str = "default"
) -> Translator:
    """Return the translator in a model folder, of whose files every byte was checked.

    Args:
        folder: Whose card's task is translate.
        beam: Hypotheses kept at each step, 1 is greedy; what the card says by default.
        threads: Processor threads; all cores by default.
        compute: What CTranslate2 calls compute type: default, float32, int8.

    Raises:
        UsageError: The model does not translate, or an option is out of range.
        ModelCorrupt: A file differs from its card.
        ModelFailed: The engine could not load the model.
        MissingExtra: CTranslate2 or SentencePiece is not installed.
    """
    facts = folder.card.translate
    if facts is None:
        raise UsageError(f"{folder.card.name}: its task is {folder.card.task}: it does not translate")
    beam = facts.beam if beam is None else beam
    if not 1 <= beam <= 64:
        raise UsageError(f"beam: expected 1 to 64, got {beam}")
    try:
        import ctranslate2
    except ModuleNotFoundError as error:
        raise missing_extra(error.name, "text") from None
    start = partial(ctranslate2.Translator, device="cpu", intra_threads=threads, compute_type=compute)
    try:
        engine = _started(folder, start)
    except (RuntimeError, ValueError) as error:
        raise ModelFailed(f"{folder.card.name}: the engine does not take it: {error}") from None
    longest = folder.card.text.max_tokens if folder.card.text is not None else None
    return Translator(folder.card, engine, open_pieces(folder), beam, longest or LONGEST)


def _started(folder: ModelFolder, start: Callable[..., Any]) -> Any:
    """Return the engine with the folder's model, of which it gets what was checked and nothing else.

    Files in memory it copies: large ones it reads from a copy in a folder of our own, in half of the memory.
    """
    names = [*MODEL, *(name for name in VOCABULARIES if name in folder.card.files)]
    if sum(folder.card.files[name].size for name in names if name in folder.card.files) > _IN_MEMORY:
        with (
            suppress(OSError),
            TemporaryDirectory(prefix="openlepton-") as private,
        ):  # where nothing can be written: below
            for name in names:
                folder.copy(name, Path(private) / name)
            return start(private)
    return start(str(folder.path), files={name: folder.read(name) for name in names})
