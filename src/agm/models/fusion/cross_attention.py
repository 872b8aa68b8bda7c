"""Fusion by cross-modal attention, after Tsai et al., 'Multimodal Transformer for Unaligned Multimodal Language
Sequences', ACL 2019, and the co-attention of Delbrouck et al., 'A Transformer-based joint-encoding for Emotion
Recognition and Sentiment Analysis', Challenge-HML 2020.

Each modality's tokens are projected to one size, with sinusoidal positions. In every layer, x_m being the normalised
state of m (pre-norm) and [x_k] the others' one behind the other,

    s_m ← s_m + Attention(x_m, x_m)             its own tokens
    s_m ← s_m + Attention(x_m, [x_k]_{k ≠ m})   all others', as they are after the line above
    s_m ← s_m + FeedForward(x_m)

and Z = [mean_t x_1 … mean_t x_M] after the last. A token of exact zeros is padding, be it a place of an image of which
a ReLU encoder says nothing: it is neither attended to nor in the mean (`agm.models.tokens`).

Deviation: Delbrouck et al. have an LSTM before and a glimpse attention behind the layers; here the encoders and the
mean take their places.
"""

import math
from typing import cast

import torch
from torch import Tensor, nn

from agm.models.encoders import initialise
from agm.models.fusion.base import Features, Mixed
from agm.models.tokens import mean_of_kept, padding_of


class CrossAttention(Mixed):
    """A transformer over the tokens of all modalities, `{m: [B, T_m, D_m]} → Z [B, M · dim]`."""

    sequential = True

    def __init__(
        self,
        dims: dict[str, int],
        classes: int,
        *,
        dim: int = 512,
        num_heads: int = 4,
        num_layers: int = 6,
        dim_feedforward: int = 1024,
        dropout: float = 0.1,
    ) -> None:
        super().__init__(dims, classes)
        self.projections = nn.ModuleDict({name: nn.Linear(width, dim) for name, width in dims.items()})
        self.layers = nn.ModuleList(
            Layer(list(dims), dim, num_heads, dim_feedforward, dropout) for _ in range(num_layers)
        )
        self.norms = nn.ModuleDict({name: nn.LayerNorm(dim) for name in dims})
        self.classifier = nn.Linear(len(dims) * dim, classes)
        initialise(self)

    def fuse(self, features: Features) -> Tensor:
        padding = {name: padding_of(tokens) for name, tokens in features.items()}
        states = {name: self._placed(self.projections[name](tokens)) for name, tokens in features.items()}
        for layer in self.layers:
            states = layer(states, padding)
        means = [mean_of_kept(self.norms[name](state), padding[name]) for name, state in states.items()]
        return torch.cat(means, dim=1)

    @staticmethod
    def _placed(tokens: Tensor) -> Tensor:
        return tokens + positions(tokens.shape[1], tokens.shape[2], tokens.device).to(tokens.dtype)


class Layer(nn.Module):
    """One layer of all modalities."""

    def __init__(self, names: list[str], dim: int, num_heads: int, dim_feedforward: int, dropout: float) -> None:
        super().__init__()
        self.streams = nn.ModuleDict({name: Stream(dim, num_heads, dim_feedforward, dropout) for name in names})

    def stream(self, modality: str) -> "Stream":
        """A modality's part of the layer."""
        return cast(Stream, self.streams[modality])

    def forward(self, states: Features, padding: Features) -> Features:
        """`{m: [B, T_m, dim]}` and which tokens are padding, `{m: [B, T_m]}`, to the states after the layer."""
        states = {name: self.stream(name).see_own(state, padding[name]) for name, state in states.items()}
        seen = {name: self.stream(name).cross_norm(state) for name, state in states.items()}
        after = {}
        for name in states:
            others = [other for other in states if other != name]
            context = torch.cat([seen[other] for other in others], dim=1)
            hidden = torch.cat([padding[other] for other in others], dim=1)
            after[name] = self.stream(name).see_others(states[name], seen[name], context, hidden)
        return after


class Stream(nn.Module):
    """One modality's part of a layer."""

    def __init__(self, dim: int, num_heads: int, dim_feedforward: int, dropout: float) -> None:
        super().__init__()
        self.own = nn.MultiheadAttention(dim, num_heads, dropout, batch_first=True)
        self.others = nn.MultiheadAttention(dim, num_heads, dropout, batch_first=True)
        self.own_norm = nn.LayerNorm(dim)
        self.cross_norm = nn.LayerNorm(dim)
        self.last_norm = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(dropout)
        self.feedforward = nn.Sequential(
            nn.Linear(dim, dim_feedforward), nn.ReLU(), nn.Dropout(dropout), nn.Linear(dim_feedforward, dim)
        )

    def see_own(self, state: Tensor, padding: Tensor) -> Tensor:
        """The state after self-attention."""
        x = self.own_norm(state)
        return state + self.dropout(self.own(x, x, x, key_padding_mask=padding, need_weights=False)[0])

    def see_others(self, state: Tensor, x: Tensor, context: Tensor, padding: Tensor) -> Tensor:
        """The state after cross-attention from x, the normalised state, and the feed-forward network."""
        seen, _ = self.others(x, context, context, key_padding_mask=padding, need_weights=False)
        state = state + self.dropout(seen)
        return state + self.dropout(self.feedforward(self.last_norm(state)))


def positions(count: int, dim: int, device: torch.device) -> Tensor:
    """sin and cos of t / 10000^(2i / dim) for t < `count`, `[count, dim]` float64 (Vaswani et al., 2017)."""
    rates = torch.exp(torch.arange(0, dim, 2, device=device, dtype=torch.float64) * (-math.log(10000.0) / dim))
    angles = torch.arange(count, device=device).unsqueeze(1) * rates
    return torch.stack([angles.sin(), angles.cos()], dim=2).flatten(1)[:, :dim]
