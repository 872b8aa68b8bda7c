"""AGM, adaptive gradient modulation: Li et al., 'Boosting Multi-modal Model Performance with Adaptive Gradient
Modulation', ICCV 2023.

At every step, for each modality m of M, from the mono-modal responses φ_m (`agm.attribution`):

    s_m = mean over the batch of −log max(softmax(φ_m)[y], 1e-8)      how badly m fits
    r_m = exp(M/(M−1) · (mean_k s_k − s_m))                           > 1: m fits better than the others now
    τ_m = r_m's formula on the means of s over all earlier steps      1 at the first step
    κ_m = exp(α · min(τ_m − r_m, c))

and the gradient that flows back into φ_m is multiplied by κ_m. The loss is CE(Σ_m φ_m), in value the plain one. The
paper prints r − τ in the exponent; its authors confirm that τ − r, as in their code, is meant.
"""

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from agm.attribution import mono_modal_responses
from agm.config import schema
from agm.methods.method import Method
from agm.models.multimodal import Inputs, MultimodalModel


class Agm(Method):
    """Exact AGM for any number of modalities; outside the window of epochs it is plain joint training."""

    config: schema.Agm

    def __init__(self, config: schema.Agm, modalities: list[str]) -> None:
        super().__init__(config, modalities)
        self.active = True
        self.steps = 0
        self.score_sum = torch.zeros(len(modalities), dtype=torch.float64)
        self.last: dict[str, Tensor] = {}

    def start_epoch(self, epoch: int) -> None:
        window = self.config.window
        self.active = window.first <= epoch and (window.last is None or epoch <= window.last)
        self.last = {}

    def loss(self, model: MultimodalModel, inputs: Inputs, labels: Tensor) -> Tensor:
        if not self.active:
            return super().loss(model, inputs, labels)
        responses = mono_modal_responses(model, inputs)
        kappa = self._coefficients(scores(responses.detach(), labels))
        responses.register_hook(lambda gradient: gradient * kappa.to(gradient).view(-1, 1, 1))
        return cross_entropy(responses.sum(dim=0), labels)

    def _coefficients(self, score: Tensor) -> Tensor:
        """κ of this step, `[M]` float64, and the running means brought up to date behind it."""
        self.score_sum = self.score_sum.to(score.device)
        mean = self.score_sum / max(self.steps, 1)
        ratio = ratios(score)
        kappa = coefficients(ratio, reference=ratios(mean), alpha=self.config.alpha, bound=self.config.bound)
        self.score_sum = self.score_sum + score
        self.steps += 1
        self.last = {
            f"{name}_{modality}": value[index]
            for name, value in (("kappa", kappa), ("score", score), ("ratio", ratio))
            for index, modality in enumerate(self.modalities)
        }
        return kappa

    def diagnostics(self) -> dict[str, Tensor]:
        return self.last

    def state(self) -> dict[str, Tensor]:
        return {"score_sum": self.score_sum, "steps": torch.tensor(self.steps)}

    def restore(self, state: dict[str, Tensor]) -> None:
        self.score_sum, self.steps = state["score_sum"], int(state["steps"])


def scores(responses: Tensor, labels: Tensor) -> Tensor:
    """s_m of every modality: `[M, B, C]` and `[B]` to `[M]` float64."""
    chosen = responses.double().softmax(dim=2)[:, torch.arange(len(labels), device=labels.device), labels]
    return -chosen.clamp_min(1e-8).log().mean(dim=1)


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
