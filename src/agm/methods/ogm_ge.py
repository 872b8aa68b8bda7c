"""OGM-GE, on-the-fly gradient modulation with generalisation enhancement: Peng et al., 'Balanced Multimodal Learning
via On-the-fly Gradient Modulation', CVPR 2022.

As `ogm`, and every gradient tensor g of the encoders gets Gaussian noise of its own spread:

    g ← k_m g + N(0, σ²)        with σ = std(g) + 1e-8, taken before the scaling

entry by entry, also where k_m = 1. A tensor of one entry has std 0.

Deviations: those of `ogm`.
"""

import torch
from torch import Tensor

from agm.methods.method import gradients
from agm.methods.ogm import OGM


class OGMGE(OGM):
    """OGM-GE for any number of modalities; outside the window of epochs it is plain joint training.

    Args:
        alpha: strength of the modulation; 0 is joint training with the noise alone.
        window: epochs of modulation.
    """

    @torch.no_grad()
    def modulate(self) -> None:
        if self.coefficient is None:
            return
        encoder_gradients: list[Tensor] = []
        for encoder in self.model.encoders.values():
            encoder_gradients += gradients(encoder.parameters())
        sigmas = spreads(encoder_gradients)
        super().modulate()
        # One tensor's noise at a time: that of all weights would take as much memory as they do, anew in each step.
        for gradient, sigma in zip(encoder_gradients, sigmas, strict=True):
            gradient.addcmul_(torch.randn_like(gradient), sigma)


def spreads(tensors: list[Tensor]) -> list[Tensor]:
    """σ of each tensor, a scalar: the standard deviation of its entries + 1e-8; one entry has none."""
    deviations = []
    for tensor in tensors:
        deviations.append(tensor.std() if tensor.numel() > 1 else tensor.new_zeros(()))
    return list(torch._foreach_add(deviations, 1e-8))
