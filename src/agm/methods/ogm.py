"""OGM, on-the-fly gradient modulation: Peng et al., 'Balanced Multimodal Learning via On-the-fly Gradient Modulation',
CVPR 2022.

At every step, for each modality m of M, from the unimodal logits u_m (`agm.attribution.mono_modal_logits`):

    s_m = Σ_i softmax(u_m)[i, y_i]                      how well m fits the batch
    ρ_m = mean over k ≠ m of s_m / s_k                  > 1: better than the others
    k_m = 1 − tanh(α · ρ_m) where ρ_m > 1, else 1

and the gradients of m's encoder are multiplied by k_m before the optimizer's step. The coefficient jumps from 1 to
1 − tanh(α) at ρ_m = 1, as in the released code. With AdamW a scaled gradient makes almost the same step: use SGD.

Deviations:
- Every weight of an encoder is modulated, as the paper writes. The released code takes the four-dimensional ones
  only, the kernels of convolutions: a transformer would not be modulated at all.
- The encoder is reached as a module and not by the names of its weights, which in a published copy matched nothing in
  late fusion.
- The paper has two modalities. With more, every ratio is an average over the others; in a published extension only the
  last one is, the others stay sums.
- The score is that of the encoder's own features of this step, from the same pass as the loss.
"""

import torch
from torch import Tensor

from agm.attribution import unimodal_logits
from agm.distributed import LossFunction, cross_entropy
from agm.methods.method import Loader, Windowed, scale_gradients
from agm.methods.parameters import NonNegative, Window
from agm.models.multimodal import Inputs, Model


class OGM(Windowed):
    """OGM for any number of modalities; outside the window of epochs it is plain joint training.

    Args:
        alpha: strength of the modulation; 0 is plain joint training.
        window: epochs of modulation.
    """

    modulates_encoders = True
    classification = True

    def __init__(
        self,
        model: Model,
        *,
        loss_fn: LossFunction = cross_entropy,
        alpha: NonNegative = 0.3,
        window: Window = Window(),
    ) -> None:
        super().__init__(model, loss_fn=loss_fn)
        self.alpha, self.window = alpha, window
        self.coefficient: Tensor | None = None

    def start_epoch(
        self, epoch: int, *, train: Loader | None = None, val: Loader | None = None, epochs: int | None = None
    ) -> None:
        super().start_epoch(epoch)
        self.coefficient = None

    def modulated_loss(self, inputs: Inputs, targets: Tensor) -> Tensor:
        features = self.model.encode(inputs)
        outputs = self.model.fusion(features)
        score = scores(self.model, inputs, features, targets)
        ratio = ratios(score)
        self.coefficient = coefficients(ratio, self.alpha)
        self.report(coefficient=self.coefficient, score=score, ratio=ratio)
        return self.mean_loss(outputs, targets)

    def modulate(self) -> None:
        if self.coefficient is not None:
            scale_gradients(self.model.encoders.values(), self.coefficient)


@torch.no_grad()
def scores(model: Model, inputs: Inputs, features: Inputs, targets: Tensor) -> Tensor:
    """s_m of every modality from the features of the batch, `[M]` float64."""
    # No division by a score that has underflown.
    return label_scores(unimodal_logits(model, inputs, features), targets).clamp_min(torch.finfo(torch.float64).tiny)


def label_scores(logits: Tensor, labels: Tensor) -> Tensor:
    """Σ_i softmax(logits_m)[i, y_i] of every modality: `[M, B, C]` and `[B]` to `[M]` float64."""
    rows = torch.arange(len(labels), device=labels.device)
    return logits.double().softmax(dim=2)[:, rows, labels].sum(dim=1)


def ratios(score: Tensor) -> Tensor:
    """ρ_m from s_m, `[M] → [M]`; a single modality has nobody to be compared with: 1."""
    count = len(score)
    if count == 1:
        return torch.ones_like(score)
    return (score.unsqueeze(1) / score).fill_diagonal_(0).sum(dim=1) / (count - 1)


def coefficients(ratio: Tensor, alpha: float) -> Tensor:
    """k_m = 1 − tanh(α ρ_m) where ρ_m > 1, else 1: `[M] → [M]`."""
    return torch.where(ratio > 1, 1 - (alpha * ratio).tanh(), 1.0)
