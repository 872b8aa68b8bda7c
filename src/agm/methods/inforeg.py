"""InfoReg, regulation of what the modalities take in: Huang et al., 'Adaptive Unimodal Regulation for Balanced
Multimodal Information Acquisition', CVPR 2025.

The loss is CE(f) + Σ_m CE(u_m). At every step, for each modality m of M, with θ_m the weights of its encoder,

    s_m = Σ_i softmax(u_m)[i, y_i]                              how well m fits the batch
    F_m = mean over the epoch's steps of ‖∇θ_m‖²                the trace of the Fisher information
    k_m = (F̄_m − F̄_m') / F̄_m      F̄: mean over the last n epochs; F̄': over the n that ended one epoch earlier

and where m has the largest s and k_m > K, so that it is still taking in a lot, its encoder is held back:

    ∇θ_m ← ∇θ_m + β_m exp(tanh(s_m − mean_{k ≠ m} s_k)) · (θ_m − θ_m at the start of the epoch).

Before the first epoch F is 0, so that k_m is about 1/t after t of the first n epochs: the paper's prime learning
window, in which the rule is always active. Later it is active as long as the trace grows. In the first epoch k_m = 1.

Deviations:
- Every modality is judged by its own trace and can be held back. The released code looks at the audio's for both, and
  tests the same condition twice: the video never is.
- The trace is the sum over all weights of the encoder, of the gradient as it was before it was changed. The released
  code adds up the means of some layers' after the change.
- The paper has two modalities. With more, the largest score is compared with the mean of the others.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from agm.attribution import unimodal_logits
from agm.distributed import LossFunction, cross_entropy
from agm.methods.method import Loader, Method, Network, gradients
from agm.methods.ogm import label_scores
from agm.methods.parameters import Count, NonNegative
from agm.models.multimodal import Inputs, Model


class InfoReg(Method):
    """InfoReg for any number of modalities and any fusion.

    Args:
        beta: how firmly an encoder is held back: one number for all, or by modality (published: audio .95, video .1).
        threshold: K, growth of the trace above which a modality is held back.
        window: n, epochs in each of the two means, and of the prime learning window.
    """

    needs_encoders = True
    classification = True
    # The trace is a sum over steps, and what holds an encoder back is no gradient of the loss.
    scale_free = False

    beta: Tensor
    growth: Tensor
    traces: Tensor
    trace_sum: Tensor
    steps: Tensor

    def __init__(
        self,
        model: Model,
        *,
        loss_fn: LossFunction = cross_entropy,
        beta: NonNegative | dict[str, NonNegative] = 0.95,
        threshold: float = 0.05,
        window: Count = 10,
    ) -> None:
        super().__init__(model, loss_fn=loss_fn)
        self.threshold = threshold
        count = len(self.modalities)
        strengths = [beta] * count
        if isinstance(beta, dict):
            strengths = [beta[name] for name in self.modalities]
        zeros = torch.zeros(count, dtype=torch.float64, device=self.device)
        self.register_buffer("beta", zeros.new_tensor(strengths), persistent=False)
        self.register_buffer("growth", torch.ones_like(zeros), persistent=False)
        self.register_buffer("traces", zeros.repeat(window + 1, 1))
        self.register_buffer("trace_sum", zeros)
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64, device=self.device))
        self.starts: list[list[Tensor]] = []
        self.coefficient: Tensor = torch.zeros_like(zeros)

    @classmethod
    def refusal(cls, network: Network, **arguments: Any) -> str | None:
        beta, names = arguments.get("beta"), list(network.modalities)
        if isinstance(beta, Mapping) and sorted(beta) != sorted(names):
            return f"beta: expected one number, or one for each of {names}, found {list(beta)}"
        return super().refusal(network, **arguments)

    def start_epoch(
        self, epoch: int, *, train: Loader | None = None, val: Loader | None = None, epochs: int | None = None
    ) -> None:
        if self.steps > 0:
            self._end_epoch()
        self.growth = growth(self.traces)
        self.starts = []
        for encoder in self.model.encoders.values():
            self.starts.append([weight.detach().clone() for weight in encoder.parameters()])

    def _end_epoch(self) -> None:
        """Put the trace of the epoch that is over in front of the others."""
        self.traces = torch.cat([(self.trace_sum / self.steps).unsqueeze(0), self.traces[:-1]])
        self.trace_sum, self.steps = torch.zeros_like(self.trace_sum), torch.zeros_like(self.steps)

    def loss(self, inputs: Inputs, targets: Tensor) -> Tensor:
        if not self.starts:
            raise RuntimeError("InfoReg holds weights at where they were when the epoch began: call start_epoch first")
        features = self.model.encode(inputs)
        outputs = self.model.fusion(features)
        own = unimodal_logits(self.model, inputs, features)
        score = label_scores(own.detach(), targets)
        growing = self.growth > self.threshold
        self.coefficient = torch.where(growing, self.beta, 0.0) * leads(score)
        self.report(coefficient=self.coefficient, score=score, growth=self.growth)
        return self.mean_loss(outputs, targets) + self.sum_of_losses(own, targets)

    def modulate(self) -> None:
        encoders = self.model.encoders.values()
        self.trace_sum += torch.stack([squared(encoder, like=self.trace_sum) for encoder in encoders])
        self.steps += 1
        for encoder, start, factor in zip(encoders, self.starts, self.coefficient, strict=True):
            hold_back(encoder, start, factor)


def growth(traces: Tensor) -> Tensor:
    """k_m from F_m of the last n + 1 epochs, the latest first and 0 before the first: `[n + 1, M] → [M]`."""
    now, before = traces[:-1].mean(dim=0), traces[1:].mean(dim=0)
    return torch.where(now > 0, (now - before) / now.clamp_min(torch.finfo(now.dtype).tiny), 1.0)


def leads(score: Tensor) -> Tensor:
    """exp(tanh(s_m − mean of the others)) of the largest s_m, 0 of all others: `[M] → [M]`. Alone, nobody leads."""
    count = len(score)
    if count == 1:
        return torch.zeros_like(score)
    gap = score - (score.sum() - score) / (count - 1)
    first = torch.arange(count, device=score.device) == score.argmax()
    return torch.where(first, gap.tanh().exp(), 0.0)


def squared(encoder: nn.Module, like: Tensor) -> Tensor:
    """‖∇θ‖² over all weights of an encoder, a scalar of the type and on the device of `like`."""
    grads = gradients(encoder.parameters())
    if not grads:
        return like.new_zeros(())
    return torch.stack(torch._foreach_norm(grads)).to(like.dtype).square().sum()


@torch.no_grad()
def hold_back(encoder: nn.Module, start: list[Tensor], factor: Tensor) -> None:
    """Add factor · (θ − θ_start) to the gradients of an encoder."""
    pairs = zip(encoder.parameters(), start, strict=True)
    moved = [(weight, before) for weight, before in pairs if weight.grad is not None]
    if moved:
        weights, befores = map(list, zip(*moved, strict=True))
        ways = torch._foreach_mul(torch._foreach_sub(weights, befores), factor.to(weights[0].dtype))
        torch._foreach_add_([weight.grad for weight in weights], ways)
