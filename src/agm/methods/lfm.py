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
- A published copy gives it the test samples in the place of validation; here there is no access to them.
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
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from agm.attribution import evaluating, unimodal_logits
from agm.distributed import LossFunction, cross_entropy
from agm.methods.method import Loader, Method, batches
from agm.methods.parameters import Bounds, Count, NonNegative
from agm.models.multimodal import Inputs, Model

LEAST, MOST = 0.05, 0.95
"""Bounds of α₁."""
SHARE_DONE, LABEL_WEIGHT = (0, 1 / 7, 1 / 3, 2 / 3, 1), (0.205, 0.301, 0.437, 0.539, 0.821)
"""α₀ over the authors' runs."""


class LFM(Method):
    """LFM for any number of modalities and any model.

    Args:
        weight: where α₀ and α₁ come from: the course of the authors' runs ("schedule"), or the rule that is to learn
            them ("learned").
        alpha: α₁ at the start where it is learned: weight of the alignment; that of the labels is 1 − α₁.
        rate: η, how fast α₁ is learned; 0 keeps it.
        halving: epochs after which η is halved, again and again.
    """

    classification = True
    reads = ("val",)

    alpha: Tensor

    def __init__(
        self,
        model: Model,
        *,
        loss_fn: LossFunction = cross_entropy,
        weight: Literal["schedule", "learned"] = "schedule",
        alpha: Annotated[float, Bounds(ge=LEAST, le=MOST)] = 0.95,
        rate: NonNegative = 1e-4,
        halving: Count = 20,
    ) -> None:
        super().__init__(model, loss_fn=loss_fn)
        self.weight, self.rate, self.halving = weight, rate, halving
        self.register_buffer("alpha", torch.tensor(alpha, dtype=torch.float64, device=self.device))

    def start_epoch(
        self, epoch: int, *, train: Loader | None = None, val: Loader | None = None, epochs: int | None = None
    ) -> None:
        if self.weight == "schedule":
            if epochs is None:
                raise ValueError("the schedule of LFM depends on the length of training: start_epoch(epoch, epochs=…)")
            self.alpha.fill_(1 - label_weight(epoch / max(1, epochs - 1)))
        else:
            self._learn(epoch, self.needed(val, "val"))
        self.diagnostics = {"weight_alignment": self.alpha.clone()}

    def _learn(self, epoch: int, val: Loader) -> None:
        rate = self.rate * 0.5 ** (epoch // self.halving)
        inputs, targets, _ = next(batches(val, self.device))
        count = max(1, len(targets) // 4)
        quarter = {name: x[:count] for name, x in inputs.items()}
        self.alpha -= rate * self._curvature(quarter, targets[:count])
        self.alpha.clamp_(LEAST, MOST)

    def loss(self, inputs: Inputs, targets: Tensor) -> Tensor:
        return 2 * self._combined(*self._parts(inputs, targets))

    def _parts(self, inputs: Inputs, targets: Tensor) -> tuple[Tensor, Tensor]:
        """CE(f) and A of a batch."""
        features = self.model.encode(inputs)
        joint = self.mean_loss(self.model.fusion(features), targets)
        return joint, misalignment(unimodal_logits(self.model, inputs, features))

    def _combined(self, joint: Tensor, apart: Tensor) -> Tensor:
        """L = α₀ CE(f) + α₁ A."""
        alpha = self.alpha.to(joint.dtype)
        return (1 - alpha) * joint + alpha * apart

    def _curvature(self, inputs: Inputs, targets: Tensor) -> Tensor:
        """Mean over all weights of ∂²L/∂θ² · ∇CE(f), `[]`."""
        weights = [weight for weight in self.model.parameters() if weight.requires_grad]
        with evaluating(self.model), twice_differentiable(self.model):
            joint, apart = self._parts(inputs, targets)
            direction = torch.autograd.grad(joint, weights, retain_graph=True, materialize_grads=True)
            slope = torch.autograd.grad(
                self._combined(joint, apart), weights, create_graph=True, materialize_grads=True
            )
            along = torch.stack([(g * v).sum() for g, v in zip(slope, direction, strict=True)]).sum()
            product = torch.autograd.grad(along, weights, materialize_grads=True)
        total = torch.stack([curvature.sum(dtype=torch.float64) for curvature in product]).sum()
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
