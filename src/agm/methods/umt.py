"""UMT, uni-modal teachers: Du et al., 'On Uni-Modal Feature Learning in Supervised Multi-Modal Learning', ICML 2023.

The mono-modal concept of each modality, trained before, teaches the encoder its feature t_m:

    loss = CE(f) + λ Σ_m mean (h_m − t_m)²

over all entries. A teacher's encoder runs in evaluation mode, on the clips as training gives them, and learns nothing.
In a late fusion the concept is a network of its own; in the others it is the whole network with the other inputs zero,
of which only the encoder is needed.

Deviation: λ = 10 is that of a benchmark of such methods; the paper tunes it for each data set.
"""

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, mse_loss

from agm.methods.method import Method, Past
from agm.models.multimodal import Inputs, MultimodalModel
from agm.pipeline.config import schema


class Umt(Method):
    """UMT for any number of modalities."""

    taught = True

    class Config(schema.MethodBlock, extra="forbid"):
        name: Literal["umt"]
        weight: Annotated[float, Field(ge=0)] = 10.0
        """λ, of the distance to the teachers' features; 0 is plain joint training."""

    config: Config

    def __init__(self, config: Config, model: MultimodalModel, past: Past | None = None) -> None:
        super().__init__(config, model, past)
        # A plain dictionary: the teachers are neither trained nor stored with the method.
        self.teachers = {name: _encoder(concept, name) for name, concept in past.concepts.items()} if past else {}

    def loss(self, model: MultimodalModel, inputs: Inputs, labels: Tensor) -> Tensor:
        features = model.encode(inputs)
        lessons = self._lessons(inputs)
        distances = torch.stack([mse_loss(h, lessons[name]) for name, h in features.items()])
        self.report(distance=distances)
        return cross_entropy(model.fusion(features), labels) + self.config.weight * distances.sum()

    @torch.no_grad()
    def _lessons(self, inputs: Inputs) -> Inputs:
        """t_m, in the shape of h_m."""
        return {name: teacher(inputs[name]) for name, teacher in self.teachers.items()}


def _encoder(concept: nn.Module, name: str) -> nn.Module:
    """The encoder of modality `name` in its concept, which may be a whole network around it."""
    network = concept if isinstance(concept, MultimodalModel) else concept.model
    return network.encoders[name].eval()
