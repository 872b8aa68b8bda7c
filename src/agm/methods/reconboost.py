"""ReconBoost, boosting by one modality after the other: Hua et al., 'ReconBoost: Boosting Can Achieve Modality
Reconcilement', ICML 2024.

Training goes in stages, each of one modality m, in turn, and each in two phases of some epochs. With p_m = softmax(u_m)
and F = Σ_{k ≠ m} u_k,

    boosting        −(λ₁ − λ₂ · softmax(F)[y]) · log p_m[y] / C  +  λ₃ · mean_c (p_m − p_k)[c]²
    rectification   CE(f)

each the mean over the batch. In a boosting phase only the encoder of m and its part of the classifier are trained: most
on the clips that the others get wrong, and close to the modality k of the stage before, of which the first stage has
none. The other encoders run in evaluation mode, without gradients. Rectification trains the whole network.

Deviations:
- The network is that of joint training: an additive fusion, u_m = W_m h_m + b_m. The released code has a two-layer head
  that all modalities share, and a factor of the output that is trained with it.
- All modalities are in the network from the start. In the released code each comes in with its first stage.
- The term that keeps p_m close to p_k has a gradient. In the released code it has none: both sides are detached.
- A bias that all modalities share, as that of late_concat, is trained in rectification only.
- The optimiser, its momentum and its schedule are the run's own and go on from phase to phase.
"""

from collections.abc import Iterator
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import linear, mse_loss

from agm.attribution import evaluating
from agm.methods.method import Data, Method, Network, Past
from agm.models.fusion import Additive
from agm.models.multimodal import Inputs, MultimodalModel
from agm.pipeline.config import schema

Weight = Annotated[float, Field(ge=0)]


class ReconBoost(Method):
    """ReconBoost for any number of modalities whose outputs add up."""

    class Config(schema.MethodBlock, extra="forbid"):
        name: Literal["reconboost"]
        boost: schema.Positive = 4
        """Epochs of a stage in which its modality is trained alone."""
        rectify: schema.Positive = 4
        """Epochs of a stage in which all are trained together."""
        fit: Weight = 5.0
        """λ₁: weight of the modality's own cross-entropy."""
        reconcile: Weight = 1.0
        """λ₂: how much less a clip weighs that the others are sure of."""
        consolidate: Weight = 0.5
        """λ₃: weight of the distance to the modality of the stage before."""

    config: Config

    def __init__(self, config: Config, model: MultimodalModel, past: Past | None = None) -> None:
        super().__init__(config, model, past)
        self._place(epoch=0)

    @classmethod
    def refusal(cls, config: schema.MethodBlock, network: Network) -> str | None:
        if not network.fusion.additive:
            return "it trains one modality's part of the output, which only an additive fusion has"
        return None

    def start_epoch(self, epoch: int, model: MultimodalModel, data: Data) -> None:
        self._place(epoch)

    def _place(self, epoch: int) -> None:
        """Which stage and phase `epoch` is in."""
        stage, position = divmod(epoch, self.config.boost + self.config.rectify)
        self.boosting = position < self.config.boost
        self.modality = self.modalities[stage % len(self.modalities)]
        self.before = self.modalities[(stage - 1) % len(self.modalities)] if stage > 0 else None

    def losses(self, model: MultimodalModel, inputs: Inputs, labels: Tensor) -> Iterator[Tensor]:
        if not self.boosting:
            yield from super().losses(model, inputs, labels)
            return
        with torch.no_grad():
            parts = of_others(model.fusion, self.modality)
            there = [part.clone() for part in parts]
        yield self._boosting_loss(model, inputs, labels)
        # Where modalities share a tensor, weight decay and momentum have moved the others' parts of it.
        with torch.no_grad():
            torch._foreach_copy_(parts, there)

    def _boosting_loss(self, model: MultimodalModel, inputs: Inputs, labels: Tensor) -> Tensor:
        others = {name: logits_of(model, name, inputs) for name in self.modalities if name != self.modality}
        feature = model.encoders[self.modality](inputs[self.modality])
        own = linear(feature, model.fusion.weights()[self.modality], model.fusion.biases()[self.modality])
        joint = sum(others.values(), torch.zeros_like(own))
        config, rows = self.config, labels.unsqueeze(1)
        known = joint.softmax(dim=1).gather(1, rows)
        fit = (config.fit - config.reconcile * known) * own.log_softmax(dim=1).gather(1, rows)
        loss = -fit.mean() / own.shape[1]
        if self.before in others:
            loss = loss + config.consolidate * mse_loss(own.softmax(dim=1), others[self.before].softmax(dim=1))
        return loss


@torch.no_grad()
def logits_of(model: MultimodalModel, name: str, inputs: Inputs) -> Tensor:
    """u of one modality in evaluation mode, `[B, C]`."""
    encoder = model.encoders[name]
    with evaluating(encoder):
        return linear(encoder(inputs[name]), model.fusion.weights()[name], model.fusion.biases()[name])


def of_others(fusion: Additive, modality: str) -> list[Tensor]:
    """The parts of the classifiers that are not the modality's own: views of the weights, and a shared bias."""
    parts = [weight for name, weight in fusion.weights().items() if name != modality]
    if len(fusion.classifiers) < len(fusion.dims):
        parts += [layer.bias for layer in fusion.classifiers]
    return parts
