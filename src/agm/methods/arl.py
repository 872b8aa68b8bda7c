"""ARL, asymmetric representation learning: Wei et al., 'Improving Multimodal Learning via Imbalanced Learning',
ICCV 2025.

With u_m the unimodal logits, the loss is CE(f) + γ Σ_m CE(u_m). From the sixth epoch on, for each modality m of M,

    H_m = mean over the batch of the entropy of softmax(u_m), as a share of Σ_k H_k, at least .3 (M = 2; .6/M)
    a_m = 1/H_m                                        as a share of Σ_k a_k: how certain m is
    c_m = mean over the batch of Σ_c |u_m[c]|          as a share of Σ_k c_k: how much m gives
    w   = softmax over m of T · a_m · mean over k ≠ m of c_k

and the gradient that flows from m's feature into its encoder is multiplied by 1 + w_m: a modality that is certain and
is made little use of learns faster. With AdamW a scaled gradient makes almost the same step: use SGD.

Deviations:
- u_m is W_m h_m with the whole bias, also of one that the modalities share, as in the released code; for a fusion that
  is not additive it is the output with the other inputs zero, where the released code has further layers.
- The paper has two modalities. With more, the others' c is averaged, and the least share shrinks as 1/M does.
- The gradients of an encoder's weights are scaled, which is the same as scaling at its output. The released code's
  first scaled epoch is its seventh; 'after five epochs' is the sixth.
"""

import torch
from torch import Tensor

from agm.attribution import unimodal_logits
from agm.distributed import LossFunction, cross_entropy
from agm.methods.method import Loader, Method, scale_gradients
from agm.methods.parameters import NonNegative, Window
from agm.models.fusion import LateConcat
from agm.models.multimodal import Inputs, Model

LEAST_SHARE = 0.6
"""Divided by M: the least share of the entropies that counts."""


class ARL(Method):
    """ARL for any number of modalities; outside the window of epochs nothing is scaled, the loss is the same.

    Args:
        temperature: T, how strongly the modalities are told apart; 0 scales all gradients alike.
        gamma: weight of the unimodal losses.
        window: epochs in which gradients are scaled.
    """

    needs_encoders = True
    classification = True

    def __init__(
        self,
        model: Model,
        *,
        loss_fn: LossFunction = cross_entropy,
        temperature: NonNegative = 8.0,
        gamma: NonNegative = 1.0,
        window: Window = Window(first=5),
    ) -> None:
        super().__init__(model, loss_fn=loss_fn)
        self.temperature, self.gamma, self.window = temperature, gamma, window
        self.active = 0 in window
        self.coefficient: Tensor | None = None

    def start_epoch(
        self, epoch: int, *, train: Loader | None = None, val: Loader | None = None, epochs: int | None = None
    ) -> None:
        self.active = epoch in self.window
        self.coefficient = None
        self.diagnostics = {}

    def loss(self, inputs: Inputs, targets: Tensor) -> Tensor:
        features = self.model.encode(inputs)
        joint = self.mean_loss(self.model.fusion(features), targets)
        logits = unimodal_logits(self.model, inputs, features)
        if isinstance(self.model.fusion, LateConcat):
            # They have an equal part each of the bias that they share.
            logits = logits + (1 - 1 / len(logits)) * self.model.fusion.classifier.bias
        if self.active:
            self.coefficient = 1 + weights(logits, self.temperature)
            self.report(coefficient=self.coefficient)
        return joint + self.gamma * self.sum_of_losses(logits, targets)

    def modulate(self) -> None:
        if self.coefficient is not None:
            scale_gradients(self.model.encoders.values(), self.coefficient)


@torch.no_grad()
def weights(logits: Tensor, temperature: float) -> Tensor:
    """w of every modality from the unimodal logits, `[M, B, C]` to `[M]` float64."""
    count = len(logits)
    shares = logits.double().log_softmax(dim=2)
    entropy = _shares(-(shares.exp() * shares).sum(dim=2).mean(dim=1))
    certainty = _shares(1 / entropy.clamp_min(LEAST_SHARE / count))
    given = _shares(logits.double().abs().sum(dim=2).mean(dim=1))
    others = (given.sum() - given) / max(count - 1, 1)
    return (temperature * certainty * others).softmax(dim=0)


def _shares(values: Tensor) -> Tensor:
    """Each value's share of their sum, `[M] → [M]`."""
    return values / values.sum().clamp_min(torch.finfo(values.dtype).tiny)
