"""Balanced learning with MMTM: Wu et al., 'Characterizing and Overcoming the Greedy Nature of Learning in Multi-modal
Deep Neural Networks', ICML 2022.

Transfer modules between the encoders (`agm.models.exchange`) let each modality see the others. Each stream has a
classifier of its own; with u_m its logits,

    f = 1/M Σ_m u_m        loss = Σ_m CE(u_m)

How fast a part θ of the network learns is its conditional learning speed, a sum over the steps so far:

    μ(θ)  = Σ_t ‖∇θ_t‖² / ‖θ_t‖²
    BDR_m = log10( μ(bypass_m) / μ(main_m) )

where main_m is modality m's encoder with its classifier, and bypass_m its part of the transfer modules: the layers that
make its gates, and those that all share. The modality with the largest BDR learns most from the others for what it
learns by itself. When

    max_m BDR_m − min_m BDR_m > α

that modality is taken care of for the next `window` steps: its gates are replaced by their running averages, so that it
hears nothing of the others. Speeds are not accumulated meanwhile.

This is a network of its own: the transfer modules and the classifiers, which take the place of an additive fusion, are
trained, stored and evaluated with it.

Deviations: the running average of a gate is that of the same gate (the published code averages the first modality's
for both), over all training passes (another copy starts it anew in every pass), those before the one that uses it, and
not over passes in evaluation mode. Any number of modalities: the largest difference of all decides. Encoders with any
stages: their last ones are connected, three of a ResNet-18 as published.
"""

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from agm.distributed import LossFunction, cross_entropy
from agm.methods.method import Loader, Method, Network, gradients
from agm.methods.parameters import Count, Epochs, NonNegative
from agm.models.encoders import Encoder
from agm.models.fusion import Features, LateSum
from agm.models.mmtm import MMTM, Exchange
from agm.models.multimodal import Inputs, Model, Multimodal


class Greedy(Method):
    """MMTM between the encoders, balanced by conditional learning speeds.

    Args:
        alpha: difference between two modalities' BDR that starts a curation.
        window: steps of one curation.
        warmup: epochs without curation, in which speeds are accumulated all the same.
        stages: last stages of the encoders that a transfer module follows.
        ratio: the transfer modules' hidden layers have 2 ΣC / ratio units, for streams of C channels.
    """

    needs_features = True
    needs_additive = "its classifiers of the streams can only take the place of an additive fusion"
    modulates_encoders = True
    # It sums squared gradients over the steps, which must all have the same scale.
    scale_free = False
    own_network = "transfer modules between the encoders, a classifier for each"

    bypass: Tensor
    main: Tensor
    left: Tensor

    def __init__(
        self,
        model: Model,
        *,
        loss_fn: LossFunction = cross_entropy,
        alpha: NonNegative = 0.01,
        window: Count = 5,
        warmup: Epochs = 2,
        stages: Count = 3,
        ratio: Count = 4,
    ) -> None:
        super().__init__(model, loss_fn=loss_fn)
        self.alpha, self.window, self.warmup = alpha, window, warmup
        model = cast(Multimodal, model)
        like = next(model.parameters())
        encoders = cast(Mapping[str, Encoder], model.encoders)
        model.exchange = Exchange(encoders, stages, ratio).to(like)
        model.fusion = MeanOfStreams(model.fusion.dims, model.fusion.classes).to(like)
        self.active = False
        zeros = torch.zeros(len(self.modalities), dtype=torch.float64, device=self.device)
        self.register_buffer("bypass", zeros)
        self.register_buffer("main", zeros.clone())
        self.register_buffer("left", zeros.long())

    @classmethod
    def refusal(cls, network: Network, **arguments: Any) -> str | None:
        if reason := super().refusal(network, **arguments):
            return reason
        return None if network.staged else "it connects the stages of encoders, and these are no chains of stages"

    def start_epoch(
        self, epoch: int, *, train: Loader | None = None, val: Loader | None = None, epochs: int | None = None
    ) -> None:
        self.active = epoch >= self.warmup

    @property
    def exchange(self) -> Exchange:
        """The transfer modules, which are a part of the model."""
        return cast(Exchange, cast(Multimodal, self.model).exchange)

    def loss(self, inputs: Inputs, targets: Tensor) -> Tensor:
        self.exchange.averaged = dict(zip(self.modalities, self.left.gt(0), strict=True))
        streams = cast(MeanOfStreams, self.model.fusion).streams(self.model.encode(inputs))
        return self.sum_of_losses(streams, targets)

    def modulate(self) -> None:
        if len(self.modalities) > 1:
            self._accumulate()
            self._decide()

    @torch.no_grad()
    def _accumulate(self) -> None:
        """The speeds of this step, unless it belongs to a curation."""
        counts = self.left.eq(0).all()
        for index, name in enumerate(self.modalities):
            bypass = speed(_bypass(self.exchange, name))
            main = speed(list(self.model.own_part(name).parameters()))
            self.bypass[index] += torch.where(counts, bypass, 0.0)
            self.main[index] += torch.where(counts, main, 0.0)

    def _decide(self) -> None:
        """Which modality is taken care of in the steps to come."""
        ratio = (self.bypass / self.main).log10()
        self.report(balance=ratio, curation=self.left.gt(0))
        left = (self.left - 1).clamp_min(0)
        if self.active:
            starts = self.left.eq(0).all() & (ratio.max() - ratio.min() > self.alpha)
            largest = torch.arange(len(ratio), device=ratio.device) == ratio.argmax()
            left = torch.where(starts & largest, self.window, left)
        self.left.copy_(left)


class MeanOfStreams(LateSum):
    """f = 1/M Σ_m u_m, u_m = W_m h_m + b_m: the mean of what each stream says."""

    def streams(self, features: Features) -> Tensor:
        """u of every modality, `[M, B, C]`."""
        return torch.stack([head(features[name]) for name, head in self.heads.items()])

    def weights(self) -> dict[str, Tensor]:
        return {name: weight / len(self.dims) for name, weight in super().weights().items()}

    def biases(self) -> dict[str, Tensor]:
        return {name: bias / len(self.dims) for name, bias in super().biases().items()}

    def classify(self, fused: Tensor) -> Tensor:
        return super().classify(fused) / len(self.dims)


def speed(weights: list[nn.Parameter]) -> Tensor:
    """‖∇θ‖² / ‖θ‖² over the weights that have a gradient, a float64 scalar."""
    weights = [weight for weight in weights if weight.grad is not None]
    of_gradients = torch.stack(torch._foreach_norm(gradients(weights))).double().square().sum()
    of_weights = torch.stack(torch._foreach_norm([*weights])).double().square().sum()
    return of_gradients / of_weights


def _bypass(exchange: Exchange, modality: str) -> list[nn.Parameter]:
    """The weights that a modality's gates come from: its own layers and those that it shares."""
    weights: list[nn.Parameter] = []
    for level in exchange.levels:
        module = cast(MMTM, level)
        if modality in module.excite:
            weights += module.squeeze.parameters()
            weights += module.excite[modality].parameters()
    return weights
