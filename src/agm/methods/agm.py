"""AGM, adaptive gradient modulation: Li et al., 'Boosting Multi-modal Model Performance with Adaptive Gradient
Modulation', ICCV 2023.

At every step, for each modality m of M, from the mono-modal responses φ_m (`agm.attribution`):

    s_m = mean over the batch of −log max(softmax(φ_m)[y], 1e-8)      how badly m fits
    r_m = exp(M/(M−1) · (mean_k s_k − s_m))                           > 1: m fits better than the others now
    τ_m = r_m's formula on the means of s over all earlier steps      1 at the first step; those before the window too
    κ_m = exp(α · min(τ_m − r_m, c))

and the gradient that flows back into φ_m is multiplied by κ_m. The loss is CE(Σ_m φ_m), in value the plain one. The
paper prints r − τ in the exponent; its authors confirm that τ − r, as in their code, is meant.
"""

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from agm import distributed
from agm.attribution import mono_modal_responses
from agm.methods.method import Data, Past, Windowed
from agm.models.multimodal import Inputs, MultimodalModel
from agm.pipeline.config import schema


class Agm(Windowed):
    """AGM for any number of modalities; outside the window of epochs it is plain joint training."""

    data_parallel = True

    class Config(schema.MethodBlock, extra="forbid"):
        name: Literal["agm"]
        alpha: Annotated[float, Field(ge=0)] = 1.0
        """Strength of the modulation; 0 is plain joint training."""
        bound: schema.PositiveFloat | None = None
        """Upper bound c on τ − r inside the exponent; null is none."""
        window: schema.Window = schema.Window()
        coalitions: Literal["exact", "shared"] = "exact"
        """shared: the masked passes take the features of the full pass, at half the cost. The same only for encoders
        without BatchNorm and dropout."""

    config: Config

    def __init__(self, config: Config, model: MultimodalModel, past: Past | None = None) -> None:
        super().__init__(config, model, past)
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self.register_buffer("score_sum", torch.zeros(len(self.modalities), dtype=torch.float64))
        self.waiting = False

    def start_epoch(self, epoch: int, model: MultimodalModel, data: Data) -> None:
        super().start_epoch(epoch, model, data)
        self.waiting = epoch < self.config.window.first

    def loss(self, model: MultimodalModel, inputs: Inputs, labels: Tensor) -> Tensor:
        if not self.waiting:
            return super().loss(model, inputs, labels)
        responses, _ = self._scored(model, inputs, labels)
        return distributed.cross_entropy(responses.sum(dim=0), labels)

    def modulated_loss(self, model: MultimodalModel, inputs: Inputs, labels: Tensor) -> Tensor:
        reference = ratios(self.score_sum / self.steps.clamp_min(1))
        responses, score = self._scored(model, inputs, labels)
        ratio = ratios(score)
        kappa = coefficients(ratio, reference=reference, alpha=self.config.alpha, bound=self.config.bound)
        self.report(kappa=kappa, score=score, ratio=ratio)
        responses.register_hook(lambda gradient: gradient * kappa.to(gradient).view(-1, 1, 1))
        return distributed.cross_entropy(responses.sum(dim=0), labels)

    def _scored(self, model: MultimodalModel, inputs: Inputs, labels: Tensor) -> tuple[Tensor, Tensor]:
        """φ `[M, B, C]` and s `[M]` of this step, which the running means take in."""
        responses = mono_modal_responses(model, inputs, shared=self.config.coalitions == "shared")
        score = scores(responses.detach(), labels)
        self.score_sum += score
        self.steps += 1
        return responses, score


def scores(responses: Tensor, labels: Tensor) -> Tensor:
    """s_m of every modality: `[M, B, C]` and `[B]` to `[M]` float64."""
    chosen = responses.double().softmax(dim=2)[:, torch.arange(len(labels), device=labels.device), labels]
    return -distributed.mean(chosen.clamp_min(1e-8).log())


def ratios(score: Tensor) -> Tensor:
    """r_m from s_m, `[M] → [M]`; a single modality has nobody to be compared with: 1."""
    count = len(score)
    if count == 1:
        return torch.ones_like(score)
    return (count / (count - 1) * (score.mean() - score)).exp()


def coefficients(ratio: Tensor, *, reference: Tensor, alpha: float, bound: float | None) -> Tensor:
    """κ_m = exp(α · min(τ_m − r_m, c)), `[M]`."""
    gap = reference - ratio
    if bound is not None:
        gap = gap.clamp_max(bound)
    return (alpha * gap).exp()
