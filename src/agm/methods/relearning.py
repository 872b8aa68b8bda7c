"""Diagnosing and re-learning: Wei et al., 'Diagnosing and Re-learning for Balanced Multimodal Learning', ECCV 2024.

After the epochs E, 2E, …, counted from 0, at most K times, for each modality m, with its features of the whole training
and the whole validation split, each number of them scaled to 0 … 1 within the split and grouped by k-means into C
clusters:

    purity = 1/N Σ_clusters (how many of its clips are of its most frequent class)
    a_m = tanh(λ · |purity_train − purity_val|)
    θ_m ← a_m θ_m⁰ + (1 − a_m) θ_m

for all weights θ_m of m's encoder, θ_m⁰ being those that training started from: what an encoder has learnt for the
training clips only is taken back in part. In between, training is plain.

Deviations:
- The gap is that of training and validation clips. A published copy compares with test clips.
- The clusters are those of one fixed seed, the same again after an interruption.

The running statistics of BatchNorm stay as they are. A mixture of statistics would fit the mixed weights as little, and
they follow the new activations within a few steps. The momentum of the optimiser is not reset, nor is the fusion.
"""

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from agm.attribution import evaluating
from agm.methods.method import Data, Method, Past, pooled
from agm.models.multimodal import Inputs, MultimodalModel
from agm.pipeline.config import schema

SEED = 0
"""Of k-means."""


class Relearning(Method):
    """Diagnosing and re-learning for any number of modalities and any fusion; its steps are plain joint training."""

    modulates_encoders = True

    class Config(schema.MethodBlock, extra="forbid"):
        name: Literal["relearning"]
        strength: Annotated[float, Field(ge=0)] = 3.0
        """λ: how much of the training goes for a gap in purity; 0 is plain joint training."""
        every: schema.Positive = 20
        """E: epochs from one diagnosis to the next."""
        times: Annotated[int, Field(ge=0)] = 3
        """K: most diagnoses in a run."""

    config: Config

    def __init__(self, config: Config, model: MultimodalModel, past: Past | None = None) -> None:
        super().__init__(config, model, past)
        # Not in the checkpoint: a run that goes on is built from its seed before its weights are read.
        for name, encoder in model.encoders.items():
            for index, weight in enumerate(encoder.parameters()):
                self.register_buffer(f"start_{name}_{index}", weight.detach().clone(), persistent=False)

    def start_epoch(self, epoch: int, model: MultimodalModel, data: Data) -> None:
        self.diagnostics = {}
        diagnoses, since = divmod(epoch - 1, self.config.every)
        if since == 0 and 0 < diagnoses <= self.config.times:
            gap = purities(model, data, "train") - purities(model, data, "val")
            share = (self.config.strength * gap.abs()).tanh()
            for (name, encoder), a in zip(model.encoders.items(), share.tolist(), strict=True):
                self._mix(name, encoder, a)
            self.report(gap=gap, share=share)

    @torch.no_grad()
    def _mix(self, name: str, encoder: nn.Module, share: float) -> None:
        """θ ← a θ⁰ + (1 − a) θ for the weights of one encoder."""
        weights = list(encoder.parameters())
        starts = [self.get_buffer(f"start_{name}_{index}") for index in range(len(weights))]
        if weights:
            torch._foreach_lerp_(weights, starts, share)


def purities(model: MultimodalModel, data: Data, split: str) -> Tensor:
    """The purity of every modality's features in a split, `[M]` float64, on the device of the features."""
    features, labels = gathered(model, data, split)
    found = [purity(feature, labels, model.fusion.classes) for feature in features.values()]
    return torch.tensor(found, dtype=torch.float64, device=labels.device)


@torch.no_grad()
def gathered(model: MultimodalModel, data: Data, split: str) -> tuple[Inputs, Tensor]:
    """The features `{m: [N, D]}` and labels `[N]` of a split, in the order in which it is stored."""
    features: dict[str, list[Tensor]] = {name: [] for name in model.modalities}
    labels = []
    with evaluating(model):
        for batch in data.batches(split):
            for name, feature in model.encode(batch.inputs).items():
                features[name].append(pooled(feature))
            labels.append(batch.labels)
    return {name: torch.cat(parts) for name, parts in features.items()}, torch.cat(labels)


def purity(feature: Tensor, labels: Tensor, classes: int) -> float:
    """The share of clips that are of their cluster's most frequent class: `[N, D]` and `[N]` to a number."""
    from sklearn.cluster import KMeans
    from threadpoolctl import threadpool_limits

    low, high = feature.aminmax(dim=0)
    scaled = (feature - low) / (high - low).clamp_min(torch.finfo(feature.dtype).tiny)
    count = min(classes, len(labels))
    # Several threads add up in any order, and the clusters would not repeat to the last bit.
    with threadpool_limits(1):
        clusters = KMeans(count, n_init=10, random_state=SEED).fit_predict(scaled.double().cpu().numpy())
    table = torch.zeros(count, classes, dtype=torch.int64)
    table.index_put_((torch.from_numpy(clusters).long(), labels.cpu()), torch.tensor(1), accumulate=True)
    return table.amax(dim=1).sum().item() / len(labels)
