"""MMPareto, Pareto integration of multimodal and unimodal gradients: Wei and Hu, 'MMPareto: Boosting Multimodal
Learning with Innocent Unimodal Assistance', ICML 2024.

Beside the network stands a linear head for each modality, u_m = V_m h_m + c_m, and the losses are CE(f) and
Σ_m CE(u_m). At every step, for the encoder of each modality m, with all its weights as one vector,

    g = ∇CE(f),    e = ∇Σ_k CE(u_k)
    k = ½                                        where cos(g, e) > 0
    k = (e·e − g·e) / ‖g − e‖², within .001 … .999     else: the shortest k g + (1 − k) e
    G = 2k g + 2(1 − k) e

and of each weight tensor of the encoder on its own

    G ← γ · G · max(1, ‖g + e‖ / ‖G‖)             as long as the plain sum, at least, then γ times that.

The heads and the fusion keep the gradient of CE(f) + Σ_m CE(u_m).

Deviations:
- Both gradients come from one forward graph, which is taken back twice. A published copy does not clear the gradient
  between the losses: its two are the same, and what it descends is three times the plain gradient.
- The released code takes .999 and .001 where the minimum lies outside; here a minimum beyond them is moved to them.
"""

import torch
from torch import Tensor, nn

from agm.distributed import LossFunction, cross_entropy
from agm.methods.method import Method, gradients, own_classifiers, pooled
from agm.methods.parameters import Positive
from agm.models.multimodal import Inputs, Model

TINY = 1e-30
"""In the place of a norm of zero: an encoder without a gradient."""


class MMPareto(Method):
    """MMPareto for any number of modalities and any fusion, at a second backward pass.

    Args:
        gamma: how much longer than the plain sum the encoders' gradient is.
    """

    needs_features = True
    modulates_encoders = True

    def __init__(self, model: Model, *, loss_fn: LossFunction = cross_entropy, gamma: Positive = 1.5) -> None:
        super().__init__(model, loss_fn=loss_fn)
        self.gamma = gamma
        self.heads = own_classifiers(model)
        self.parts: tuple[Tensor, ...] = ()

    def loss(self, inputs: Inputs, targets: Tensor) -> Tensor:
        features = self.model.encode(inputs)
        joint = self.mean_loss(self.model.fusion(features), targets)
        logits = [head(pooled(features[name])) for name, head in self.heads.items()]
        own = self.sum_of_losses(logits, targets)
        self.parts = joint, own
        return joint + own

    def differentiate(self, loss: Tensor) -> None:
        weights = self.weights()
        joint, own = self.parts
        self.parts = ()
        # The factor of who scaled the loss: 1/k of a piece of the batch, or a GradScaler's.
        (factor,) = torch.autograd.grad(loss, joint, retain_graph=True)
        first = torch.autograd.grad(joint, weights, factor, retain_graph=True, materialize_grads=True)
        second = torch.autograd.grad(own, weights, factor, materialize_grads=True)
        for weight, gradient in zip(weights, torch._foreach_add(first, second), strict=True):
            weight.grad = gradient
        pairs = {weight: (g, e) for weight, g, e in zip(weights, first, second, strict=True)}
        shares, cosines = [], []
        for encoder in self.model.encoders.values():
            share, cosine = self._integrate(encoder, pairs)
            shares.append(share)
            cosines.append(cosine)
        self.report(weight=torch.stack(shares), cosine=torch.stack(cosines))

    def _integrate(self, encoder: nn.Module, pairs: dict[nn.Parameter, tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
        """Put γG in the place of the gradients of one encoder; returns k and cos(g, e)."""
        weights = [weight for weight in encoder.parameters() if weight in pairs]
        joint = [pairs[weight][0] for weight in weights]
        own = [pairs[weight][1] for weight in weights]
        share, cosine = shortest(joint, own)
        combined = torch._foreach_mul(joint, 2 * share)
        torch._foreach_add_(combined, torch._foreach_mul(own, 2 * (1 - share)))
        wanted = torch.stack(torch._foreach_norm(gradients(weights)))
        length = torch.stack(torch._foreach_norm(combined))
        scale = self.gamma * (wanted / length.clamp_min(TINY)).clamp_min(1)
        for weight, gradient in zip(weights, torch._foreach_mul(combined, list(scale.unbind())), strict=True):
            weight.grad = gradient
        return share, cosine


def shortest(joint: list[Tensor], own: list[Tensor]) -> tuple[Tensor, Tensor]:
    """k and cos(g, e) of two gradients, each a list of tensors."""
    g = torch.cat([gradient.flatten() for gradient in joint])
    e = torch.cat([gradient.flatten() for gradient in own])
    gg, ee, ge = g @ g, e @ e, g @ e
    cosine = ge / (gg.sqrt() * ee.sqrt()).clamp_min(TINY)
    least = ((ee - ge) / (gg + ee - 2 * ge).clamp_min(TINY)).clamp(0.001, 0.999)
    return torch.where(cosine > 0, 0.5, least), cosine
