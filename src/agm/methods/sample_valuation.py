"""Sample-level modality valuation: Wei et al., 'Enhancing Multimodal Cooperation via Sample-level Modality Valuation',
CVPR 2024.

Before each epoch after the warm-up, for each training clip, with C the modalities that a prediction is made from:

    v(C) = |C| where f(C) is right, 0 where it is wrong
    φ_m  = Shapley value of modality m in v                  for two: φ_a = ½ [v(a) + v(av) − v(v)]

A modality that does its share has φ_m = 1. One that contributes less gets extra copies of the clip in which it is
alone, the other modalities being zero:

    copies_m = ⌈6 (1 − φ_m) / (M + 1)⌉, at least 0

For two modalities φ is −½, 0, ½, 1 or 1½, and this is the published 3, 2 and 1 copies below −.1, .4 and .9. For more,
φ reaches from −(M−1)/2 to (M+1)/2; the way from 1 to the least value is divided into thirds, as it is for two.

Deviations: copies are trained on in the step of their clip, whose loss is the mean over all rows, and not spread over
the epoch: a clip that a step already holds need not be read again. A modality that is absent is zero at the input, as
everywhere here, where the published code zeroes its feature: what its encoder makes of nothing is then part of the
prediction in training as in evaluation. Any number of modalities.
"""

from math import factorial
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from agm.attribution import coalition_logits, coalitions, evaluating, shapley_numerators
from agm.methods.method import Batch, Data, Method, Past
from agm.models.multimodal import MultimodalModel
from agm.pipeline.config import schema


class SampleValuation(Method):
    """Extra copies of the clips in which a modality contributes little, with this modality alone."""

    class Config(schema.MethodBlock, extra="forbid"):
        name: Literal["sample_valuation"]
        warmup: Annotated[int, Field(ge=0)] = 5
        """Epochs of plain training before the first valuation."""

    config: Config

    def __init__(self, config: Config, model: MultimodalModel, past: Past | None = None) -> None:
        super().__init__(config, model, past)
        self.copies: dict[str, list[int]] = {}

    def start_epoch(self, epoch: int, model: MultimodalModel, data: Data) -> None:
        self.copies, self.diagnostics = {}, {}
        if epoch < self.config.warmup:
            return
        total = torch.zeros(len(self.modalities), dtype=torch.int64)
        for batch in data.batches("train"):
            values = valuation(model, batch).cpu()
            total += values.sum(dim=1)
            self.copies |= zip(batch.clip_ids, copies(values).T.tolist(), strict=True)
        self.report(valuation=total.double() / (factorial(len(total)) * len(self.copies)))

    def augment(self, batch: Batch) -> Batch:
        rows, alone = [], []
        for row, clip in enumerate(batch.clip_ids):
            for name, count in zip(self.modalities, self.copies.get(clip, ()), strict=False):
                rows += [row] * count
                alone += [name] * count
        return with_copies(batch, rows, {name: [each == name for each in alone] for name in self.modalities})


@torch.no_grad()
def valuation(model: MultimodalModel, batch: Batch) -> Tensor:
    """M! · φ of every modality for every clip, `[M, B]` int64, from predictions in evaluation mode.

    v is a whole number, and so is M! · φ: what is compared with it is the same in every order of summation.
    """
    subsets = coalitions(model.modalities)
    with evaluating(model):
        logits = coalition_logits(model, batch.inputs, model.encode(batch.inputs), subsets)
    right = logits.argmax(dim=2).eq(batch.labels).long()
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


def with_copies(batch: Batch, rows: list[int], kept: dict[str, list[bool]]) -> Batch:
    """The batch with a copy of each of `rows` behind it; modality m of copy i is zero unless `kept[m][i]`."""
    if not rows:
        return batch
    device = batch.labels.device
    # Without waiting for the device: the lists are short, and their copies pass through the driver's own memory.
    index = torch.tensor(rows).to(device, non_blocking=True)
    inputs = {}
    for name, x in batch.inputs.items():
        absent = ~torch.tensor(kept[name]).to(device, non_blocking=True)
        copied = x.index_select(0, index).masked_fill(absent.view(-1, *[1] * (x.ndim - 1)), 0)
        inputs[name] = torch.cat([x, copied])
    labels = torch.cat([batch.labels, batch.labels.index_select(0, index)])
    return Batch(inputs, labels, batch.clip_ids + [batch.clip_ids[row] for row in rows])
