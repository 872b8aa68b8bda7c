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

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from agm.methods.method import Data, Method, Network, Past
from agm.models.exchange import Exchange
from agm.models.fusion import Features, LateSum
from agm.models.multimodal import Inputs, MultimodalModel
from agm.pipeline.config import schema


class Greedy(Method):
    """MMTM between the encoders, balanced by conditional learning speeds."""

    class Config(schema.MethodBlock, extra="forbid"):
        name: Literal["greedy"]
        alpha: Annotated[float, Field(ge=0)] = 0.01
        """Difference between two modalities' BDR that starts a curation."""
        window: schema.Positive = 5
        """Steps of one curation."""
        warmup: Annotated[int, Field(ge=0)] = 2
        """Epochs without curation, in which speeds are accumulated all the same."""
        stages: schema.Positive = 3
        """Last stages of the encoders that a transfer module follows."""
        ratio: schema.Positive = 4
        """The transfer modules' hidden layers have 2 ΣC / ratio units, for streams of C channels."""

    config: Config
    modulates_encoders = True
    own_network = "transfer modules between the encoders, a classifier for each"

    def __init__(self, config: Config, model: MultimodalModel, past: Past | None = None) -> None:
        super().__init__(config, model, past)
        like = next(model.parameters())
        model.exchange = Exchange(model.encoders, config.stages, config.ratio).to(like)
        model.fusion = MeanOfStreams(model.fusion.dims, model.fusion.classes).to(like)
        count = len(self.modalities)
        self.active = False
        self.register_buffer("bypass", torch.zeros(count, dtype=torch.float64))
        self.register_buffer("main", torch.zeros(count, dtype=torch.float64))
        self.register_buffer("left", torch.zeros(count, dtype=torch.int64))

    @classmethod
    def refusal(cls, config: schema.MethodBlock, network: Network) -> str | None:
        if not network.fusion.additive:
            return "its classifiers of the streams can only take the place of an additive fusion"
        return None

    def start_epoch(self, epoch: int, model: MultimodalModel, data: Data) -> None:
        self.active = epoch >= self.config.warmup

    def loss(self, model: MultimodalModel, inputs: Inputs, labels: Tensor) -> Tensor:
        model.exchange.averaged = dict(zip(self.modalities, self.left.gt(0), strict=True))
        own = model.fusion.streams(model.encode(inputs))
        return torch.stack([cross_entropy(logits, labels) for logits in own]).sum()

    def backward(self, model: MultimodalModel, loss: Tensor) -> None:
        super().backward(model, loss)
        if len(self.modalities) > 1:
            self._accumulate(model)
            self._decide()

    @torch.no_grad()
    def _accumulate(self, model: MultimodalModel) -> None:
        """The speeds of this step, unless it belongs to a curation."""
        counts = self.left.eq(0).all()
        for index, name in enumerate(self.modalities):
            bypass, main = speed(_bypass(model.exchange, name)), speed(list(model.own_part(name).parameters()))
            self.bypass[index] += torch.where(counts, bypass, 0.0)
            self.main[index] += torch.where(counts, main, 0.0)

    def _decide(self) -> None:
        """Which modality is taken care of in the steps to come."""
        ratio = (self.bypass / self.main).log10()
        self.report(balance=ratio, curation=self.left.gt(0))
        left = (self.left - 1).clamp_min(0)
        if self.active:
            starts = self.left.eq(0).all() & (ratio.max() - ratio.min() > self.config.alpha)
            largest = torch.arange(len(ratio), device=ratio.device) == ratio.argmax()
            left = torch.where(starts & largest, self.config.window, left)
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
    squares = [
        torch.stack(torch._foreach_norm(each)).double().square().sum()
        for each in ([weight.grad for weight in weights], weights)
    ]
    return squares[0] / squares[1]


def _bypass(exchange: Exchange, modality: str) -> list[nn.Parameter]:
    """What a modality's gates come from: its own layers and those that it shares."""
    layers = [
        layer
        for module in exchange.levels
        if modality in module.excite
        for layer in (module.squeeze, module.excite[modality])
    ]
    return [weight for layer in layers for weight in layer.parameters()]
