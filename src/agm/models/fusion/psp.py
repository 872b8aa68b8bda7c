"""Positive sample propagation: Zhou et al., 'Positive Sample Propagation along the Audio-Visual Event Line', CVPR 2021,
behind the audio-guided attention of Tian et al., 'Audio-Visual Event Localization in Unconstrained Videos', ECCV 2018.

For sound a_t and the regions v_t,r of the picture in segment t:

    a_t ← P_a a_t
    x_t,r = w · tanh(Q_v relu(U_v v_t,r) + Q_a relu(U_a a_t))     v_t = P_v Σ_r softmax_r(x_t,r) v_t,r
    a, v ← BiLSTM_a(a), BiLSTM_v(v)                               d numbers each
    β = relu(A_v v) relu(A_a a)ᵀ / √d                             similarity of every pair of segments
    γ^va = ‖‖β‖ · 1[‖β‖ > τ]‖,  γ^av of βᵀ likewise               ‖·‖: each row divided by its sum
    v' = LN(relu(F_v (v + γ^va relu(B_a a))))                     a' = LN(relu(F_a (a + γ^av relu(B_v v))))
    Z = mean_t relu(L ½(a'_t + v'_t))                             f = W Z + b = the mean of the segments' scores

This is classification of clips. The published AVE figures are of localisation: a class, or background, for each
segment, from labels for each. A clip has one label here, so the scores are averaged over its segments, there is no
background, and the loss on the similarity of a' and v', which needs to know the segments with an event, is left out.

Deviation: P_a and P_v are one linear map each, where the published network has two with nothing between them.
"""

from typing import Self

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from agm.models.encoders import initialise
from agm.models.fusion.base import Features, Mixed


class Psp(Mixed):
    """Exactly two modalities, `[B, T, D_a]` and `[B, T, regions · D_v]`, to Z `[B, fused]`."""

    sequential = True

    def __init__(
        self,
        dims: dict[str, int],
        classes: int,
        *,
        regions: int = 49,
        attention: int = 512,
        hidden: int = 128,
        fused: int = 64,
        threshold: float = 0.099,
        dropout: float = 0.1,
    ) -> None:
        super().__init__(dims, classes)
        if len(dims) != 2:
            raise ValueError(f"Psp reads exactly two modalities, found {len(dims)}: {', '.join(dims)}")
        sound, picture = dims.values()
        self.regions = regions
        picture //= regions
        self.sound_in = nn.Linear(sound, hidden, bias=False)
        self.picture_in = nn.Linear(picture, hidden, bias=False)
        self.look = RegionAttention(hidden, picture, attention, regions)
        self.sound_lstm, self.picture_lstm = BiLstm(hidden), BiLstm(hidden)
        self.propagate = Propagation(2 * hidden, threshold, dropout)
        self.last = nn.Linear(2 * hidden, fused, bias=False)
        self.classifier = nn.Linear(fused, classes)
        initialise(self)

    def fuse(self, features: Features) -> Tensor:
        sound, pictures = features.values()
        sound = self.sound_in(sound)
        picture = self.picture_in(self.look(sound, pictures.unflatten(2, (self.regions, -1))))
        sound, picture = self.propagate(self.sound_lstm(sound)[0], self.picture_lstm(picture)[0])
        return self.last((sound + picture) / 2).relu().mean(dim=1)


class RegionAttention(nn.Module):
    """What the sound makes the eye look at: `[B, T, D_a]` and `[B, T, R, D_v]` to `[B, T, D_v]`."""

    def __init__(self, sound: int, picture: int, width: int, inner: int) -> None:
        super().__init__()
        self.from_sound, self.from_region = nn.Linear(sound, width), nn.Linear(picture, width)
        self.sound_part, self.region_part = (nn.Linear(width, inner, bias=False) for _ in range(2))
        self.score = nn.Linear(inner, 1, bias=False)

    def forward(self, sound: Tensor, regions: Tensor) -> Tensor:
        heard = self.sound_part(self.from_sound(sound).relu()).unsqueeze(2)
        score = self.score((self.region_part(self.from_region(regions).relu()) + heard).tanh())
        return (score.softmax(dim=2) * regions).sum(dim=2)


class Propagation(nn.Module):
    """Each modality's segments `[B, T, d]`, with what the other's similar enough segments add to them."""

    def __init__(self, dim: int, threshold: float, dropout: float) -> None:
        super().__init__()
        self.threshold = threshold
        self.sound_key, self.picture_key, self.sound_value, self.picture_value, self.sound_out, self.picture_out = (
            nn.Sequential(nn.Linear(dim, dim, bias=False), nn.ReLU(), nn.Dropout(dropout)) for _ in range(6)
        )
        self.norm = nn.LayerNorm(dim, eps=1e-6)

    def forward(self, sound: Tensor, picture: Tensor) -> tuple[Tensor, Tensor]:
        similarity = self.picture_key(picture) @ self.sound_key(sound).transpose(1, 2) / sound.shape[2] ** 0.5
        heard = self._positive(similarity) @ self.sound_value(sound)
        seen = self._positive(similarity.transpose(1, 2)) @ self.picture_value(picture)
        return self.norm(self.sound_out(sound + seen)), self.norm(self.picture_out(picture + heard))

    def _positive(self, similarity: Tensor) -> Tensor:
        """Rows that add up to one over the pairs above the threshold."""
        share = normalize(similarity, p=1, dim=2)
        return normalize(torch.where(share > self.threshold, share, 0.0), p=1, dim=2)


class BiLstm(nn.LSTM):
    """`[B, T, hidden] → [B, T, 2 · hidden]`, both directions.

    Always in training mode, which changes nothing in a single layer: cuDNN knows no gradient in evaluation mode, where
    AGM's masked passes run.
    """

    def __init__(self, hidden: int) -> None:
        super().__init__(hidden, hidden, batch_first=True, bidirectional=True)

    def train(self, mode: bool = True) -> Self:
        return super().train(True)
