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

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from agm.attribution import mono_modal_logits
from agm.methods.method import Data, Method, Network, Past, gradients
from agm.methods.ogm import label_scores
from agm.models.multimodal import Inputs, MultimodalModel
from agm.pipeline.config import schema

Strength = Annotated[float, Field(ge=0)]


class InfoReg(Method):
    """InfoReg for any number of modalities and any fusion."""

    class Config(schema.MethodBlock, extra="forbid"):
        name: Literal["inforeg"]
        beta: Strength | dict[str, Strength] = 0.95
        """How firmly an encoder is held back: one for all, or by modality (published: audio .95, video .1)."""
        threshold: float = 0.05
        """K: growth of the trace above which a modality is held back."""
        window: schema.Positive = 10
        """n: epochs in each of the two means, and of the prime learning window."""

    config: Config

    def __init__(self, config: Config, model: MultimodalModel, past: Past | None = None) -> None:
        super().__init__(config, model, past)
        count, beta = len(self.modalities), config.beta
        strengths = [beta[name] for name in self.modalities] if isinstance(beta, dict) else [beta] * count
        self.register_buffer("beta", torch.tensor(strengths, dtype=torch.float64), persistent=False)
        self.register_buffer("growth", torch.ones(count, dtype=torch.float64), persistent=False)
        self.register_buffer("traces", torch.zeros(config.window + 1, count, dtype=torch.float64))
        self.register_buffer("trace_sum", torch.zeros(count, dtype=torch.float64))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self.starts: list[list[Tensor]] = []
        self.coefficient: Tensor | None = None

    @classmethod
    def refusal(cls, config: schema.MethodBlock, network: Network) -> str | None:
        if isinstance(config.beta, dict) and sorted(config.beta) != sorted(network.dims):
            return f"beta: expected one number, or one for each of {list(network.dims)}, found {list(config.beta)}"
        return None

    def start_epoch(self, epoch: int, model: MultimodalModel, data: Data) -> None:
        if self.steps > 0:
            self._end_epoch()
        self.growth = growth(self.traces)
        self.starts = [[weight.detach().clone() for weight in each.parameters()] for each in model.encoders.values()]

    def _end_epoch(self) -> None:
        """Put the trace of the epoch that is over in front of the others."""
        self.traces = torch.cat([(self.trace_sum / self.steps).unsqueeze(0), self.traces[:-1]])
        self.trace_sum, self.steps = torch.zeros_like(self.trace_sum), torch.zeros_like(self.steps)

    def loss(self, model: MultimodalModel, inputs: Inputs, labels: Tensor) -> Tensor:
        features = model.encode(inputs)
        logits = model.fusion(features)
        own = mono_modal_logits(model, inputs, features)
        score = label_scores(own.detach(), labels)
        growing = self.growth > self.config.threshold
        self.coefficient = torch.where(growing, self.beta, 0.0) * leads(score)
        self.report(coefficient=self.coefficient, score=score, growth=self.growth)
        return cross_entropy(logits, labels) + torch.stack([cross_entropy(each, labels) for each in own]).sum()

    def backward(self, model: MultimodalModel, loss: Tensor) -> None:
        super().backward(model, loss)
        encoders = model.encoders.values()
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
    found = gradients(encoder.parameters())
    if not found:
        return like.new_zeros(())
    return torch.stack(torch._foreach_norm(found)).to(like.dtype).square().sum()


@torch.no_grad()
def hold_back(encoder: nn.Module, start: list[Tensor], factor: Tensor) -> None:
    """Add factor · (θ − θ_start) to the gradients of an encoder."""
    pairs = zip(encoder.parameters(), start, strict=True)
    moved = [(weight, before) for weight, before in pairs if weight.grad is not None]
    if moved:
        weights, befores = map(list, zip(*moved, strict=True))
        ways = torch._foreach_mul(torch._foreach_sub(weights, befores), factor.to(weights[0].dtype))
        torch._foreach_add_([weight.grad for weight in weights], ways)
