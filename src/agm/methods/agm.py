"""AGM, adaptive gradient modulation: Li et al., 'Boosting Multi-modal Model Performance with Adaptive Gradient
Modulation', ICCV 2023.

At every step, for each modality m of M, from the unimodal responses φ_m (`agm.attribution`):

    s_m = mean over the batch of −log max(softmax(φ_m)[y], 1e-8)      how badly m fits
    r_m = exp(M/(M−1) · (mean_k s_k − s_m))                           > 1: m fits better than the others now
    τ_m = r_m's formula on the means of s over all earlier steps      1 at the first step; those before the window too
    κ_m = exp(α · min(τ_m − r_m, c))

and the gradient that flows back into φ_m is multiplied by κ_m. The loss is CE(Σ_m φ_m), in value the plain one. The
paper prints r − τ in the exponent; its authors confirm that τ − r, as in their code, is meant.
"""

from typing import Literal

import torch
from torch import Tensor

from agm import distributed
from agm.attribution import modality_responses
from agm.distributed import LossFunction, cross_entropy
from agm.methods.method import Loader, Windowed
from agm.methods.parameters import NonNegative, Positive, Window
from agm.models.multimodal import Inputs, Model


class AGM(Windowed):
    """AGM for any number of modalities and any model; outside the window of epochs it is plain joint training.

    For a loss other than the cross-entropy s_m is the mean loss of φ_m.

    Args:
        alpha: strength of the modulation; 0 is plain joint training.
        bound: upper bound c on τ − r inside the exponent; None is none.
        window: epochs of modulation.
        coalitions: "shared": the masked passes take the features of the full pass, at half the cost. The same only for
            encoders without BatchNorm and dropout.
    """

    data_parallel = True

    steps: Tensor
    score_sum: Tensor

    def __init__(
        self,
        model: Model,
        *,
        loss_fn: LossFunction = cross_entropy,
        alpha: NonNegative = 1.0,
        bound: Positive | None = None,
        window: Window = Window(),
        coalitions: Literal["exact", "shared"] = "exact",
    ) -> None:
        super().__init__(model, loss_fn=loss_fn)
        self.alpha, self.bound, self.window, self.coalitions = alpha, bound, window, coalitions
        self.waiting = False
        zeros = torch.zeros(len(self.modalities), dtype=torch.float64, device=self.device)
        self.register_buffer("score_sum", zeros)
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64, device=self.device))

    def start_epoch(
        self, epoch: int, *, train: Loader | None = None, val: Loader | None = None, epochs: int | None = None
    ) -> None:
        super().start_epoch(epoch)
        self.waiting = epoch < self.window.first

    def loss(self, inputs: Inputs, targets: Tensor) -> Tensor:
        if not self.waiting:
            return super().loss(inputs, targets)
        responses, _ = self._scored(inputs, targets)
        return self.mean_loss(responses.sum(dim=0), targets)

    def modulated_loss(self, inputs: Inputs, targets: Tensor) -> Tensor:
        reference = ratios(self.score_sum / self.steps.clamp_min(1))
        responses, score = self._scored(inputs, targets)
        ratio = ratios(score)
        kappa = coefficients(ratio, reference=reference, alpha=self.alpha, bound=self.bound)
        self.report(kappa=kappa, score=score, ratio=ratio)
        shape = (-1, *[1] * (responses.ndim - 1))
        responses.register_hook(lambda gradient: gradient * kappa.to(gradient).view(shape))
        return self.mean_loss(responses.sum(dim=0), targets)

    def _scored(self, inputs: Inputs, targets: Tensor) -> tuple[Tensor, Tensor]:
        """φ `[M, B, C]` and s `[M]` of this step, which the running means take in."""
        responses = modality_responses(self.model, inputs, shared=self.coalitions == "shared")
        score = scores(responses.detach(), targets, self.loss_fn)
        self.score_sum += score
        self.steps += 1
        return responses, score


def scores(responses: Tensor, targets: Tensor, loss_fn: LossFunction = cross_entropy) -> Tensor:
    """s_m of every modality: `[M, B, C]` and `[B]` to `[M]` float64."""
    if loss_fn is not cross_entropy:
        losses = torch.stack([distributed.sample_losses(loss_fn, response, targets) for response in responses])
        return distributed.mean(losses.double())
    rows = torch.arange(len(targets), device=targets.device)
    chosen = responses.double().softmax(dim=2)[:, rows, targets]
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
