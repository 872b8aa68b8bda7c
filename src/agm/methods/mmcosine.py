"""MMCosine: Xu et al., 'MMCosine: Multi-Modal Cosine Loss Towards Balanced Audio-Visual Fine-Grained Learning', ICASSP
2023.

The linear classifier sees of each modality m the direction of its feature only, and of each class the direction of its
row of W_m:

    u_m[c] = s · cos(h_m, W_m[c])        f = Σ_m u_m        loss = CE(f)

so that no modality gains weight by the length of its features or of its weights. The bias is not used.

This is a network of its own: cosines take the place of the products in an additive fusion, over the same weights.
"""

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, normalize

from agm.distributed import LossFunction, cross_entropy
from agm.methods.method import Method
from agm.methods.parameters import Positive
from agm.models.fusion import Additive, Features
from agm.models.multimodal import Model


class MMCosine(Method):
    """MMCosine for any number of modalities: joint training of a fusion of cosines.

    Args:
        scale: s; logits of one modality lie between −s and s.
    """

    needs_features = True
    needs_additive = "its cosines can only take the place of the products in an additive fusion"
    classification = True
    own_network = "cosine logits in the place of linear ones"

    def __init__(self, model: Model, *, loss_fn: LossFunction = cross_entropy, scale: Positive = 10.0) -> None:
        super().__init__(model, loss_fn=loss_fn)
        model.fusion = Cosine(cast(Additive, model.fusion), scale)


class Cosine(Additive):
    """f = Σ_m s · cos(h_m, rows of W_m), over the layers of another additive fusion."""

    def __init__(self, fusion: Additive, scale: float) -> None:
        super().__init__(fusion.dims, fusion.classes)
        self.scale = scale
        # The other fusion's layers under the names that they have there: a run's weights start, and are stored, alike.
        for name, layers in fusion.named_children():
            self.add_module(name, layers)
        # In a list, so that it is no module of this one and its weights are not counted twice.
        self.origin = [fusion]

    @property
    def classifiers(self) -> list[nn.Linear]:
        return self.origin[0].classifiers

    def weights(self) -> dict[str, Tensor]:
        """W_m, `[C, D_m]`, of which only the rows' directions count."""
        return self.origin[0].weights()

    def biases(self) -> dict[str, Tensor]:
        """None: zeros `[C]`."""
        return {name: weight.new_zeros(self.classes) for name, weight in self.weights().items()}

    def unimodal(self, features: Features) -> Tensor:
        weights = self.weights()
        cosines = [linear(normalize(h, dim=1), normalize(weights[name], dim=1)) for name, h in features.items()]
        return self.scale * torch.stack(cosines)

    def classify(self, fused: Tensor) -> Tensor:
        parts = fused.split(list(self.dims.values()), dim=1)
        return self.unimodal(dict(zip(self.dims, parts, strict=True))).sum(dim=0)
