"""What every fusion offers: every modality's feature to logits, by way of the fused feature Z.

`fuse`: `{m: [B, D_m]} → Z [B, D]`; `classify`: `Z → [B, C]`. `classifiers` are the linear layers that end in logits.
The competition metric probes Z.
"""

import torch
from torch import Tensor, nn

Features = dict[str, Tensor]


class Fusion(nn.Module):
    """What every fusion offers.

    Attributes:
        dims: size of each modality's feature.
        classes: C.
        late: whether the modalities meet in the classifier only, so that a modality alone is a network of its own.
        additive: whether f = Σ_m u_m with u_m a linear map of h_m; then it is an `Additive`.
        sequential: whether features are sequences, `[B, T_m, D_m]`.
    """

    late = False
    additive = False
    sequential = False

    def __init__(self, dims: dict[str, int], classes: int) -> None:
        super().__init__()
        self.dims, self.classes = dict(dims), classes

    @property
    def classifiers(self) -> list[nn.Linear]:
        raise NotImplementedError

    def own_classifier(self, modality: str) -> list[nn.Linear]:
        """The classifier that reads nothing but this modality, where there is one."""
        return []

    def fuse(self, features: Features) -> Tensor:
        raise NotImplementedError

    def classify(self, fused: Tensor) -> Tensor:
        raise NotImplementedError

    def forward(self, features: Features) -> Tensor:
        return self.classify(self.fuse(features))


class Additive(Fusion):
    """A fusion with f = Σ_m u_m, u_m = W_m h_m + b_m; Z = [h_1 … h_M], what the classifier sees."""

    late = True
    additive = True

    def weights(self) -> dict[str, Tensor]:
        """W_m, `[C, D_m]`."""
        raise NotImplementedError

    def biases(self) -> dict[str, Tensor]:
        """b_m, `[C]`: of a bias that the modalities share, an equal part each."""
        raise NotImplementedError

    def unimodal(self, features: Features) -> Tensor:
        """u of every modality, `[M, B, C]`."""
        weights, biases = self.weights(), self.biases()
        return torch.stack([nn.functional.linear(h, weights[name], biases[name]) for name, h in features.items()])

    def fuse(self, features: Features) -> Tensor:
        return torch.cat(list(features.values()), dim=1)


class Mixed(Fusion):
    """A fusion with f = W Z + b in which the modalities have met before the classifier: a subclass makes Z."""

    classifier: nn.Linear

    @property
    def classifiers(self) -> list[nn.Linear]:
        return [self.classifier]

    def classify(self, fused: Tensor) -> Tensor:
        return self.classifier(fused)
