"""OPM, on-the-fly prediction modulation: Wei et al., 'On-the-fly Modulation for Balanced Multimodal Learning', IEEE
TPAMI, 2024.

At every step, for each modality m of M, with s_m and their mean ratios ρ_m as in `ogm`:

    q_m = min(q (1 + λ tanh(ρ_m − 1)), 1) where ρ_m > 1, else 0           how often m's feature is left out
    θ   = Σ_m q_m D_m / Σ_m D_m                                          the share of numbers that is left out

With probability p the feature h_m of each sample is replaced by zeros with probability q_m, sample by sample, and what
is left is divided by 1 − θ. The loss is CE(f) of that.

Deviations:
- The published code takes samples out of the loss that lost every modality. There are none: the worst modality has
  ρ ≤ 1, hence q = 0.
- Every ratio is taken from the scores as they are. In a published copy a division in place changes the scores that the
  next ratio is made of.
- The paper has two modalities. With more, every ratio is an average over the others.
"""

import torch
from torch import Tensor

from agm.distributed import LossFunction, cross_entropy
from agm.methods.method import Windowed
from agm.methods.ogm import ratios, scores
from agm.methods.parameters import NonNegative, Probability, Window
from agm.models.multimodal import Inputs, Model


class OPM(Windowed):
    """OPM for any number of modalities; outside the window of epochs it is plain joint training.

    Args:
        base: q, how often the feature of a modality that is hardly better than the others is left out.
        strength: λ, how much more often that of one far better is.
        share: p, share of the steps that leave anything out; 0 is plain joint training.
        window: epochs of modulation.
    """

    needs_features = True
    classification = True

    def __init__(
        self,
        model: Model,
        *,
        loss_fn: LossFunction = cross_entropy,
        base: Probability = 0.5,
        strength: NonNegative = 0.5,
        share: Probability = 0.7,
        window: Window = Window(first=6),
    ) -> None:
        super().__init__(model, loss_fn=loss_fn)
        self.base, self.strength, self.share, self.window = base, strength, share, window

    def modulated_loss(self, inputs: Inputs, targets: Tensor) -> Tensor:
        features = self.model.encode(inputs)
        score = scores(self.model, inputs, features, targets)
        ratio = ratios(score)
        drop = probabilities(ratio, self.base, self.strength)
        self.report(drop=drop, score=score, ratio=ratio)
        return self.mean_loss(self.model.fusion(dropped(features, drop, self.share)), targets)


def probabilities(ratio: Tensor, base: float, strength: float) -> Tensor:
    """q_m from ρ_m, `[M] → [M]`."""
    better = (ratio - 1).clamp_min(0).tanh()
    return torch.where(better > 0, (base * (1 + strength * better)).clamp_max(1), 0.0)


def dropped(features: Inputs, drop: Tensor, share: float) -> Inputs:
    """The features `{m: [B, …]}` with those of modality m left out with probability `drop[m]`, in `share` of calls."""
    first = next(iter(features.values()))
    dims = [h.shape[-1] for h in features.values()]
    theta = sum(q * dim for q, dim in zip(drop, dims, strict=True)) / sum(dims)
    draws = torch.rand(len(drop), len(first), dtype=drop.dtype, device=drop.device)
    executed = torch.rand((), dtype=drop.dtype, device=drop.device) < share
    factors = torch.where(executed, (draws >= drop.unsqueeze(1)) / (1 - theta), 1.0).to(first.dtype)
    kept = {}
    for (name, h), factor in zip(features.items(), factors, strict=True):
        kept[name] = h * factor.view(-1, *[1] * (h.ndim - 1))
    return kept
