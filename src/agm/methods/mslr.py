"""MSLR, modality-specific learning rates: Yao and Mihalcea, 'Modality-specific Learning Rates for Effective Multimodal
Additive Late-fusion', Findings of ACL 2022, in its dynamic form.

Before each epoch, with a_m(e) the validation accuracy of the unimodal logits u_m after epoch e, the learning rate of
m's encoder, and of its own classifier in a fusion that has one for each modality, is multiplied by

    c_m · a_m(e) / mean(a_m(e − 5), …, a_m(e − 1))

for the whole epoch e + 1; the ratio is 1 until there are five epochs to compare with. The factor acts on the
gradients: with SGD that changes the learning rate of all but the weight decay. With AdamW it does next to nothing.

Deviations from the published copy:
- Encoders are reached as modules. There the names of weights matched nothing in early fusion, and nothing changed.
- Every modality's own accuracy is counted. There the audio's was counted inside the video's branch: both were equal.
- The accuracies are those of the validation split; there they were those of the test.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from agm.attribution import evaluating, unimodal_logits
from agm.distributed import LossFunction, cross_entropy
from agm.methods.method import Loader, Method, Network, batches, scale_gradients
from agm.methods.parameters import Positive
from agm.models.multimodal import Model

MEMORY = 5
"""Epochs that an accuracy is compared with."""


class MSLR(Method):
    """MSLR for any number of modalities.

    Args:
        coefficients: c_m by modality; 1 for one that is not named, None for all.
    """

    modulates_encoders = True
    classification = True
    reads = ("val",)

    given: Tensor
    accuracies: Tensor
    epochs: Tensor
    coefficient: Tensor

    def __init__(
        self,
        model: Model,
        *,
        loss_fn: LossFunction = cross_entropy,
        coefficients: dict[str, Positive] | None = None,
    ) -> None:
        super().__init__(model, loss_fn=loss_fn)
        named = coefficients or {}
        given = [named.get(name, 1.0) for name in self.modalities]
        ones = torch.ones(len(given), dtype=torch.float64, device=self.device)
        self.register_buffer("given", ones.new_tensor(given), persistent=False)
        self.register_buffer("accuracies", torch.zeros_like(ones).repeat(MEMORY, 1))
        self.register_buffer("epochs", torch.zeros((), dtype=torch.int64, device=self.device))
        self.register_buffer("coefficient", ones.new_tensor(given), persistent=False)

    @classmethod
    def refusal(cls, network: Network, **arguments: Any) -> str | None:
        unknown = sorted(set(arguments.get("coefficients") or {}) - set(network.modalities))
        if unknown:
            return f"coefficients names {unknown}, and the modalities are {list(network.modalities)}"
        return super().refusal(network, **arguments)

    def start_epoch(
        self, epoch: int, *, train: Loader | None = None, val: Loader | None = None, epochs: int | None = None
    ) -> None:
        ratio = torch.ones_like(self.given)
        if epoch > 0:
            ratio = self._ratio(validation_scores(self.model, self.needed(val, "val")).accuracy)
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

    def modulate(self) -> None:
        scale_gradients(map(self.model.own_part, self.modalities), self.coefficient)


class Scores(NamedTuple):
    """Of the unimodal logits of each modality, `[M]` float64."""

    accuracy: Tensor
    loss: Tensor


@torch.no_grad()
def validation_scores(model: Model, val: Loader) -> Scores:
    """Accuracy and mean cross-entropy of every u_m on the validation split, in evaluation mode."""
    correct, losses = [], []
    device = next(model.parameters()).device
    with evaluating(model):
        for inputs, labels, _ in batches(val, device):
            logits = unimodal_logits(model, inputs, model.encode(inputs)).double()
            correct.append((logits.argmax(dim=2) == labels).double())
            losses.append(torch.stack([functional.cross_entropy(u, labels, reduction="none") for u in logits]))
    return Scores(torch.cat(correct, dim=1).mean(dim=1), torch.cat(losses, dim=1).mean(dim=1))
