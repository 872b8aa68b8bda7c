"""G-Blending, gradient blending: Wang et al., 'What Makes Training Multi-Modal Classification Networks Hard?', CVPR
2020, in its offline form.

With u_m the logits of a linear classifier of m's own on its feature h_m, and k any modality or the joint output,

    loss = Σ_m w_m CE(u_m) + w_joint CE(f),        w_k = |G_k / O_k²|, normalised to Σ_k w_k = 1

from what became of k's training loss L̄ and validation loss L* between the first epoch 0 and the last N:

    G_k = L*_N − L*_0                              how much it learned that generalises
    O_k = (L*_N − L̄_N) − (L*_0 − L̄_0)              how much more it overfits

The runs are those of the mono-modal concepts and of plain joint training. The classifiers of the modalities are trained
with the network and are no part of its output.

Deviations:
- The losses are means over samples. In a published copy they are sums over the batches of loaders of different lengths,
  which the difference of a training and a validation loss does not survive.
- L* is the loss on the validation split. The paper holds out a part of the training samples; the published copy reads
  the test split.
- Epoch 0 is the first one, not the network before it, and L̄ is the mean of the epoch's training steps.
- |O_k| below 0.001 counts as 0.001: a run that overfits no more at its end than in its first epoch would have all the
  weight.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from agm.distributed import LossFunction, cross_entropy
from agm.methods import PREREQUISITES
from agm.methods.method import Method, Network, own_classifiers, pooled
from agm.models.multimodal import Inputs, Model

LEAST_OVERFITTING = 1e-3
"""What a smaller |O_k| counts as."""

History = Mapping[str, Sequence[float]]
"""The losses of a run, a number for each epoch: "train_loss" and "val_loss"."""


class GBlending(Method):
    """Offline G-Blending for any number of modalities.

    Args:
        histories: the losses of the unimodal run of each modality, and under "joint" those of plain joint training.
            None: all weights are equal.
    """

    needs_features = True
    prerequisites = PREREQUISITES["g_blending"]

    shares: Tensor

    def __init__(
        self,
        model: Model,
        *,
        loss_fn: LossFunction = cross_entropy,
        histories: Mapping[str, History] | None = None,
    ) -> None:
        super().__init__(model, loss_fn=loss_fn)
        runs = [*self.modalities, "joint"]
        shares = torch.full((len(runs),), 1 / len(runs), dtype=torch.float64)
        if histories is not None:
            shares = blend({name: histories[name] for name in runs})
        self.register_buffer("shares", shares.to(self.device))
        self.heads = own_classifiers(model)

    @classmethod
    def refusal(cls, network: Network, **arguments: Any) -> str | None:
        histories, runs = arguments.get("histories"), [*network.modalities, "joint"]
        if histories is not None and not set(runs) <= set(histories):
            return f"histories: expected one for each of {runs}, found {list(histories)}"
        return super().refusal(network, **arguments)

    def loss(self, inputs: Inputs, targets: Tensor) -> Tensor:
        features = self.model.encode(inputs)
        outputs = [head(pooled(features[name])) for name, head in self.heads.items()]
        outputs.append(self.model.fusion(features))
        losses = torch.stack([self.mean_loss(output, targets) for output in outputs])
        self.report(weight=self.shares[:-1])
        self.diagnostics["weight_joint"] = self.shares[-1]
        return (self.shares.to(losses.dtype) * losses).sum()


def blend(histories: Mapping[str, History]) -> Tensor:
    """w_k of every run from its history, `[K]` float64.

    Raises:
        ValueError: when a history has no two epochs to compare, or no run's validation loss has changed.
    """
    weights = torch.tensor([_weight(name, history) for name, history in histories.items()], dtype=torch.float64)
    if weights.sum() == 0:
        raise ValueError(
            "G-Blending has nothing to weigh: no run's validation loss has changed since its first epoch; raise the "
            "learning rate or the number of epochs, and train the runs again"
        )
    return weights / weights.sum()


def _weight(name: str, history: History) -> float:
    """|G / O²| of one run."""
    train, val = history["train_loss"], history["val_loss"]
    ends = [train[0], val[0], train[-1], val[-1]] if len(train) > 1 else []
    if not ends or not all(map(math.isfinite, ends)):
        raise ValueError(
            f"G-Blending compares the losses of a run's first and last epoch: {name!r} has no two with finite losses; "
            "train it for two epochs at least"
        )
    first_train, first_val, last_train, last_val = ends
    generalised = last_val - first_val
    overfitted = (last_val - last_train) - (first_val - first_train)
    return abs(generalised) / max(abs(overfitted), LEAST_OVERFITTING) ** 2
