"""Gated Multimodal Unit: Arevalo et al., 'Gated Multimodal Units for Information Fusion', ICLR workshop 2017, in its
form for any number of modalities, with a gate for each.

    g_m = σ(Y_m [h_1 … h_M] + y_m)        Z = Σ_m g_m ⊙ tanh(W_m h_m + w_m)        f = W Z + b
"""

import torch
from torch import Tensor, nn

from agm.models.encoders import initialise
from agm.models.fusion.base import Features, Mixed


class Gated(Mixed):
    """A sum of the modalities' projections, each weighted number by number by a gate that sees all features."""

    def __init__(self, dims: dict[str, int], classes: int, *, hidden: int = 512) -> None:
        super().__init__(dims, classes)
        self.projections = nn.ModuleList(nn.Linear(dim, hidden) for dim in dims.values())
        self.gates = nn.Linear(sum(dims.values()), len(dims) * hidden)
        self.classifier = nn.Linear(hidden, classes)
        initialise(self)

    def fuse(self, features: Features) -> Tensor:
        parts = [project(h).tanh() for project, h in zip(self.projections, features.values(), strict=True)]
        gates = self.gates(torch.cat(list(features.values()), dim=1)).sigmoid().chunk(len(parts), dim=1)
        return torch.stack([gate * part for gate, part in zip(gates, parts, strict=True)]).sum(dim=0)
