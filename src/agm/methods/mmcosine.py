"""MMCosine: Xu et al., 'MMCosine: Multi-Modal Cosine Loss Towards Balanced Audio-Visual Fine-Grained Learning', ICASSP
2023.

The linear classifier sees of each modality m the direction of its feature only, and of each class the direction of its
row of W_m:

    u_m[c] = s · cos(h_m, W_m[c])        f = Σ_m u_m        loss = CE(f)

so that no modality gains weight by the length of its features or of its weights. The bias is not used.

This is a network of its own: cosines take the place of the products in an additive fusion, over the same weights.
"""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, normalize

from agm.methods.method import Method, Network, Past
from agm.models.fusion import Additive, Features
from agm.models.multimodal import MultimodalModel
from agm.pipeline.config import schema


class MmCosine(Method):
    """MMCosine for any number of modalities: joint training of a fusion of cosines."""

    class Config(schema.MethodBlock, extra="forbid"):
        name: Literal["mmcosine"]
        scale: schema.PositiveFloat = 10.0
        """s: logits of one modality lie between −s and s."""

    config: Config
    own_network = "cosine logits in the place of linear ones"

    def __init__(self, config: Config, model: MultimodalModel, past: Past | None = None) -> None:
        super().__init__(config, model, past)
        model.fusion = Cosine(model.fusion, config.scale)

    @classmethod
    def refusal(cls, config: schema.MethodBlock, network: Network) -> str | None:
        if not network.fusion.additive:
            return "its cosines can only take the place of the products in an additive fusion"
        return None


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

    def mono_modal(self, features: Features) -> Tensor:
        weights = self.weights()
        cosines = [linear(normalize(h, dim=1), normalize(weights[name], dim=1)) for name, h in features.items()]
        return self.scale * torch.stack(cosines)

    def classify(self, fused: Tensor) -> Tensor:
        parts = fused.split(list(self.dims.values()), dim=1)
        return self.mono_modal(dict(zip(self.dims, parts, strict=True))).sum(dim=0)
