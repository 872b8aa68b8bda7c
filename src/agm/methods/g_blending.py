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
- The losses are means over clips. In a published copy they are sums over the batches of loaders of different lengths,
  which the difference of a training and a validation loss does not survive.
- L* is the loss on the validation split. The paper holds out a part of the training clips; the published copy reads the
  test split.
- Epoch 0 is the first one, not the network before it, and L̄ is the mean of the epoch's training steps.
- |O_k| below 0.001 counts as 0.001: a run that overfits no more at its end than in its first epoch would have all the
  weight.
"""

import math
from typing import Literal

import polars as pl
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from agm.methods.method import Method, Past, own_classifiers, pooled
from agm.models.multimodal import Inputs, MultimodalModel
from agm.pipeline.config import schema
from agm.pipeline.errors import AgmError

LEAST_OVERFITTING = 1e-3
"""What a smaller |O_k| counts as."""


class GBlending(Method):
    """Offline G-Blending for any number of modalities."""

    taught = True

    class Config(schema.MethodBlock, extra="forbid"):
        name: Literal["g_blending"]

    config: Config

    def __init__(self, config: Config, model: MultimodalModel, past: Past | None = None) -> None:
        super().__init__(config, model, past)
        runs = [*self.modalities, "joint"]
        weights = torch.full((len(runs),), 1 / len(runs), dtype=torch.float64)
        if past is not None:
            weights = blend({name: past.histories[name] for name in runs})
        self.register_buffer("weights", weights)
        self.heads = own_classifiers(model.fusion)

    def loss(self, model: MultimodalModel, inputs: Inputs, labels: Tensor) -> Tensor:
        features = model.encode(inputs)
        own = [head(pooled(features[name])) for name, head in self.heads.items()]
        losses = torch.stack([cross_entropy(logits, labels) for logits in (*own, model.fusion(features))])
        self.report(weight=self.weights[:-1])
        self.diagnostics["weight_joint"] = self.weights[-1]
        return (self.weights.to(losses.dtype) * losses).sum()


def blend(histories: dict[str, pl.DataFrame]) -> Tensor:
    """w_k of every run from its history, `[K]` float64.

    Raises:
        AgmError: when a history has no two epochs to compare, or no run's validation loss has changed.
    """
    weights = torch.tensor([_weight(name, history) for name, history in histories.items()], dtype=torch.float64)
    if weights.sum() == 0:
        raise AgmError(
            "G-Blending has nothing to weigh: no run's validation loss has changed since its first epoch",
            where=f"the histories of {list(histories)}",
            fix="raise trainer.optimizer.lr or trainer.epochs, and train the runs again",
        )
    return weights / weights.sum()


def _weight(name: str, history: pl.DataFrame) -> float:
    """|G / O²| of one run."""
    rows = history.sort("epoch")["train_loss", "val_loss"].rows()
    if len(rows) < 2 or not all(map(math.isfinite, (*rows[0], *rows[-1]))):
        raise AgmError(
            f"G-Blending compares the losses of a run's first and last epoch: {name!r} has no two with finite losses",
            where=f"the history of {name}",
            fix="train for two epochs at least: trainer.epochs",
        )
    (first_train, first_val), (last_train, last_val) = rows[0], rows[-1]
    generalised = last_val - first_val
    overfitted = (last_val - last_train) - (first_val - first_train)
    return abs(generalised) / max(abs(overfitted), LEAST_OVERFITTING) ** 2
