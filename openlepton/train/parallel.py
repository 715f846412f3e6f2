"""Pairs of sentences to learn translation from: a tokenizer learned from both sides, and pairs as its pieces."""

import io
from collections.abc import Iterable, Sequence
from typing import Any

from openlepton.errors import DataError, missing_extra
from openlepton.nets.transformer import BOS, EOS, PAD, UNKNOWN
from openlepton.text.translate_tokens import spaced
from openlepton.train.translating import Encoded

MAX_CHARACTERS = 4096
"""A longer sentence is left out of what a tokenizer learns from."""


def learn_pieces(texts: Iterable[str], vocabulary: int, *, threads: int = 1, seed: int = 0) -> bytes:
    """Return a SentencePiece model (unigram, Kudo 2018) of at most `vocabulary` pieces, 256 of them bytes.

    Rare characters are spelled in bytes. The others stay as they are: full-width punctuation is not folded into ASCII,
    as Unicode's NFKC would.

    Raises:
        DataError: There is no text, or more different characters than pieces.
        MissingExtra: SentencePiece is not installed.
    """
    try:
        import sentencepiece
    except ModuleNotFoundError as error:
        raise missing_extra(error.name, "text") from None
    sentencepiece.set_random_generator_seed(seed)
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=(spaced(text) for text in texts if len(text) <= MAX_CHARACTERS),
            model_writer=model,
            vocab_size=vocabulary,
            model_type="unigram",
            byte_fallback=True,
            character_coverage=0.9995,
            hard_vocab_limit=False,
            normalization_rule_name="identity",
            add_dummy_prefix=False,
            remove_extra_whitespaces=False,
            split_digits=True,
            pad_id=PAD,
            unk_id=UNKNOWN,
            bos_id=BOS,
            eos_id=EOS,
            num_threads=threads,
            minloglevel=2,
        )
    except RuntimeError as error:
        raise DataError(f"no tokenizer of {vocabulary} pieces comes out of these texts: {error}") from None
    return model.getvalue()


def open_tokenizer(model: bytes) -> Any:
    """Return the SentencePiece processor of a model.

    Raises:
        MissingExtra: SentencePiece is not installed.
    """
    try:
        import sentencepiece
    except ModuleNotFoundError as error:
        raise missing_extra(error.name, "text") from None
    return sentencepiece.SentencePieceProcessor(model_proto=model)


def encoded(pairs: Sequence[tuple[str, str]], tokenizer: Any) -> list[Encoded]:
    """Return each pair as the pieces of its source and of its target, each with the end after it."""
    sides = [tokenizer.encode([spaced(pair[side]) for pair in pairs], out_type=int, add_eos=True) for side in (0, 1)]
    return list(zip(*sides, strict=True))
