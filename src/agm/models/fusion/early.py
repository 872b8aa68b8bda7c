"""Early fusion of the published experiments: a MaxOut network over the concatenated features."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from agm.models.encoders import initialise
from agm.models.fusion.base import Features, Mixed


class Early(Mixed):
    """f = W Z + b with Z = MaxOut(BatchNorm([h_1 … h_M])): the modalities interact before the classifier."""

    def __init__(
        self,
        dims: dict[str, int],
        classes: int,
        *,
        hidden: Sequence[int] = (2048, 1024),
        pieces: int = 2,
        dropout: float = 0.3,
    ) -> None:
        super().__init__(dims, classes)
        widths = [sum(dims.values()), *hidden]
        self.norm = nn.BatchNorm1d(widths[0], eps=1e-4)
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            layers += [MaxOut(before, after, pieces), nn.BatchNorm1d(after), nn.Dropout(dropout)]
        self.mixer = nn.Sequential(*layers)
        self.classifier = nn.Linear(widths[-1], classes)
        initialise(self)

    def fuse(self, features: Features) -> Tensor:
        return self.mixer(self.norm(torch.cat(list(features.values()), dim=1)))


class MaxOut(nn.Module):
    """The largest of `pieces` linear maps, unit by unit: `[B, before] → [B, after]` (Goodfellow et al., 2013)."""

    def __init__(self, before: int, after: int, pieces: int) -> None:
        super().__init__()
        self.pieces = pieces
        self.linear = nn.Linear(before, after * pieces)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x).unflatten(1, (-1, self.pieces)).amax(dim=2)
