"""Encoders as classifiers of texts: texts to ids, ids of like length through a runtime together, scores out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from openlepton.arrays import Array, Floats, Tensors
from openlepton.card import ModelFolder
from openlepton.text.tokens import TOKENIZER, Tokens, read_tokens

BATCH_TOKENS = 2048
"""Ids that go through the graph together, padding included: more cost memory and gain nothing."""
PADDING = 4
"""A text is padded by at most so many ids, or by an eighth of its own."""
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

    def __call__(self, texts: list[str]) -> Floats:
        """Return `(N, C)` scores, 0..1. Texts of like length go together: a long one makes no short one slow."""
        encoded = self.tokens.encode(texts)
        scores = np.zeros((len(texts), self.classes), np.float32)
        for rows in groups([len(ids) for ids in encoded]):
            ids = np.zeros((len(rows), max(len(encoded[row]) for row in rows)), np.int64)  # (B, T)
            mask = np.zeros_like(ids)
            for number, row in enumerate(rows):
                ids[number, : len(encoded[row])] = encoded[row]
                mask[number, : len(encoded[row])] = 1
            scores[rows] = self.runtime({"input_ids": ids, "attention_mask": mask})["scores"]
        return scores


def groups(lengths: Sequence[int]) -> list[list[int]]:
    """Return rows in batches of like length, at most `BATCH_TOKENS` with the padding, longest first."""
    order = sorted(range(len(lengths)), key=lambda row: -lengths[row])
    found, batch = list[list[int]](), list[int]()
    for row in order:
        if batch:
            longest, length = lengths[batch[0]], lengths[row]
            apart = longest - length > max(PADDING, length // 8)
            if apart or longest * (len(batch) + 1) > BATCH_TOKENS:
                found.append(batch)
                batch = []
        batch.append(row)
    return [*found, batch] if batch else found


def open_encoder(folder: ModelFolder, runtime: Runtime) -> Encoder:
    """Return the classifier of a model folder around the graph that `runtime` runs.

    Raises:
        ModelCorrupt: The tokenizer differs from the card.
        ModelFormatRefused: It is not a tokenizer.
        MissingExtra: tokenizers is not installed.
    """
    facts = folder.card.text
    longest = facts.max_tokens if facts is not None else None
    tokens = read_tokens(folder.read(TOKENIZER), longest or MAX_TOKENS, str(folder.path / TOKENIZER))
    return Encoder(tokens, runtime, len(folder.card.labels))
