"""Late fusions: the modalities meet in the classifier only."""

from typing import cast

import torch
from torch import Tensor, nn

from agm.models.encoders import initialise
from agm.models.fusion.base import Additive


class LateConcat(Additive):
    """f = W [h_1 … h_M] + b."""

    def __init__(self, dims: dict[str, int], classes: int) -> None:
        super().__init__(dims, classes)
        self.classifier = nn.Linear(sum(dims.values()), classes)
        initialise(self)

    @property
    def classifiers(self) -> list[nn.Linear]:
        return [self.classifier]

    def weights(self) -> dict[str, Tensor]:
        return dict(zip(self.dims, self.classifier.weight.split(list(self.dims.values()), dim=1), strict=True))

    def biases(self) -> dict[str, Tensor]:
        return dict.fromkeys(self.dims, self.classifier.bias / len(self.dims))

    def classify(self, fused: Tensor) -> Tensor:
        return self.classifier(fused)


class LateSum(Additive):
    """f = Σ_m (W_m h_m + b_m)."""

    def __init__(self, dims: dict[str, int], classes: int) -> None:
        super().__init__(dims, classes)
        self.heads = nn.ModuleDict({name: nn.Linear(dim, classes) for name, dim in dims.items()})
        initialise(self)

    def head(self, modality: str) -> nn.Linear:
        """The linear layer of a modality."""
        return cast(nn.Linear, self.heads[modality])

    @property
    def classifiers(self) -> list[nn.Linear]:
        return [self.head(name) for name in self.dims]

    def own_classifier(self, modality: str) -> list[nn.Linear]:
        return [self.head(modality)]

    def weights(self) -> dict[str, Tensor]:
        return {name: self.head(name).weight for name in self.dims}

    def biases(self) -> dict[str, Tensor]:
        return {name: self.head(name).bias for name in self.dims}

    def classify(self, fused: Tensor) -> Tensor:
        parts = fused.split(list(self.dims.values()), dim=1)
        return torch.stack([head(part) for head, part in zip(self.classifiers, parts, strict=True)]).sum(dim=0)
