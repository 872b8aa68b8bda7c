"""Modality-level valuation: Wei et al., 'Enhancing Multimodal Cooperation via Sample-level Modality Valuation',
CVPR 2024; the coarser and cheaper of the paper's two methods.

Before each epoch after the warm-up, from the values φ_m (`agm.methods.sample_valuation`) of a part of the training
samples:

    gap_m      = 1 − mean φ_m                         how much modality m lacks of its share
    fraction_m = ⅔ α (gap_m − min_k gap_k)

and this fraction of all samples, drawn anew at every step, gets an extra copy in which the modalities that are stronger
than m are zero. For two modalities: the stronger one is zeroed in ⅔ α |gap_a − gap_v| of the samples.

Deviations: as for the sample-level method, copies are trained on beside their sample, and zeroed at the input. Only the
samples that the part consists of are valued, the first ones in the epoch's random order; the published code values all
and then draws from them. Any number of modalities, with the rule above, which for two is the published one.
"""

from fractions import Fraction
from math import factorial

import torch
from torch import Tensor

from agm.distributed import LossFunction, cross_entropy
from agm.methods.method import Batch, Loader, batches, num_samples
from agm.methods.parameters import Epochs, NonNegative, Share
from agm.methods.sample_valuation import Valuation, valuation, with_copies
from agm.models.multimodal import Model


class ModalityValuation(Valuation):
    """Extra copies of random samples without the stronger modalities, the more the further the others lag behind.

    Args:
        warmup: epochs of plain training before the first valuation.
        alpha: copies per gap between the modalities; 0 is plain joint training.
        part_ratio: share of the training samples that are valued before each epoch.
    """

    def __init__(
        self,
        model: Model,
        *,
        loss_fn: LossFunction = cross_entropy,
        warmup: Epochs = 5,
        alpha: NonNegative = 1.0,
        part_ratio: Share = 0.2,
    ) -> None:
        super().__init__(model, loss_fn=loss_fn)
        self.warmup, self.alpha, self.part_ratio = warmup, alpha, part_ratio
        self.gaps: list[Fraction] = []

    def start_epoch(
        self, epoch: int, *, train: Loader | None = None, val: Loader | None = None, epochs: int | None = None
    ) -> None:
        self.gaps, self.diagnostics = [], {}
        if epoch >= self.warmup:
            mean = self._mean_value(self.needed(train, "train"))
            self.gaps = [1 - value for value in mean]
            self.report(valuation=torch.tensor([float(value) for value in mean], dtype=torch.float64))

    def _mean_value(self, train: Loader) -> list[Fraction]:
        """Mean φ_m over the first samples of the epoch's order.

        As fractions: two modalities that are worth the same must be equal, however the samples lie in batches.
        """
        wanted = max(1, round(self.part_ratio * num_samples(train)))
        values: list[Tensor] = []
        valued = 0
        for batch in batches(train, self.device):
            values.append(valuation(self.model, batch))
            valued += len(batch.targets)
            if valued >= wanted:
                break
        first = torch.cat(values, dim=1)[:, :wanted]
        denominator = first.shape[1] * factorial(len(first))
        return [Fraction(total, denominator) for total in first.sum(dim=1).tolist()]

    def with_copies(self, batch: Batch) -> Batch:
        rows: list[int] = []
        kept: dict[str, list[bool]] = {name: [] for name in self.modalities}
        for gap in self.gaps:
            fraction = 2 / 3 * self.alpha * float(gap - min(self.gaps))
            # A whole number of copies of every sample, and of a random part of them one more.
            chosen: list[int] = []
            for row, draw in enumerate(_draws(batch)):
                chosen += [row] * int(fraction + draw)
            rows += chosen
            for name, other in zip(self.modalities, self.gaps, strict=True):
                kept[name] += [other >= gap] * len(chosen)
        return with_copies(self.model, batch, rows, kept)


def _draws(batch: Batch) -> list[float]:
    """Random numbers in [0, 1), one per sample, on the host: how many copies there are decides shapes."""
    return torch.rand(len(batch.targets)).tolist()
