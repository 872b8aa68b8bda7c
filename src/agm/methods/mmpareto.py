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

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from agm.methods.method import Method, Past, own_classifiers, pooled
from agm.models.multimodal import Inputs, MultimodalModel
from agm.pipeline.config import schema

TINY = 1e-30
"""In the place of a norm of zero: an encoder without a gradient."""


class MmPareto(Method):
    """MMPareto for any number of modalities and any fusion, at a second backward pass."""

    modulates_encoders = True

    class Config(schema.MethodBlock, extra="forbid"):
        name: Literal["mmpareto"]
        gamma: schema.PositiveFloat = 1.5
        """How much longer than the plain sum the encoders' gradient is."""

    config: Config

    def __init__(self, config: Config, model: MultimodalModel, past: Past | None = None) -> None:
        super().__init__(config, model, past)
        self.heads = own_classifiers(model.fusion)
        self.parts: tuple[Tensor, ...] = ()

    def loss(self, model: MultimodalModel, inputs: Inputs, labels: Tensor) -> Tensor:
        features = model.encode(inputs)
        joint = cross_entropy(model.fusion(features), labels)
        logits = [head(pooled(features[name])) for name, head in self.heads.items()]
        own = torch.stack([cross_entropy(each, labels) for each in logits]).sum()
        self.parts = joint, own
        return joint + own

    def backward(self, model: MultimodalModel, loss: Tensor) -> None:
        weights = [weight for weight in (*model.parameters(), *self.parameters()) if weight.requires_grad]
        joint, own = self.parts
        self.parts = ()
        first = torch.autograd.grad(joint, weights, retain_graph=True, materialize_grads=True)
        second = torch.autograd.grad(own, weights, materialize_grads=True)
        for weight, gradient in zip(weights, torch._foreach_add(first, second), strict=True):
            weight.grad = gradient
        pairs = {weight: pair for weight, *pair in zip(weights, first, second, strict=True)}
        found = [self._integrate(encoder, pairs) for encoder in model.encoders.values()]
        share, cosine = (torch.stack(each) for each in zip(*found, strict=True))
        self.report(weight=share, cosine=cosine)

    def _integrate(self, encoder: nn.Module, pairs: dict[nn.Parameter, list[Tensor]]) -> tuple[Tensor, Tensor]:
        """Put γG in the place of the gradients of one encoder; returns k and cos(g, e)."""
        weights = [weight for weight in encoder.parameters() if weight in pairs]
        joint, own = ([pairs[weight][side] for weight in weights] for side in (0, 1))
        share, cosine = shares(joint, own)
        combined = torch._foreach_mul(joint, 2 * share)
        torch._foreach_add_(combined, torch._foreach_mul(own, 2 * (1 - share)))
        wanted, there = (torch.stack(torch._foreach_norm(each)) for each in ([w.grad for w in weights], combined))
        scale = self.config.gamma * (wanted / there.clamp_min(TINY)).clamp_min(1)
        for weight, gradient in zip(weights, torch._foreach_mul(combined, list(scale.unbind())), strict=True):
            weight.grad = gradient
        return share, cosine


def shares(joint: list[Tensor], own: list[Tensor]) -> tuple[Tensor, Tensor]:
    """k and cos(g, e) of two gradients, each a list of tensors."""
    g, e = (torch.cat([gradient.flatten() for gradient in each]) for each in (joint, own))
    gg, ee, ge = g @ g, e @ e, g @ e
    cosine = ge / (gg.sqrt() * ee.sqrt()).clamp_min(TINY)
    shortest = ((ee - ge) / (gg + ee - 2 * ge).clamp_min(TINY)).clamp(0.001, 0.999)
    return torch.where(cosine > 0, 0.5, shortest), cosine
