"""PMR, prototypical modal rebalance: Fan et al., 'PMR: Prototypical Modal Rebalance for Multimodal Learning', CVPR
2023.

Before each epoch the prototype of class k in modality m moves to the mean feature of k's clips in a share of the
training clips, encoded in evaluation mode:

    c_mk ← (1 − β) · mean h_m + β · c_mk        at first, and after the first epoch of training, the mean

so that nothing of the untrained network's prototypes is left.

At every step, with sim_m[i, k] = −‖h_m[i] − c_mk‖₂ and S_m = Σ_i softmax(sim_m)[i, y_i],

    loss = CE(f) + α Σ_{m: S_m < max_k S_k} CE(sim_m, y)

so that the features of every modality but the best are drawn to the prototypes of their classes.

Deviations:
- The paper's entropy penalty of the dominant modality, in the first epochs, is not in the released code, and not here.
- The paper has two modalities, and helps the worse. With more, all that fit worse than the best are helped.
- A class without a clip in the share keeps its prototype. At first it has none: it gets the mean over all classes.
"""

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import cross_entropy, one_hot

from agm.attribution import evaluating
from agm.methods.method import Data, Past, Windowed, pooled
from agm.methods.ogm import label_scores
from agm.models.multimodal import Inputs, MultimodalModel
from agm.pipeline.config import schema


class Pmr(Windowed):
    """PMR for any number of modalities; outside the window of epochs it is plain joint training."""

    class Config(schema.MethodBlock, extra="forbid"):
        name: Literal["pmr"]
        alpha: Annotated[float, Field(ge=0)] = 1.0
        """Weight of the prototypes' cross-entropy; 0 is plain joint training."""
        beta: schema.Fraction = 0.2
        """How much of a prototype stays from one epoch to the next."""
        share: Annotated[float, Field(gt=0, le=1)] = 0.1
        """Share of the training clips that the prototypes are means of, in whole batches."""
        window: schema.Window = schema.Window(last=100)

    config: Config

    def __init__(self, config: Config, model: MultimodalModel, past: Past | None = None) -> None:
        super().__init__(config, model, past)
        for name, dim in model.fusion.dims.items():
            self.register_buffer(f"prototypes_{name}", torch.zeros(model.fusion.classes, dim))

    def prototypes(self, name: str) -> Tensor:
        """c of a modality, `[C, D_m]`."""
        return self.get_buffer(f"prototypes_{name}")

    def start_epoch(self, epoch: int, model: MultimodalModel, data: Data) -> None:
        super().start_epoch(epoch, model, data)
        if self.active:
            self._move(model, data, epoch)

    @torch.no_grad()
    def _move(self, model: MultimodalModel, data: Data, epoch: int) -> None:
        first = self.config.window.first
        kept = self.config.beta if epoch > max(first, 1) else 0.0
        sums, counts = self._sums(model, data, epoch)
        for name, total in sums.items():
            prototypes = self.prototypes(name)
            before = total.sum(dim=0) / counts.sum() if epoch == first else prototypes
            mean = torch.where(counts > 0, total / counts.clamp_min(1), before)
            prototypes.copy_((1 - kept) * mean + kept * before)

    def _sums(self, model: MultimodalModel, data: Data, epoch: int) -> tuple[dict[str, Tensor], Tensor]:
        """The sum of every class's features `{m: [C, D_m]}` over the share of the clips, and their number `[C, 1]`."""
        sums = {name: torch.zeros_like(self.prototypes(name)) for name in self.modalities}
        counts = torch.zeros_like(next(iter(sums.values()))[:, :1])
        with evaluating(model):
            for inputs, labels, _ in data.batches("train", epoch):
                members = one_hot(labels, len(counts)).to(counts.dtype).T
                for name, h in model.encode(inputs).items():
                    sums[name] += members @ pooled(h).to(counts.dtype)
                counts += members.sum(dim=1, keepdim=True)
                if counts.sum() >= self.config.share * data.clips("train"):
                    break
        return sums, counts

    def modulated_loss(self, model: MultimodalModel, inputs: Inputs, labels: Tensor) -> Tensor:
        features = model.encode(inputs)
        similarity = torch.stack([self._similarity(name, h) for name, h in features.items()])
        score = label_scores(similarity.detach(), labels)
        weight = self.config.alpha * (score < score.amax()).to(score.dtype)
        self.report(score=score, weight=weight)
        own = torch.stack([cross_entropy(each, labels) for each in similarity])
        return cross_entropy(model.fusion(features), labels) + (weight.to(own.dtype) * own).sum()

    def _similarity(self, name: str, feature: Tensor) -> Tensor:
        """sim_m, `[B, C]`."""
        prototypes = self.prototypes(name)
        # By differences: the way by products is inexact where a feature is near its prototype.
        exact = "donot_use_mm_for_euclid_dist"
        return -torch.cdist(pooled(feature).to(prototypes.dtype), prototypes, compute_mode=exact)
