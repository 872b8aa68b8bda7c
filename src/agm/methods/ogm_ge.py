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

from agm.methods.method import gradients
from agm.methods.ogm import Ogm
from agm.models.multimodal import MultimodalModel


class OgmGe(Ogm):
    """OGM-GE for any number of modalities; outside the window of epochs it is plain joint training."""

    class Config(Ogm.Config):
        name: Literal["ogm_ge"]

    config: Config

    @torch.no_grad()
    def modulate(self, model: MultimodalModel, coefficient: Tensor) -> None:
        found = gradients(model.encoders.parameters())
        sigmas = spreads(found)
        super().modulate(model, coefficient)
        # One tensor's noise at a time: that of all weights would take as much memory as they do, anew in each step.
        for gradient, sigma in zip(found, sigmas, strict=True):
            gradient.addcmul_(torch.randn_like(gradient), sigma)


def spreads(tensors: list[Tensor]) -> list[Tensor]:
    """σ of each tensor, a scalar: the standard deviation of its entries + 1e-8; one entry has none."""
    deviations = [each.std() if each.numel() > 1 else each.new_zeros(()) for each in tensors]
    return torch._foreach_add(deviations, 1e-8)
