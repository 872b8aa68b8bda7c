"""Fusions: every modality's feature to logits, by way of the fused feature Z that the competition metric probes.

`fuse`: `{m: [B, D_m]} → Z [B, D]`; `classify`: `Z → [B, C]`. `classifiers` are the linear layers that end in logits.
"""

from itertools import pairwise

import torch
from torch import Tensor, nn

from agm.config import schema
from agm.models.encoders import initialise


class LateConcat(nn.Module):
    """f = W [h_1 … h_M] + b; Z = [h_1 … h_M]."""

    late = True

    def __init__(self, dims: dict[str, int], classes: int) -> None:
        super().__init__()
        self.classifier = nn.Linear(sum(dims.values()), classes)
        initialise(self)

    @property
    def classifiers(self) -> list[nn.Linear]:
        return [self.classifier]

    def fuse(self, features: dict[str, Tensor]) -> Tensor:
        return torch.cat(list(features.values()), dim=1)

    def classify(self, fused: Tensor) -> Tensor:
        return self.classifier(fused)

    def forward(self, features: dict[str, Tensor]) -> Tensor:
        return self.classify(self.fuse(features))


class LateSum(LateConcat):
    """f = Σ_m (W_m h_m + b_m); Z = [h_1 … h_M], what the classifiers see."""

    def __init__(self, dims: dict[str, int], classes: int) -> None:
        nn.Module.__init__(self)
        self.dims = list(dims.values())
        self.heads = nn.ModuleDict({name: nn.Linear(dim, classes) for name, dim in dims.items()})
        initialise(self)

    @property
    def classifiers(self) -> list[nn.Linear]:
        return list(self.heads.values())

    def classify(self, fused: Tensor) -> Tensor:
        parts = fused.split(self.dims, dim=1)
        return torch.stack([head(part) for head, part in zip(self.classifiers, parts, strict=True)]).sum(dim=0)


class Early(LateConcat):
    """f = W Z + b with Z = MaxOut([h_1 … h_M]): the modalities interact before the classifier."""

    late = False

    def __init__(self, dims: dict[str, int], classes: int, config: schema.Early) -> None:
        nn.Module.__init__(self)
        widths = [sum(dims.values()), *config.hidden]
        self.mixer = nn.Sequential(
            *(
                layer
                for before, after in pairwise(widths)
                for layer in (
                    MaxOut(before, after, config.pieces),
                    nn.BatchNorm1d(after),
                    nn.Dropout(config.dropout),
                )
            )
        )
        self.classifier = nn.Linear(widths[-1], classes)
        initialise(self)

    def fuse(self, features: dict[str, Tensor]) -> Tensor:
        return self.mixer(super().fuse(features))


class MaxOut(nn.Module):
    """The largest of `pieces` linear maps, unit by unit: `[B, before] → [B, after]` (Goodfellow et al., 2013)."""

    def __init__(self, before: int, after: int, pieces: int) -> None:
        super().__init__()
        self.pieces = pieces
        self.linear = nn.Linear(before, after * pieces)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x).unflatten(1, (-1, self.pieces)).amax(dim=2)


def build_fusion(config: schema.Fusion, dims: dict[str, int], classes: int) -> LateConcat:
    """The fusion that `config` describes, for features of sizes `dims`."""
    if isinstance(config, schema.LateSum):
        return LateSum(dims, classes)
    if isinstance(config, schema.Early):
        return Early(dims, classes, config)
    return LateConcat(dims, classes)
