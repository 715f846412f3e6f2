"""The Transformer that translates (Vaswani et al. 2017), with layer norm before each sublayer (Xiong et al. 2020).

One table of embeddings serves source, target and output (Press and Wolf 2017). The modules and their fused projections are laid
out as CTranslate2 stores them, so that a trained network goes over tensor by tensor (hub/translator.py).
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from openlepton.errors import UsageError

PAD, UNKNOWN, BOS, EOS = 0, 1, 2, 3
"""Rows of the vocabulary that every tokenizer of this network has: padding, unknown, begin and end of a sentence."""


@dataclass(frozen=True)
class Config:
    """What distinguishes one of these networks from another.

    Attributes:
        vocabulary: Number of pieces, source and target together.
        width: Width of the model.
        heads: Number of heads of attention; divides `width`.
        inner: Width between the two layers of each feed-forward block.
        encoder_layers: Number of layers that read the source.
        decoder_layers: Number of layers that write the target.
        dropout: Share of what each sublayer adds that is dropped in training, 0..1.
        positions: The longest sequence, in pieces.
    """

    vocabulary: int
    width: int = 256
    heads: int = 4
    inner: int = 1024
    encoder_layers: int = 3
    decoder_layers: int = 3
    dropout: float = 0.1
    positions: int = 512

    def __post_init__(self) -> None:
        for name in ("vocabulary", "width", "heads", "inner", "encoder_layers", "decoder_layers", "positions"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name}: expected at least 1, got {getattr(self, name)}")
        if self.width % (2 * self.heads):
            raise UsageError(f"width: expected a multiple of twice {self.heads} heads, got {self.width}")
        if not 0 <= self.dropout < 1:
            raise UsageError(f"dropout: expected 0 to less than 1, got {self.dropout}")


def sinusoids(positions: int, width: int) -> Tensor:
    """Return the encodings of positions, `(positions, width)`: sines, then cosines, of wavelengths from 2 pi to 20,000 pi."""
    rates = torch.exp(torch.arange(width // 2) * (-math.log(10_000.0) / (width // 2 - 1)))  # (width / 2)
    angles = torch.arange(positions).float()[:, None] * rates  # (positions, width / 2)
    return torch.cat((angles.sin(), angles.cos()), 1)


class Attention(nn.Module):
    """Multi-head attention from `(B, T, D)` to itself, or to a memory `(B, S, D)`."""

    def __init__(self, config: Config, *, crossed: bool = False) -> None:
        super().__init__()
        D = config.width
        self.heads, self.crossed = config.heads, crossed
        self.norm = nn.LayerNorm(D)
        if crossed:
            self.query, self.key_value = nn.Linear(D, D), nn.Linear(D, 2 * D)
        else:
            self.query_key_value = nn.Linear(D, 3 * D)
        self.out = nn.Linear(D, D)

    def forward(
        self, x: Tensor, memory: Tensor | None = None, mask: Tensor | None = None, *, causal: bool = False
    ) -> Tensor:
        """Return what to add to `x`, `(B, T, D)`; `mask` `(B, 1, 1, S)` is true where there is something to see."""
        B, T, D = x.shape
        y = self.norm(x)
        if self.crossed:
            assert memory is not None
            query, (key, value) = self.query(y), self.key_value(memory).chunk(2, -1)
        else:
            query, key, value = self.query_key_value(y).chunk(3, -1)
        q, k, v = (
            t.view(B, -1, self.heads, D // self.heads).transpose(1, 2) for t in (query, key, value)
        )  # (B, H, T, D/H)
        seen = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal)
        result: Tensor = self.out(seen.transpose(1, 2).reshape(B, T, D))
        return result


class FeedForward(nn.Module):
    """Two linear layers with ReLU between, on each position of `(B, T, D)`."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(config.width)
        self.wide, self.narrow = nn.Linear(config.width, config.inner), nn.Linear(config.inner, config.width)

    def forward(self, x: Tensor) -> Tensor:
        """Return what to add to `x`, `(B, T, D)`."""
        y: Tensor = self.narrow(F.relu(self.wide(self.norm(x))))
        return y


class EncoderLayer(nn.Module):
    """`(B, S, D)` to `(B, S, D)`: attention to itself, feed-forward."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.attention, self.ffn = Attention(config), FeedForward(config)
        self.drop = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Return `(B, S, D)`."""
        x = x + self.drop(self.attention(x, mask=mask))
        y: Tensor = x + self.drop(self.ffn(x))
        return y


class DecoderLayer(nn.Module):
    """`(B, T, D)` to `(B, T, D)`: attention to what went before, attention to the source, feed-forward."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.attention, self.source = Attention(config), Attention(config, crossed=True)
        self.ffn = FeedForward(config)
        self.drop = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, memory: Tensor, mask: Tensor | None) -> Tensor:
        """Return `(B, T, D)`."""
        x = x + self.drop(self.attention(x, causal=True))
        x = x + self.drop(self.source(x, memory, mask))
        y: Tensor = x + self.drop(self.ffn(x))
        return y


class Transformer(nn.Module):
    """An encoder and a decoder; calling it gives the decoder's states, `logits` turns states into scores of pieces."""

    positions: Tensor

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocabulary, config.width)
        self.encoder = nn.ModuleList(EncoderLayer(config) for _ in range(config.encoder_layers))
        self.decoder = nn.ModuleList(DecoderLayer(config) for _ in range(config.decoder_layers))
        self.encoder_norm, self.decoder_norm = nn.LayerNorm(config.width), nn.LayerNorm(config.width)
        self.bias = nn.Parameter(torch.zeros(config.vocabulary))
        self.drop = nn.Dropout(config.dropout)
        self.register_buffer("positions", sinusoids(config.positions, config.width), persistent=False)
        self._initialise()

    def _initialise(self) -> None:
        nn.init.normal_(self.embedding.weight, std=self.config.width**-0.5)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)

    def embed(self, pieces: Tensor) -> Tensor:
        """Return `(B, T)` pieces as `(B, T, D)`."""
        x = self.embedding(pieces) * math.sqrt(self.config.width) + self.positions[: pieces.shape[1]]
        y: Tensor = self.drop(x)
        return y

    def encode(self, source: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return what `source` `(B, S)` means, `(B, S, D)`, and where it is not padding, `(B, 1, 1, S)`, None for everywhere."""
        real = source != PAD
        mask = None if bool(real.all()) else real[:, None, None, :]
        x = self.embed(source)
        for layer in self.encoder:
            x = layer(x, mask)
        return self.encoder_norm(x), mask

    def decode(self, target: Tensor, memory: Tensor, mask: Tensor | None) -> Tensor:
        """Return the states `(B, T, D)` after each piece of `target` `(B, T)`, which sees only what went before."""
        x = self.embed(target)
        for layer in self.decoder:
            x = layer(x, memory, mask)
        y: Tensor = self.decoder_norm(x)
        return y

    def logits(self, states: Tensor) -> Tensor:
        """Return `(..., D)` states as `(..., V)` scores of the next piece."""
        return F.linear(states, self.embedding.weight, self.bias)

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        """Return the states `(B, T, D)` for `source` `(B, S)` and what the decoder is given, `target` `(B, T)`."""
        return self.decode(target, *self.encode(source))
