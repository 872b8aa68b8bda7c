"""ReconBoost, boosting by one modality after the other: Hua et al., 'ReconBoost: Boosting Can Achieve Modality
Reconcilement', ICML 2024.

Training goes in stages, each of one modality m, in turn, and each in two phases of some epochs. With p_m = softmax(u_m)
and F = Σ_{k ≠ m} u_k,

    boosting        −(λ₁ − λ₂ · softmax(F)[y]) · log p_m[y] / C  +  λ₃ · mean_c (p_m − p_k)[c]²
    rectification   CE(f)

each the mean over the batch. In a boosting phase only the encoder of m and its part of the classifier are trained: most
on the samples that the others get wrong, and close to the modality k of the stage before, of which the first stage has
none. The other encoders run in evaluation mode, without gradients. Rectification trains the whole network.

Deviations:
- The network is that of joint training: an additive fusion, u_m = W_m h_m + b_m. The released code has a two-layer head
  that all modalities share, and a factor of the output that is trained with it.
- All modalities are in the network from the start. In the released code each comes in with its first stage.
- The term that keeps p_m close to p_k has a gradient. In the released code it has none: both sides are detached.
- A bias that all modalities share, as that of late_concat, is trained in rectification only.
- The optimizer, its momentum and its schedule are the run's own and go on from phase to phase.
"""

from collections.abc import Iterator, Sequence
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn.functional import linear, mse_loss

from agm.attribution import evaluating
from agm.distributed import LossFunction, cross_entropy
from agm.methods.method import Loader, Method
from agm.methods.parameters import Count, NonNegative
from agm.models.fusion import Additive
from agm.models.multimodal import Inputs, Model


class ReconBoost(Method):
    """ReconBoost for any number of modalities whose outputs add up.

    Args:
        boost: epochs of a stage in which its modality is trained alone.
        rectify: epochs of a stage in which all are trained together.
        fit: λ₁, weight of the modality's own cross-entropy.
        reconcile: λ₂, how much less a sample weighs that the others are sure of.
        consolidate: λ₃, weight of the distance to the modality of the stage before.
    """

    needs_features = True
    needs_additive = "it trains one modality's part of the output, which only an additive fusion has"
    classification = True
    single_step = False

    def __init__(
        self,
        model: Model,
        *,
        loss_fn: LossFunction = cross_entropy,
        boost: Count = 4,
        rectify: Count = 4,
        fit: NonNegative = 5.0,
        reconcile: NonNegative = 1.0,
        consolidate: NonNegative = 0.5,
    ) -> None:
        super().__init__(model, loss_fn=loss_fn)
        self.boost, self.rectify = boost, rectify
        self.fit, self.reconcile, self.consolidate = fit, reconcile, consolidate
        self.start_epoch(0)

    def start_epoch(
        self, epoch: int, *, train: Loader | None = None, val: Loader | None = None, epochs: int | None = None
    ) -> None:
        stage, position = divmod(epoch, self.boost + self.rectify)
        self.boosting = position < self.boost
        self.modality = self.modalities[stage % len(self.modalities)]
        self.before = self.modalities[(stage - 1) % len(self.modalities)] if stage > 0 else None

    @property
    def additive(self) -> Additive:
        """The fusion."""
        return cast(Additive, self.model.fusion)

    def loss(self, inputs: Inputs, targets: Tensor) -> Tensor:
        if self.boosting:
            raise RuntimeError("ReconBoost puts weights back after a step of a boosting phase: use `step` or `losses`")
        return super().loss(inputs, targets)

    def losses(self, inputs: Inputs, targets: Tensor, ids: Sequence[Any] | None = None) -> Iterator[Tensor]:
        if not self.boosting:
            yield from super().losses(inputs, targets)
            return
        with torch.no_grad():
            parts = of_others(self.additive, self.modality)
            there = [part.clone() for part in parts]
        yield self._boosting_loss(inputs, targets)
        # Where modalities share a tensor, weight decay and momentum have moved the others' parts of it.
        with torch.no_grad():
            torch._foreach_copy_(parts, there)

    def _boosting_loss(self, inputs: Inputs, targets: Tensor) -> Tensor:
        others = {}
        for name in self.modalities:
            if name != self.modality:
                others[name] = constant_logits_of(self.model, name, inputs)
        own = logits_of(self.model, self.modality, inputs)
        # Float32 at least, whatever the autocast.
        own = own.to(torch.promote_types(own.dtype, torch.float32))
        joint = sum(others.values(), torch.zeros_like(own))
        rows = targets.unsqueeze(1)
        known = joint.softmax(dim=1).gather(1, rows)
        fit = (self.fit - self.reconcile * known) * own.log_softmax(dim=1).gather(1, rows)
        loss = -fit.mean() / own.shape[1]
        if self.before in others:
            loss = loss + self.consolidate * mse_loss(own.softmax(dim=1), others[self.before].softmax(dim=1))
        return loss


def logits_of(model: Model, name: str, inputs: Inputs) -> Tensor:
    """u of one modality, `[B, C]`."""
    fusion = cast(Additive, model.fusion)
    return linear(model.encoders[name](inputs[name]), fusion.weights()[name], fusion.biases()[name])


@torch.no_grad()
def constant_logits_of(model: Model, name: str, inputs: Inputs) -> Tensor:
    """The same in evaluation mode and without gradients."""
    with evaluating(model.encoders[name]):
        return logits_of(model, name, inputs)


def of_others(fusion: Additive, modality: str) -> list[Tensor]:
    """The parts of the classifiers that are not the modality's own: views of the weights, and a shared bias."""
    parts = [weight for name, weight in fusion.weights().items() if name != modality]
    if len(fusion.classifiers) < len(fusion.dims):
        parts += [layer.bias for layer in fusion.classifiers]
    return parts
