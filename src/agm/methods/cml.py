"""CML, calibrating multimodal learning: Ma et al., 'Calibrating Multimodal Learning', ICML 2023.

The modalities are removed one after another in an order π that is drawn anew for every epoch: f_0 = f and f_j is the
output without π_1 … π_j, j = 1 … M−1. With conf_j the largest probability of softmax(f_j),

    loss = 1/M Σ_j CE(f_j) + λ Σ_j Σ_i max(0, conf_j,i − conf_{j−1},i) · [f_{j−1} is right for sample i]

which is to say that the confidence in a right answer must not rise when a modality is removed. The second sum is over
the samples of the batch, as published, so λ means more in larger batches.

For an additive fusion f_j lacks the terms W_m h_m of the removed modalities and keeps the whole bias; for any other it
is the output with the inputs of the removed ones zero.

Deviations:
- The rise is cut off at zero for each sample, and counts for samples that are right with more modalities, as in the
  authors' code. A published copy cuts the sum over the batch off, so that one sample's rise is made up for by another's
  fall, and works out which samples are right without using it.
- The authors add a second term for samples that are wrong with and without the modality; it is not in the paper.
"""

import torch
from torch import Tensor
from torch.nn import functional

from agm.attribution import coalition_outputs
from agm.distributed import LossFunction, cross_entropy
from agm.methods.method import Loader, Method
from agm.methods.parameters import NonNegative
from agm.models.fusion import Additive
from agm.models.multimodal import Inputs, Model


class CML(Method):
    """CML for any number of modalities and any model.

    Args:
        penalty: λ, weight of the rise in confidence.
    """

    classification = True

    seed: Tensor

    def __init__(self, model: Model, *, loss_fn: LossFunction = cross_entropy, penalty: NonNegative = 0.1) -> None:
        super().__init__(model, loss_fn=loss_fn)
        self.penalty = penalty
        # Drawn once, so that the orders do not depend on what else training draws; see `order`.
        self.register_buffer("seed", torch.randint(2**31, ()))
        self.removed = self.order(0)

    def order(self, epoch: int) -> list[str]:
        """The modalities of `epoch` in the order in which they are removed; the last one stays."""
        generator = torch.Generator().manual_seed(int(self.seed) + epoch)
        return [self.modalities[index] for index in torch.randperm(len(self.modalities), generator=generator)]

    def start_epoch(
        self, epoch: int, *, train: Loader | None = None, val: Loader | None = None, epochs: int | None = None
    ) -> None:
        self.removed = self.order(epoch)

    def loss(self, inputs: Inputs, targets: Tensor) -> Tensor:
        features = self.model.encode(inputs)
        whole = self.model.fusion(features)
        logits = whole.unsqueeze(0)
        if len(self.removed) > 1:
            logits = torch.cat([logits, self._without(inputs, features, whole)])
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))  # whatever the autocast
        mean = functional.cross_entropy(logits.flatten(0, 1), targets.repeat(len(logits)))
        return mean + self.penalty * rise(logits, targets)

    def _without(self, inputs: Inputs, features: Inputs, whole: Tensor) -> Tensor:
        """f_1 … f_{M−1}, `[M−1, B, C]`."""
        fusion = self.model.fusion
        if not isinstance(fusion, Additive):
            kept = [tuple(self.removed[j:]) for j in range(1, len(self.removed))]
            return coalition_outputs(self.model, inputs, features, kept)
        weights = fusion.weights()
        terms = [functional.linear(features[name], weights[name]) for name in self.removed[:-1]]
        return whole - torch.stack(terms).cumsum(dim=0)


def rise(logits: Tensor, labels: Tensor) -> Tensor:
    """How much confidence in right answers rises from one row to the next, in sum: `[J, B, C]` and `[B]` to `[]`."""
    confidence, prediction = logits.softmax(dim=2).max(dim=2)
    right = prediction[:-1] == labels
    return ((confidence[1:] - confidence[:-1]).relu() * right).sum()
