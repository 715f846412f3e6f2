"""Encoders as classifiers of texts: texts to ids, ids of like length through a runtime together, scores out."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from openlepton.arrays import Array, Floats, Tensors
from openlepton.card import ModelFolder
from openlepton.text.tokens import TOKENIZER, Tokens, read_tokens

BATCH_TOKENS = 256
"""Ids that go through the graph together, padding included: what more of them fill no longer fits into a core's cache."""
PADDING = 4
"""A text is padded to a multiple of so many ids, a long one to an eighth of its length."""
MAX_TOKENS = 512


class Runtime(Protocol):
    """Runs a graph; may be called from many threads at once."""

    def __call__(self, inputs: Mapping[str, Array]) -> Tensors:
        """Return the graph's outputs by name."""


@dataclass(frozen=True, eq=False)
class Encoder:
    """A tokenizer and the graph behind it; called with texts it gives their scores, from any number of threads."""

    tokens: Tokens
    runtime: Runtime
    classes: int
    workers: int = 1
    """Groups of texts that go through the graph at the same time: one on each core does more than one on all of them."""

    def __call__(self, texts: list[str]) -> Floats:
        """Return `(N, C)` scores, 0..1. Texts of like length go together: a long one makes no short one slow."""
        encoded = self.tokens.encode(texts)
        scores = np.zeros((len(texts), self.classes), np.float32)
        lengths = [min(padded(len(ids)), self.tokens.max_tokens) for ids in encoded]
        work = groups(lengths)

        def run(rows: list[int]) -> Floats:
            ids = np.zeros((len(rows), lengths[rows[0]]), np.int64)  # (B, T)
            mask = np.zeros_like(ids)
            for number, row in enumerate(rows):
                ids[number, : len(encoded[row])] = encoded[row]
                mask[number, : len(encoded[row])] = 1
            return self.runtime({"input_ids": ids, "attention_mask": mask})["scores"]

        with ThreadPoolExecutor(
            self.workers, thread_name_prefix="openlepton"
        ) as pool:  # starts no thread before it must
            each = pool.map if min(len(work), self.workers) > 1 else map
            for rows, found in zip(work, each(run, work), strict=True):
                scores[rows] = found
        return scores


def padded(length: int) -> int:
    """Return how many ids a text of `length` goes through the graph as: it depends on nothing else, so that no score does either.

    >>> [padded(length) for length in (2, 27, 33, 100)]
    [4, 28, 36, 104]
    """
    step = max(PADDING, (1 << length.bit_length()) // 16)
    return -(-length // step) * step


def groups(lengths: Sequence[int]) -> list[list[int]]:
    """Return rows in batches of one length and of at most `BATCH_TOKENS`, longest first."""
    by_length: dict[int, list[int]] = {}
    for row in sorted(range(len(lengths)), key=lambda row: -lengths[row]):
        by_length.setdefault(lengths[row], []).append(row)
    found = list[list[int]]()
    for length, rows in by_length.items():
        size = max(BATCH_TOKENS // length, 1)
        found += [rows[start : start + size] for start in range(0, len(rows), size)]
    return found


def open_encoder(folder: ModelFolder, runtime: Runtime, workers: int = 1) -> Encoder:
    """Return the classifier of a model folder around the graph that `runtime` runs, with so many groups of texts at a time.

    Raises:
        ModelCorrupt: The tokenizer differs from the card.
        ModelFormatRefused: It is not a tokenizer.
        MissingExtra: tokenizers is not installed.
    """
    facts = folder.card.text
    longest = facts.max_tokens if facts is not None else None
    tokens = read_tokens(folder.read(TOKENIZER), longest or MAX_TOKENS, str(folder.path / TOKENIZER))
    return Encoder(tokens, runtime, len(folder.card.labels), workers)
