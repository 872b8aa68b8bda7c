"""AMCo, adaptive mask co-optimisation, as in BalanceBenchmark: Zhou et al., 'Adaptive Mask Co-optimization for Modal
Dependence in Multimodal Learning', ICASSP 2023.

A linear layer from classes to classes is put behind an additive fusion: f = A Σ_m u_m + a. A modality m is called
dependent when the output leans on it:

    mean over the batch of Σ_c softmax([u_1 … u_M])[m, c] > σ

For one that was dependent in the last step, the same N = ⌊p·C⌋ classes of u_m, drawn anew for each step, are set to
zero for the whole batch, and the loss is CE(A Σ_m u_m + a) + Σ_m CE(u_m) with what is left. In step t = 0, 1, … of
epoch E = 0, 1, …

    p = sin(π/2 · min(ε, l)/ε),    l = t · rate · E

so the mask grows within an epoch, faster from epoch to epoch, and nothing is masked in the first. Nothing is masked
outside of training.

This is a network of its own. It remains additive: as everywhere else in the program, the part of a modality is the
part of the output, A u_m + a/M, and that is what attribution and evaluation call u_m; the u_m that AMCo masks and
trains is what comes before A.

Deviations:
- Which modality is dependent is judged anew at each step, by logits that are not masked. In the published copy, of
  which this is the only code, the first that is found stays masked until the epoch is over, and the share is that of
  the masked logits, of which a zero may be the largest.
- The copy's size of the mask for features (512) and its α have no effect there, and are left out.
"""

from math import pi, sin
from typing import Annotated, cast

import torch
from torch import Tensor, nn

from agm.distributed import LossFunction, cross_entropy
from agm.methods.method import Loader, Method
from agm.methods.parameters import Bounds, NonNegative, Positive
from agm.models.encoders import initialise
from agm.models.fusion import Additive, Features
from agm.models.multimodal import Inputs, Model


class AMCo(Method):
    """AMCo for any number of modalities and an additive fusion.

    Args:
        sigma: share of the output above which a modality is dependent.
        epsilon: l at which every class is masked.
        rate: growth of l at each step, times the number of the epoch, counted from 0.
    """

    needs_features = True
    needs_additive = "it masks the terms of an additive fusion, and this one has none"
    classification = True
    own_network = "a linear layer behind the fusion"

    dependent: Tensor

    def __init__(
        self,
        model: Model,
        *,
        loss_fn: LossFunction = cross_entropy,
        sigma: Annotated[float, Bounds(gt=0, lt=1)] = 0.5,
        epsilon: Positive = 0.3,
        rate: NonNegative = 0.1,
    ) -> None:
        super().__init__(model, loss_fn=loss_fn)
        self.sigma, self.epsilon, self.rate = sigma, epsilon, rate
        model.fusion = Behind(cast(Additive, model.fusion)).to(next(model.parameters()))
        self.epoch, self.steps = 0, 0
        self.register_buffer("dependent", torch.zeros(len(self.modalities), dtype=torch.bool, device=self.device))

    def start_epoch(
        self, epoch: int, *, train: Loader | None = None, val: Loader | None = None, epochs: int | None = None
    ) -> None:
        self.epoch, self.steps = epoch, 0
        self.dependent.zero_()

    def get_extra_state(self) -> Tensor:
        """The epoch and its steps so far: numbers that the host counts."""
        return torch.tensor([self.epoch, self.steps])

    def set_extra_state(self, state: Tensor) -> None:
        self.epoch, self.steps = state.tolist()

    @property
    def masked(self) -> float:
        """p: the share of the classes that this step masks."""
        grown = self.steps * self.rate * self.epoch
        return sin(pi / 2 * min(self.epsilon, grown) / self.epsilon)

    def loss(self, inputs: Inputs, targets: Tensor) -> Tensor:
        fusion = cast(Behind, self.model.fusion)
        whole = fusion.before.unimodal(self.model.encode(inputs))
        logits = whole * self._mask(whole)
        self._judge(whole.detach())
        self.steps += 1
        return self.mean_loss(fusion.last(logits.sum(dim=0)), targets) + self.sum_of_losses(logits, targets)

    def _mask(self, logits: Tensor) -> Tensor:
        """1 where a logit stays, `[M, 1, C]`: the dependent modalities lose the same classes."""
        classes = logits.shape[2]
        order = torch.rand(classes, device=logits.device).argsort()
        kept = order >= int(self.masked * classes)
        return (kept | ~self.dependent.unsqueeze(1)).unsqueeze(1).to(logits)

    def _judge(self, logits: Tensor) -> None:
        """Note which modalities the output leans on, for the next step."""
        shares = logits.double().transpose(0, 1).flatten(1).softmax(dim=1)
        share = shares.unflatten(1, (len(self.modalities), -1)).sum(dim=2).mean(dim=0)
        self.report(share=share, masked=self.dependent * self.masked)
        self.dependent = share > self.sigma


class Behind(Additive):
    """f = A g + a for an additive fusion g: additive itself, with A W_m in the place of W_m."""

    def __init__(self, before: Additive) -> None:
        super().__init__(before.dims, before.classes)
        self.before = before
        self.last = nn.Linear(before.classes, before.classes)
        initialise(self.last)

    @property
    def classifiers(self) -> list[nn.Linear]:
        return [*self.before.classifiers, self.last]

    def weights(self) -> dict[str, Tensor]:
        return {name: self.last.weight @ weight for name, weight in self.before.weights().items()}

    def biases(self) -> dict[str, Tensor]:
        share = self.last.bias / len(self.dims)
        return {name: self.last.weight @ bias + share for name, bias in self.before.biases().items()}

    def fuse(self, features: Features) -> Tensor:
        return self.before.fuse(features)

    def classify(self, fused: Tensor) -> Tensor:
        return self.last(self.before.classify(fused))
