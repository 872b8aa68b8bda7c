"""UMT, uni-modal teachers: Du et al., 'On Uni-Modal Feature Learning in Supervised Multi-Modal Learning', ICML 2023.

The mono-modal concept of each modality, trained before, teaches the encoder its feature t_m:

    loss = CE(f) + λ Σ_m mean (h_m − t_m)²

over all entries. A teacher's encoder runs in evaluation mode, on the samples as training gives them, and learns
nothing. In a late fusion the concept is a network of its own; in the others it is the whole network with the other
inputs zero, of which only the encoder is needed.

Deviation: λ = 10 is that of a benchmark of such methods; the paper tunes it for each data set.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from agm.distributed import LossFunction, cross_entropy
from agm.methods import PREREQUISITES
from agm.methods.method import Method, Network
from agm.methods.parameters import NonNegative
from agm.models.multimodal import Inputs, Model


class UMT(Method):
    """UMT for any number of modalities.

    Args:
        teachers: the trained encoder of each modality, `[B, …] → [B, D_m]`; None where it is not trained, to have its
            network alone.
        weight: λ, of the distance to the teachers' features; 0 is plain joint training.
    """

    needs_features = True
    prerequisites = PREREQUISITES["umt"]

    def __init__(
        self,
        model: Model,
        *,
        loss_fn: LossFunction = cross_entropy,
        teachers: Mapping[str, nn.Module] | None = None,
        weight: NonNegative = 10.0,
    ) -> None:
        super().__init__(model, loss_fn=loss_fn)
        self.weight = weight
        # A plain dictionary: the teachers are neither trained nor stored with the method.
        self.teachers = {name: teacher.eval() for name, teacher in (teachers or {}).items()}

    @classmethod
    def refusal(cls, network: Network, **arguments: Any) -> str | None:
        teachers = arguments.get("teachers")
        if teachers is not None and set(teachers) != set(network.modalities):
            return f"teachers: expected one for each of {list(network.modalities)}, found {list(teachers)}"
        return super().refusal(network, **arguments)

    def loss(self, inputs: Inputs, targets: Tensor) -> Tensor:
        if not self.teachers:
            raise RuntimeError("UMT draws features to those of its teachers: UMT(model, teachers={modality: encoder})")
        features = self.model.encode(inputs)
        lessons = self._lessons(inputs)
        distances = torch.stack([mse_loss(h, lessons[name]) for name, h in features.items()])
        self.report(distance=distances)
        return self.mean_loss(self.model.fusion(features), targets) + self.weight * distances.sum()

    @torch.no_grad()
    def _lessons(self, inputs: Inputs) -> Inputs:
        """t_m, in the shape of h_m."""
        return {name: self.teachers[name](inputs[name]) for name in self.modalities}
