"""PMR, prototypical modal rebalance: Fan et al., 'PMR: Prototypical Modal Rebalance for Multimodal Learning', CVPR
2023.

Before each epoch the prototype of class k in modality m moves to the mean feature of k's samples in a share of the
training samples, encoded in evaluation mode:

    c_mk ← (1 − β) · mean h_m + β · c_mk        at first, and after the first epoch of training, the mean

so that nothing of the untrained network's prototypes is left.

At every step, with sim_m[i, k] = −‖h_m[i] − c_mk‖₂ and S_m = Σ_i softmax(sim_m)[i, y_i],

    loss = CE(f) + α Σ_{m: S_m < max_k S_k} CE(sim_m, y)

so that the features of every modality but the best are drawn to the prototypes of their classes.

Deviations:
- The paper's entropy penalty of the dominant modality, in the first epochs, is not in the released code, and not here.
- The paper has two modalities, and helps the worse. With more, all that fit worse than the best are helped.
- A class without a sample in the share keeps its prototype. At first it has none: it gets the mean over all classes.
"""

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from agm.attribution import evaluating
from agm.distributed import LossFunction, cross_entropy
from agm.methods.method import Loader, Windowed, batches, num_samples, pooled
from agm.methods.ogm import label_scores
from agm.methods.parameters import Fraction, NonNegative, Share, Window
from agm.models.multimodal import Inputs, Model


class PMR(Windowed):
    """PMR for any number of modalities; outside the window of epochs it is plain joint training.

    Args:
        alpha: weight of the prototypes' cross-entropy; 0 is plain joint training.
        beta: how much of a prototype stays from one epoch to the next.
        share: share of the training samples that the prototypes are means of, in whole batches.
        window: epochs of modulation.
    """

    needs_features = True
    classification = True
    reads = ("train",)

    def __init__(
        self,
        model: Model,
        *,
        loss_fn: LossFunction = cross_entropy,
        alpha: NonNegative = 1.0,
        beta: Fraction = 0.2,
        share: Share = 0.1,
        window: Window = Window(last=100),
    ) -> None:
        super().__init__(model, loss_fn=loss_fn)
        self.alpha, self.beta, self.share, self.window = alpha, beta, share, window
        # Float32 at least: they are means over many samples.
        dtype = torch.promote_types(next(model.parameters()).dtype, torch.float32)
        for name, dim in self.fusion.dims.items():
            prototypes = torch.zeros(self.fusion.classes, dim, dtype=dtype, device=self.device)
            self.register_buffer(f"prototypes_{name}", prototypes)

    def prototypes(self, name: str) -> Tensor:
        """c of a modality, `[C, D_m]`."""
        return self.get_buffer(f"prototypes_{name}")

    def start_epoch(
        self, epoch: int, *, train: Loader | None = None, val: Loader | None = None, epochs: int | None = None
    ) -> None:
        super().start_epoch(epoch)
        if self.active:
            self._move(epoch, self.needed(train, "train"))

    @torch.no_grad()
    def _move(self, epoch: int, train: Loader) -> None:
        """Move the prototypes to the means of a share of the training samples."""
        first = self.window.first
        kept = self.beta if epoch > max(first, 1) else 0.0
        sums, counts = self._sums(train)
        for name, total in sums.items():
            prototypes = self.prototypes(name)
            before = total.sum(dim=0) / counts.sum() if epoch == first else prototypes
            mean = torch.where(counts > 0, total / counts.clamp_min(1), before)
            prototypes.copy_((1 - kept) * mean + kept * before)

    def _sums(self, train: Loader) -> tuple[dict[str, Tensor], Tensor]:
        """The sum of every class's features `{m: [C, D_m]}` over the share of samples, and their number `[C, 1]`."""
        sums = {name: torch.zeros_like(self.prototypes(name)) for name in self.modalities}
        counts = torch.zeros_like(next(iter(sums.values()))[:, :1])
        with evaluating(self.model):
            for inputs, labels, _ in batches(train, self.device):
                members = one_hot(labels, len(counts)).to(counts.dtype).T
                for name, h in self.model.encode(inputs).items():
                    sums[name] += members @ pooled(h).to(counts.dtype)
                counts += members.sum(dim=1, keepdim=True)
                if counts.sum() >= self.share * num_samples(train):
                    break
        return sums, counts

    def modulated_loss(self, inputs: Inputs, targets: Tensor) -> Tensor:
        features = self.model.encode(inputs)
        similarity = torch.stack([self._similarity(name, h) for name, h in features.items()])
        score = label_scores(similarity.detach(), targets)
        weight = self.alpha * (score < score.amax()).to(score.dtype)
        self.report(score=score, weight=weight)
        own = torch.stack([self.mean_loss(logits, targets) for logits in similarity])
        return self.mean_loss(self.model.fusion(features), targets) + (weight.to(own.dtype) * own).sum()

    def _similarity(self, name: str, feature: Tensor) -> Tensor:
        """sim_m, `[B, C]`."""
        prototypes = self.prototypes(name)
        # By differences: the way by products is inexact where a feature is near its prototype.
        exact = "donot_use_mm_for_euclid_dist"
        return -torch.cdist(pooled(feature).to(prototypes.dtype), prototypes, compute_mode=exact)
