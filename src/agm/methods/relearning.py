"""Diagnosing and re-learning: Wei et al., 'Diagnosing and Re-learning for Balanced Multimodal Learning', ECCV 2024.

After the epochs E, 2E, …, counted from 0, at most K times, for each modality m, with its features of the whole training
and the whole validation split, each number of them scaled to 0 … 1 within the split and grouped by k-means into C
clusters:

    purity = 1/N Σ_clusters (how many of its samples are of its most frequent class)
    a_m = tanh(λ · |purity_train − purity_val|)
    θ_m ← a_m θ_m⁰ + (1 − a_m) θ_m

for all weights θ_m of m's encoder, θ_m⁰ being those that training started from: what an encoder has learnt for the
training samples only is taken back in part. In between, training is plain.

Deviations:
- The gap is that of training and validation samples. A published copy compares with test samples.
- The clusters are those of one fixed seed, the same again after an interruption.

The running statistics of BatchNorm stay as they are. A mixture of statistics would fit the mixed weights as little, and
they follow the new activations within a few steps. The momentum of the optimizer is not reset, nor is the fusion.
"""

import torch
from torch import Tensor, nn

from agm.attribution import evaluating
from agm.distributed import LossFunction, cross_entropy
from agm.extras import require
from agm.methods.method import Loader, Method, batches, pooled
from agm.methods.parameters import Count, Epochs, NonNegative
from agm.models.multimodal import Inputs, Model

SEED = 0
"""Of k-means."""


class Relearning(Method):
    """Diagnosing and re-learning for any number of modalities and any fusion; its steps are plain joint training.

    Needs scikit-learn: the extra `metrics`.

    Args:
        strength: λ, how much of the training goes for a gap in purity; 0 is plain joint training.
        every: E, epochs from one diagnosis to the next.
        times: K, most diagnoses in a run.
    """

    needs_features = True
    modulates_encoders = True
    classification = True
    reads = ("train", "val")

    def __init__(
        self,
        model: Model,
        *,
        loss_fn: LossFunction = cross_entropy,
        strength: NonNegative = 3.0,
        every: Count = 20,
        times: Epochs = 3,
    ) -> None:
        super().__init__(model, loss_fn=loss_fn)
        self.strength, self.every, self.times = strength, every, times
        for name, encoder in model.encoders.items():
            for index, weight in enumerate(encoder.parameters()):
                self.register_buffer(f"start_{name}_{index}", weight.detach().clone())

    def start_epoch(
        self, epoch: int, *, train: Loader | None = None, val: Loader | None = None, epochs: int | None = None
    ) -> None:
        self.diagnostics = {}
        diagnoses, since = divmod(epoch - 1, self.every)
        if since == 0 and 0 < diagnoses <= self.times:
            in_training = self._purities(self.needed(train, "train"))
            in_validation = self._purities(self.needed(val, "val"))
            gap = in_training - in_validation
            share = (self.strength * gap.abs()).tanh()
            for (name, encoder), a in zip(self.model.encoders.items(), share.tolist(), strict=True):
                self._mix(name, encoder, a)
            self.report(gap=gap, share=share)

    @torch.no_grad()
    def _mix(self, name: str, encoder: nn.Module, share: float) -> None:
        """θ ← a θ⁰ + (1 − a) θ for the weights of one encoder."""
        weights: list[Tensor] = list(encoder.parameters())
        starts = [self.get_buffer(f"start_{name}_{index}") for index in range(len(weights))]
        torch._foreach_lerp_(weights, starts, share)

    def _purities(self, loader: Loader) -> Tensor:
        """The purity of every modality's features in a split, `[M]` float64, on the device of the features."""
        features, labels = gathered(self.model, loader)
        purities = [purity(feature, labels, self.fusion.classes) for feature in features.values()]
        return torch.tensor(purities, dtype=torch.float64, device=labels.device)


@torch.no_grad()
def gathered(model: Model, loader: Loader) -> tuple[Inputs, Tensor]:
    """The features `{m: [N, D]}` and labels `[N]` of all samples of a loader."""
    device = next(model.parameters()).device
    features: dict[str, list[Tensor]] = {name: [] for name in model.modalities}
    labels = []
    with evaluating(model):
        for batch in batches(loader, device):
            for name, feature in model.encode(batch.inputs).items():
                features[name].append(pooled(feature))
            labels.append(batch.targets)
    return {name: torch.cat(parts) for name, parts in features.items()}, torch.cat(labels)


def purity(feature: Tensor, labels: Tensor, classes: int) -> float:
    """The share of samples that are of their cluster's most frequent class: `[N, D]` and `[N]` to a number."""
    cluster = require("sklearn.cluster", "metrics")
    threadpoolctl = require("threadpoolctl", "metrics")

    low, high = feature.aminmax(dim=0)
    scaled = (feature - low) / (high - low).clamp_min(torch.finfo(feature.dtype).tiny)
    count = min(classes, len(labels))
    # Several threads add up in any order, and the clusters would not repeat to the last bit.
    with threadpoolctl.threadpool_limits(1):
        k_means = cluster.KMeans(count, n_init=10, random_state=SEED)
        clusters = k_means.fit_predict(scaled.double().cpu().numpy())
    table = torch.zeros(count, classes, dtype=torch.int64)
    table.index_put_((torch.from_numpy(clusters).long(), labels.cpu()), torch.tensor(1), accumulate=True)
    return table.amax(dim=1).sum().item() / len(labels)
