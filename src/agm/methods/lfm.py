"""LFM: Yang et al., 'Facilitating Multimodal Classification via Dynamically Learning Modality Gap', NeurIPS 2024.

Beside the labels the modalities fit one another. With p_m = softmax(u_m) (`agm.attribution.mono_modal_logits`),

    A = mean over the pairs i < j of ½ [KL(m ‖ p_i) + KL(m ‖ p_j)],    m = ½ (p_i + p_j)
    loss = 2 (α₀ CE(f) + α₁ A),    α₀ = 1 − α₁

The authors' runs begin with the alignment, and come to the labels: α₀ is .205, .301, .437, .539 and .821 at the start,
after 1/7, 1/3 and 2/3, and at the end of training. This schedule, with straight lines between, is the default.

The rule that is to learn it (`weight: learned`): before each epoch, on the first quarter of the first validation batch,
with θ all weights of the network, n of them, and L = α₀ CE(f) + α₁ A,

    α₁ ← α₁ − η/n Σ (∂²L/∂θ² · ∇CE(f)),  within .05 … .95;    at first .95; η is halved every 20 epochs.

Deviations:
- The schedule. With the published η and the mean over all weights the rule does not move α₁: over the 15 epochs of the
  demo by 6e-7. The loss would stay .05 CE(f) + .95 A.
- A published copy gives it the test clips in the place of validation; here there is no access to them.
- It takes the mean over the first weight tensor only, whichever that is; here it is over all of them, and in
  evaluation mode, so that running statistics are those of training.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import combinations
from math import log
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import cross_entropy

from agm.attribution import evaluating, mono_modal_logits
from agm.methods.method import Data, Method, Past
from agm.models.multimodal import Inputs, MultimodalModel
from agm.pipeline.config import schema

LEAST, MOST = 0.05, 0.95
"""Bounds of α₁."""
SHARE_DONE, LABEL_WEIGHT = (0, 1 / 7, 1 / 3, 2 / 3, 1), (0.205, 0.301, 0.437, 0.539, 0.821)
"""α₀ over the authors' runs."""


class Lfm(Method):
    """LFM for any number of modalities and any fusion."""

    class Config(schema.MethodBlock, extra="forbid"):
        name: Literal["lfm"]
        weight: Literal["schedule", "learned"] = "schedule"
        """Where α₀ and α₁ come from: the course of the authors' runs, or the rule that is to learn them."""
        alpha: Annotated[float, Field(ge=LEAST, le=MOST)] = 0.95
        """α₁ at the start where it is learned: weight of the alignment; that of the labels is 1 − α₁."""
        rate: Annotated[float, Field(ge=0)] = 1e-4
        """η: how fast α₁ is learned; 0 keeps it."""
        halving: schema.Positive = 20
        """Epochs after which η is halved, again and again."""

    config: Config

    def __init__(self, config: Config, model: MultimodalModel, past: Past | None = None) -> None:
        super().__init__(config, model, past)
        self.register_buffer("alpha", torch.tensor(config.alpha, dtype=torch.float64))

    def start_epoch(self, epoch: int, model: MultimodalModel, data: Data) -> None:
        if self.config.weight == "schedule":
            self.alpha.fill_(1 - label_weight(epoch / max(1, data.epochs - 1)))
        else:
            self._learn(epoch, model, data)
        self.diagnostics = {"weight_alignment": self.alpha.clone()}

    def _learn(self, epoch: int, model: MultimodalModel, data: Data) -> None:
        rate = self.config.rate * 0.5 ** (epoch // self.config.halving)
        inputs, labels, _ = next(data.batches("val"))
        count = max(1, len(labels) // 4)
        quarter = {name: x[:count] for name, x in inputs.items()}
        self.alpha -= rate * self._curvature(model, quarter, labels[:count])
        self.alpha.clamp_(LEAST, MOST)

    def loss(self, model: MultimodalModel, inputs: Inputs, labels: Tensor) -> Tensor:
        return 2 * self._combined(*self._parts(model, inputs, labels))

    def _parts(self, model: MultimodalModel, inputs: Inputs, labels: Tensor) -> tuple[Tensor, Tensor]:
        """CE(f) and A of a batch."""
        features = model.encode(inputs)
        joint = cross_entropy(model.fusion(features), labels)
        return joint, misalignment(mono_modal_logits(model, inputs, features))

    def _combined(self, joint: Tensor, apart: Tensor) -> Tensor:
        """L = α₀ CE(f) + α₁ A."""
        alpha = self.alpha.to(joint.dtype)
        return (1 - alpha) * joint + alpha * apart

    def _curvature(self, model: MultimodalModel, inputs: Inputs, labels: Tensor) -> Tensor:
        """Mean over all weights of ∂²L/∂θ² · ∇CE(f), `[]`."""
        weights = [weight for weight in model.parameters() if weight.requires_grad]
        with evaluating(model), twice_differentiable(model):
            joint, apart = self._parts(model, inputs, labels)
            direction = torch.autograd.grad(joint, weights, retain_graph=True, materialize_grads=True)
            slope = torch.autograd.grad(
                self._combined(joint, apart), weights, create_graph=True, materialize_grads=True
            )
            along = torch.stack([(g * v).sum() for g, v in zip(slope, direction, strict=True)]).sum()
            product = torch.autograd.grad(along, weights, materialize_grads=True)
        total = torch.stack([each.sum(dtype=torch.float64) for each in product]).sum()
        return total / sum(weight.numel() for weight in weights)


def label_weight(done: float) -> float:
    """α₀ of the authors' runs after that share of training."""
    return float(np.interp(done, SHARE_DONE, LABEL_WEIGHT))


def misalignment(logits: Tensor) -> Tensor:
    """A from u, `[M, B, C] → []`; of a single modality 0."""
    # Float32 at least, whatever the autocast.
    shares = logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(dim=2)
    pairs = [(shares[i], shares[j]) for i, j in combinations(range(len(shares)), 2)]
    return torch.stack([divergence(*pair) for pair in pairs]).mean() if pairs else shares.new_zeros(())


def divergence(first: Tensor, second: Tensor) -> Tensor:
    """½ [KL(m ‖ p) + KL(m ‖ q)] of log p and log q with m = ½ (p + q), mean over the batch: `[B, C]` each to `[]`."""
    middle = torch.logaddexp(first, second) - log(2)
    return (middle.exp() * (middle - (first + second) / 2)).sum(dim=1).mean()


@contextmanager
def twice_differentiable(model: nn.Module) -> Iterator[None]:
    """Kernels whose gradients have gradients: not those of fused attention, cuDNN's LSTM or compiled modules."""
    with ExitStack() as stack:
        stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        stack.enter_context(torch.compiler.set_stance("force_eager"))
        if any(isinstance(module, nn.RNNBase) for module in model.modules()):
            stack.enter_context(torch.backends.cudnn.flags(enabled=False))
        yield
