"""MSLR, modality-specific learning rates: Yao and Mihalcea, 'Modality-specific Learning Rates for Effective Multimodal
Additive Late-fusion', Findings of ACL 2022, in its dynamic form.

Before each epoch, with a_m(e) the validation accuracy of the mono-modal logits u_m after epoch e, the learning rate of
m's encoder, and of its own classifier in a fusion that has one for each modality, is multiplied by

    c_m · a_m(e) / mean(a_m(e − 5), …, a_m(e − 1))

for the whole epoch e + 1; the ratio is 1 until there are five epochs to compare with. The factor acts on the
gradients: with SGD that changes the learning rate of all but the weight decay. With AdamW it does next to nothing.

Deviations from the published copy:
- Encoders are reached as modules. There the names of weights matched nothing in early fusion, and nothing changed.
- Every modality's own accuracy is counted. There the audio's was counted inside the video's branch: both were equal.
- The accuracies are those of the validation split; there they were those of the test.
"""

from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from agm.attribution import evaluating, mono_modal_logits
from agm.methods.method import Data, Method, Network, Past, scale_gradients
from agm.models.multimodal import MultimodalModel
from agm.pipeline.config import schema

MEMORY = 5
"""Epochs that an accuracy is compared with."""


class Mslr(Method):
    """MSLR for any number of modalities."""

    modulates_encoders = True

    class Config(schema.MethodBlock, extra="forbid"):
        name: Literal["mslr"]
        coefficients: dict[schema.Name, schema.PositiveFloat] | None = None
        """c_m by modality; 1 for one that is not named, null for all."""

    config: Config

    def __init__(self, config: Config, model: MultimodalModel, past: Past | None = None) -> None:
        super().__init__(config, model, past)
        named = config.coefficients or {}
        given = torch.tensor([named.get(name, 1.0) for name in self.modalities], dtype=torch.float64)
        self.register_buffer("given", given, persistent=False)
        self.register_buffer("accuracies", torch.zeros(MEMORY, len(given), dtype=torch.float64))
        self.register_buffer("epochs", torch.zeros((), dtype=torch.int64))
        self.register_buffer("coefficient", given.clone(), persistent=False)

    @classmethod
    def refusal(cls, config: Config, network: Network) -> str | None:
        unknown = sorted((config.coefficients or {}).keys() - network.dims.keys())
        return f"coefficients names {unknown}, and the modalities are {list(network.dims)}" if unknown else None

    def start_epoch(self, epoch: int, model: MultimodalModel, data: Data) -> None:
        ratio = torch.ones_like(self.given)
        if epoch > 0:
            ratio = self._ratio(validation_figures(model, data).accuracy)
        self.coefficient = self.given * ratio
        self.report(coefficient=self.coefficient)

    def _ratio(self, accuracy: Tensor) -> Tensor:
        """The accuracies `[M]` over their means before, which then remember them."""
        mean = self.accuracies.mean(dim=0)
        known = (self.epochs >= MEMORY) & (mean > 0)
        ratio = torch.where(known, accuracy / mean, 1.0)
        self.accuracies.copy_(torch.cat([self.accuracies[1:], accuracy.unsqueeze(0)]))
        self.epochs += 1
        return ratio

    def backward(self, model: MultimodalModel, loss: Tensor) -> None:
        super().backward(model, loss)
        scale_gradients(map(model.own_part, self.modalities), self.coefficient)


class Figures(NamedTuple):
    """Of the mono-modal logits of each modality, `[M]` float64."""

    accuracy: Tensor
    loss: Tensor


@torch.no_grad()
def validation_figures(model: MultimodalModel, data: Data) -> Figures:
    """Accuracy and mean cross-entropy of every u_m on the validation split, in evaluation mode."""
    correct, losses = [], []
    with evaluating(model):
        for inputs, labels, _ in data.batches("val"):
            logits = mono_modal_logits(model, inputs, model.encode(inputs)).double()
            correct.append((logits.argmax(dim=2) == labels).double())
            losses.append(torch.stack([cross_entropy(u, labels, reduction="none") for u in logits]))
    return Figures(torch.cat(correct, dim=1).mean(dim=1), torch.cat(losses, dim=1).mean(dim=1))
