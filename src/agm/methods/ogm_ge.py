"""OGM-GE, on-the-fly gradient modulation with generalisation enhancement: Peng et al., 'Balanced Multimodal Learning
via On-the-fly Gradient Modulation', CVPR 2022.

As `ogm`, and every gradient tensor g of the encoders gets Gaussian noise of its own spread:

    g ← k_m g + N(0, σ²)        with σ = std(g) + 1e-8, taken before the scaling

entry by entry, also where k_m = 1. A tensor of one entry has std 0.

Deviations: those of `ogm`.
"""

from typing import Literal

import torch
from torch import Tensor

from agm.methods.ogm import Ogm
from agm.models.multimodal import MultimodalModel


class OgmGe(Ogm):
    """OGM-GE for any number of modalities; outside the window of epochs it is plain joint training."""

    class Config(Ogm.Config):
        name: Literal["ogm_ge"]

    config: Config

    def modulate(self, model: MultimodalModel, coefficient: Tensor) -> None:
        gradients = [weight.grad for weight in model.encoders.parameters() if weight.grad is not None]
        noise = noise_like(gradients)
        super().modulate(model, coefficient)
        torch._foreach_add_(gradients, noise)


@torch.no_grad()
def noise_like(gradients: list[Tensor]) -> list[Tensor]:
    """N(0, σ²) in the shape of each tensor, σ being its standard deviation + 1e-8."""
    sizes = [gradient.numel() for gradient in gradients]
    # One draw and one product for all of them: on a GPU a launch for each costs more than the arithmetic.
    drawn = torch.randn(sum(sizes), dtype=gradients[0].dtype, device=gradients[0].device).split(sizes)
    noise = [part.view_as(gradient) for part, gradient in zip(drawn, gradients, strict=True)]
    torch._foreach_mul_(noise, [spread(gradient) for gradient in gradients])
    return noise


def spread(gradient: Tensor) -> Tensor:
    """The standard deviation of all entries + 1e-8, a scalar; one entry has none."""
    return (gradient.std() if gradient.numel() > 1 else gradient.new_zeros(())) + 1e-8
