"""BERT, the encoder of texts, with a head that classifies (Devlin et al., "BERT", 2019).

Read top to bottom: config, embeddings, layers, the network, what it says in the end. Letters in shapes: `T` tokens of the
longest text of the batch, `D` width, `A` heads.
"""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Pooling = Literal["mean", "first"]


@dataclass(frozen=True)
class BertConfig:
    """Sizes of a BERT and of what classifies with it."""

    vocabulary: int = 30522
    width: int = 384
    layers: int = 6
    heads: int = 12
    hidden: int = 1536
    """Width between the two linear maps of a layer."""
    positions: int = 512
    """The most tokens of a text."""
    types: int = 2
    epsilon: float = 1e-12
    """Of the layer norms."""
    dropout: float = 0.1
    classes: int = 2
    multi_label: bool = False
    """Whether classes do not exclude each other: sigmoids instead of a softmax."""
    pooling: Pooling = "mean"
    """What stands for the whole text: the mean of its tokens, or the first one through a `tanh` layer, as in the paper."""


class Embeddings(nn.Module):
    """Tokens to vectors: `(B, T)` ids to `(B, T, D)`."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.tokens = nn.Embedding(config.vocabulary, config.width)
        self.positions = nn.Embedding(config.positions, config.width)
        self.types = nn.Embedding(config.types, config.width)
        self.norm = nn.LayerNorm(config.width, config.epsilon)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, ids: Tensor) -> Tensor:
        """Return the embedded tokens, all of the first type: there is one text, not a pair."""
        places = self.positions.weight[: ids.shape[1]] + self.types.weight[0]  # (T, D)
        found: Tensor = self.dropout(self.norm(self.tokens(ids) + places))
        return found


class Layer(nn.Module):
    """Every token looks at every other, then each is mapped on its own: `(B, T, D)` to the same."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.query = nn.Linear(config.width, config.width)
        self.key = nn.Linear(config.width, config.width)
        self.value = nn.Linear(config.width, config.width)
        self.joined = nn.Linear(config.width, config.width)
        self.norm = nn.LayerNorm(config.width, config.epsilon)
        self.wide = nn.Linear(config.width, config.hidden)
        self.narrow = nn.Linear(config.hidden, config.width)
        self.last_norm = nn.LayerNorm(config.width, config.epsilon)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Return `x` after the layer; `mask` `(B, 1, 1, T)` is added to what heads attend to, minus much where nothing is."""
        query, key, value = (self._split(part(x)) for part in (self.query, self.key, self.value))  # (B, A, T, D/A)
        drop = self.dropout.p if self.training else 0.0
        seen = F.scaled_dot_product_attention(query, key, value, mask, drop)  # (B, A, T, D/A)
        x = self.norm(x + self.dropout(self.joined(seen.transpose(1, 2).flatten(2))))
        found: Tensor = self.last_norm(x + self.dropout(self.narrow(F.gelu(self.wide(x)))))
        return found

    def _split(self, x: Tensor) -> Tensor:
        B, T, D = x.shape
        return x.reshape(B, T, self.heads, D // self.heads).transpose(1, 2)


class Bert(nn.Module):
    """An encoder of texts and its classifier: ids and mask in, probabilities out."""

    outputs = ("scores",)

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.config = config
        self.embeddings = Embeddings(config)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.layers))
        self.pooler = nn.Linear(config.width, config.width) if config.pooling == "first" else None
        self.dropout = nn.Dropout(config.dropout)
        self.classifier = nn.Linear(config.width, config.classes)
        self.register_buffer("temperature", torch.ones(()))  # probabilities are those of `logits / temperature`
        self.temperature: Tensor
        self.apply(_start)

    def encode(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Return `(B, T, D)` what each token means in its text.

        Args:
            ids: `(B, T)` tokens.
            mask: `(B, T)` 1 where there is a token, 0 where the text has ended.
        """
        x = self.embeddings(ids)
        unseen = (1 - mask[:, None, None, :].to(x.dtype)) * -1e4  # (B, 1, 1, T)
        for layer in self.layers:
            x = layer(x, unseen)
        found: Tensor = x
        return found

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Return `(B, C)` logits, what training wants."""
        x = self.encode(ids, mask)
        if self.pooler is not None:
            x = torch.tanh(self.pooler(x[:, 0]))
        else:
            there = mask[:, :, None].to(x.dtype)
            x = (x * there).sum(1) / there.sum(1).clamp(min=1.0)
        found: Tensor = self.classifier(self.dropout(x))
        return found

    def decode(self, logits: Tensor) -> Tensor:
        """Return `(B, C)` probabilities, which sum to 1 unless classes do not exclude each other."""
        logits = logits / self.temperature
        return logits.sigmoid() if self.config.multi_label else logits.softmax(1)


def _start(module: nn.Module) -> None:
    """Set fresh weights as the paper does: normal, 0.02."""
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
    if isinstance(module, nn.Linear):
        nn.init.zeros_(module.bias)
