"""Sample-level modality valuation: Wei et al., 'Enhancing Multimodal Cooperation via Sample-level Modality Valuation',
CVPR 2024.

Before each epoch after the warm-up, for each training sample, with C the modalities that a prediction is made from:

    v(C) = |C| where f(C) is right, 0 where it is wrong
    φ_m  = Shapley value of modality m in v                  for two: φ_a = ½ [v(a) + v(av) − v(v)]

A modality that does its share has φ_m = 1. One that contributes less gets extra copies of the sample in which it is
alone, the other modalities being zero:

    copies_m = ⌈6 (1 − φ_m) / (M + 1)⌉, at least 0

For two modalities φ is −½, 0, ½, 1 or 1½, and this is the published 3, 2 and 1 copies below −.1, .4 and .9. For more,
φ reaches from −(M−1)/2 to (M+1)/2; the way from 1 to the least value is divided into thirds, as it is for two.

Deviations: copies are trained on in the step of their sample, whose loss is the mean over all rows, and not spread over
the epoch: a sample that a step already holds need not be read again. A modality that is absent is zero at the input, as
everywhere here, where the published code zeroes its feature: what its encoder makes of nothing is then part of the
prediction in training as in evaluation. Any number of modalities.
"""

from collections.abc import Iterator, Mapping, Sequence
from math import factorial
from typing import Any

import torch
from torch import Tensor

from agm.attribution import coalition_outputs, coalitions, evaluating, shapley_numerators
from agm.distributed import LossFunction, cross_entropy
from agm.methods.method import Batch, Loader, Method, batches
from agm.methods.parameters import Epochs
from agm.models.multimodal import Inputs, Model


class Valuation(Method):
    """A method that trains on extra copies of samples, in which some modalities are masked."""

    classification = True
    reads = ("train",)

    def losses(self, inputs: Inputs, targets: Tensor, ids: Sequence[Any] | None = None) -> Iterator[Tensor]:
        yield self.loss(inputs, targets, ids)

    def loss(self, inputs: Inputs, targets: Tensor, ids: Sequence[Any] | None = None) -> Tensor:
        """The mean loss of the batch and its copies, `[]`.

        Args:
            inputs: `{m: [B, …]}`.
            targets: labels, `[B]`.
            ids: what names each sample, as the training loader does.
        """
        batch = self.with_copies(Batch(inputs, targets, ids))
        return super().loss(batch.inputs, batch.targets)

    def with_copies(self, batch: Batch) -> Batch:
        """The samples that a step is made of."""
        raise NotImplementedError


class SampleValuation(Valuation):
    """Extra copies of the samples in which a modality contributes little, with this modality alone.

    Args:
        warmup: epochs of plain training before the first valuation.
    """

    def __init__(self, model: Model, *, loss_fn: LossFunction = cross_entropy, warmup: Epochs = 5) -> None:
        super().__init__(model, loss_fn=loss_fn)
        self.warmup = warmup
        self.copies: dict[Any, list[int]] = {}

    def start_epoch(
        self, epoch: int, *, train: Loader | None = None, val: Loader | None = None, epochs: int | None = None
    ) -> None:
        self.copies, self.diagnostics = {}, {}
        if epoch < self.warmup:
            return
        total = torch.zeros(len(self.modalities), dtype=torch.int64)
        for batch in batches(self.needed(train, "train"), self.device):
            if batch.ids is None:
                raise ValueError("SampleValuation needs names of samples: a loader of (inputs, targets, ids)")
            values = valuation(self.model, batch).cpu()
            total += values.sum(dim=1)
            self.copies |= zip(named(batch.ids), copies(values).T.tolist(), strict=True)
        self.report(valuation=total.double() / (factorial(len(total)) * len(self.copies)))

    def with_copies(self, batch: Batch) -> Batch:
        if not self.copies:
            return batch
        if batch.ids is None:
            raise ValueError("SampleValuation needs names of samples: step(inputs, targets, optimizer, ids=…)")
        rows: list[int] = []
        alone: list[str] = []
        for row, sample in enumerate(named(batch.ids)):
            for name, count in zip(self.modalities, self.copies.get(sample, ()), strict=False):
                rows += [row] * count
                alone += [name] * count
        kept = {}
        for name in self.modalities:
            kept[name] = [modality == name for modality in alone]
        return with_copies(self.model, batch, rows, kept)


def named(ids: Sequence[Any] | Tensor) -> list[Any]:
    """Names of samples that can be looked up: of a tensor its numbers."""
    return ids.tolist() if isinstance(ids, Tensor) else list(ids)


@torch.no_grad()
def valuation(model: Model, batch: Batch) -> Tensor:
    """M! · φ of every modality for every sample, `[M, B]` int64, from predictions in evaluation mode.

    v is a whole number, and so is M! · φ: what is compared with it is the same in every order of summation.
    """
    subsets = coalitions(model.modalities)
    with evaluating(model):
        logits = coalition_outputs(model, batch.inputs, model.encode(batch.inputs), subsets)
    right = logits.argmax(dim=2).eq(batch.targets).long()
    sizes = torch.tensor([len(subset) for subset in subsets]).to(right)
    weights = shapley_numerators(model.modalities).to(right)
    # Not as a product of matrices: CUDA has none of integers.
    return (weights.unsqueeze(2) * (sizes.unsqueeze(1) * right)).sum(dim=1)


def copies(values: Tensor) -> Tensor:
    """Extra copies for each M! · φ, `[M, B] → [M, B]` int64."""
    count = len(values)
    # ⌈6 (1 − φ) / (M + 1)⌉ in whole numbers: ⌈a / b⌉ = −⌊−a / b⌋.
    missing = factorial(count) - values
    rounded = torch.div(-6 * missing, factorial(count) * (count + 1), rounding_mode="floor")
    return (-rounded).clamp_min(0)


def with_copies(model: Model, batch: Batch, rows: list[int], kept: Mapping[str, list[bool]]) -> Batch:
    """The batch with a copy of each of `rows` behind it; modality m of copy i is masked unless `kept[m][i]`."""
    if not rows:
        return batch
    device = batch.targets.device
    # Without waiting for the device: the lists are short, and their copies pass through the driver's own memory.
    index = torch.tensor(rows).to(device, non_blocking=True)
    inputs = {}
    for name, x in batch.inputs.items():
        if name not in kept:
            inputs[name] = torch.cat([x, x.index_select(0, index)])
            continue
        absent = ~torch.tensor(kept[name]).to(device, non_blocking=True)
        copied = x.index_select(0, index)
        masked = model.masked(name, copied)
        copied = torch.where(absent.view(-1, *[1] * (x.ndim - 1)), masked, copied)
        inputs[name] = torch.cat([x, copied])
    targets = torch.cat([batch.targets, batch.targets.index_select(0, index)])
    if batch.ids is None:
        return Batch(inputs, targets)
    ids = list(batch.ids)
    return Batch(inputs, targets, ids + [ids[row] for row in rows])
