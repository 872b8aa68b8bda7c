"""Modality-level valuation: Wei et al., 'Enhancing Multimodal Cooperation via Sample-level Modality Valuation',
CVPR 2024; the coarser and cheaper of the paper's two methods.

Before each epoch after the warm-up, from the values φ_m (`agm.methods.sample_valuation`) of a part of the training
clips:

    gap_m      = 1 − mean φ_m                         how much modality m lacks of its share
    fraction_m = ⅔ α (gap_m − min_k gap_k)

and this fraction of all clips, drawn anew at every step, gets an extra copy in which the modalities that are stronger
than m are zero. For two modalities: the stronger one is zeroed in ⅔ α |gap_a − gap_v| of the clips.

Deviations: as for the sample-level method, copies are trained on beside their clip, and zeroed at the input. Only the
clips that the part consists of are valued, the first ones in the epoch's random order; the published code values all
and then draws from them. Any number of modalities, with the rule above, which for two is the published one.
"""

from fractions import Fraction
from math import factorial
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from agm.methods.method import Batch, Data, Method, Past
from agm.methods.sample_valuation import valuation, with_copies
from agm.models.multimodal import MultimodalModel
from agm.pipeline.config import schema


class ModalityValuation(Method):
    """Extra copies of random clips without the stronger modalities, the more the further the others lag behind."""

    class Config(schema.MethodBlock, extra="forbid"):
        name: Literal["modality_valuation"]
        warmup: Annotated[int, Field(ge=0)] = 5
        """Epochs of plain training before the first valuation."""
        alpha: Annotated[float, Field(ge=0)] = 1.0
        """Copies per gap between the modalities; 0 is plain joint training."""
        part_ratio: Annotated[float, Field(gt=0, le=1)] = 0.2
        """Share of the training clips that are valued before each epoch."""

    config: Config

    def __init__(self, config: Config, model: MultimodalModel, past: Past | None = None) -> None:
        super().__init__(config, model, past)
        self.gaps: list[Fraction] = []

    def start_epoch(self, epoch: int, model: MultimodalModel, data: Data) -> None:
        self.gaps, self.diagnostics = [], {}
        if epoch >= self.config.warmup:
            mean = self._mean_value(epoch, model, data)
            self.gaps = [1 - value for value in mean]
            self.report(valuation=torch.tensor([float(value) for value in mean], dtype=torch.float64))

    def _mean_value(self, epoch: int, model: MultimodalModel, data: Data) -> list[Fraction]:
        """Mean φ_m over the first clips of the epoch's order.

        As fractions: two modalities that are worth the same must be equal, however the clips lie in batches.
        """
        wanted = max(1, round(self.config.part_ratio * data.clips("train")))
        values: list[Tensor] = []
        for batch in data.batches("train", epoch):
            values.append(valuation(model, batch))
            if sum(each.shape[1] for each in values) >= wanted:
                break
        first = torch.cat(values, dim=1)[:, :wanted]
        clips = first.shape[1]
        return [Fraction(total, clips * factorial(len(first))) for total in first.sum(dim=1).tolist()]

    def augment(self, batch: Batch) -> Batch:
        rows: list[int] = []
        kept: dict[str, list[bool]] = {name: [] for name in self.modalities}
        for gap in self.gaps:
            fraction = 2 / 3 * self.config.alpha * float(gap - min(self.gaps))
            # A whole number of copies of every clip, and of a random part of them one more.
            chosen = [row for row, draw in enumerate(_draws(batch)) for _ in range(int(fraction + draw))]
            rows += chosen
            for name, other in zip(self.modalities, self.gaps, strict=True):
                kept[name] += [other >= gap] * len(chosen)
        return with_copies(batch, rows, kept)


def _draws(batch: Batch) -> list[float]:
    """Random numbers in [0, 1), one per clip, on the host: how many copies there are decides shapes."""
    return torch.rand(len(batch.clip_ids)).tolist()
