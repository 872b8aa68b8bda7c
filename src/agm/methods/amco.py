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
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from agm.methods.method import Data, Method, Network, Past
from agm.models.encoders import initialise
from agm.models.fusion import Additive, Features
from agm.models.multimodal import Inputs, MultimodalModel
from agm.pipeline.config import schema


class AmCo(Method):
    """AMCo for any number of modalities and an additive fusion."""

    class Config(schema.MethodBlock, extra="forbid"):
        name: Literal["amco"]
        sigma: Annotated[float, Field(gt=0, lt=1)] = 0.5
        """Share of the output above which a modality is dependent."""
        epsilon: schema.PositiveFloat = 0.3
        """l at which every class is masked."""
        rate: Annotated[float, Field(ge=0)] = 0.1
        """Growth of l at each step, times the number of the epoch, counted from 0."""

    config: Config
    own_network = "a linear layer behind the fusion"

    def __init__(self, config: Config, model: MultimodalModel, past: Past | None = None) -> None:
        super().__init__(config, model, past)
        model.fusion = Behind(model.fusion).to(next(model.parameters()))
        self.epoch, self.counters["step"] = 0, 0
        self.register_buffer("dependent", torch.zeros(len(self.modalities), dtype=torch.bool))

    @classmethod
    def refusal(cls, config: schema.MethodBlock, network: Network) -> str | None:
        return None if network.fusion.additive else "it masks the terms of an additive fusion, and this one has none"

    def start_epoch(self, epoch: int, model: MultimodalModel, data: Data) -> None:
        self.epoch, self.counters["step"] = epoch, 0
        self.dependent.zero_()

    @property
    def masked(self) -> float:
        """p: the share of the classes that this step masks."""
        grown = self.counters["step"] * self.config.rate * self.epoch
        return sin(pi / 2 * min(self.config.epsilon, grown) / self.config.epsilon)

    def loss(self, model: MultimodalModel, inputs: Inputs, labels: Tensor) -> Tensor:
        whole = model.fusion.before.mono_modal(model.encode(inputs))
        logits = whole * self._mask(whole)
        self._judge(whole.detach())
        self.counters["step"] += 1
        own = sum(cross_entropy(u, labels) for u in logits)
        return cross_entropy(model.fusion.last(logits.sum(dim=0)), labels) + own

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
        self.dependent = share > self.config.sigma


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
