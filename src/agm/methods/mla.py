"""MLA, alternating unimodal adaptation: Zhang et al., 'Multimodal Representation Learning by Alternating Unimodal
Adaptation', CVPR 2024.

One linear head F is shared by all modalities. A batch is M steps of the optimizer, one for each modality in turn: its
own encoder alone runs, the loss is CE(F(h_m)), and the gradient G of the head's weight is replaced by G P, which leaves
out the directions that earlier steps have used. P starts as the identity and after each step takes in the mean r of the
step's features:

    k = P r
    P ← P − k kᵀ / (α + rᵀk),    α = 0.1^λ,    λ = 1 + the share of the epoch that is done
    P ← P / ‖P‖_F

The output weighs the modalities of each sample by how certain they are, with H_m the entropy of softmax(F(h_m)):

    f = Σ_m w_m F(h_m),    w_m ∝ exp(max_j H_j − H_m)

This is a network of its own: the head takes the place of the fusion, so it needs features of one size.

Deviations:
- The released code looks for the head's weight by a name that it does not have, so nothing is ever projected; it
  divides by a D × D matrix where the formula has a number; and it takes entropies over the batch, one weight for all
  of it, so that an accuracy depends on the size of the batches. A published copy adds G P to G.
- P is that of the earlier steps, as in the paper ('previous modality') and in the method it comes from, orthogonal
  weights modification: the first step is plain. The released code would take in the step's own features first.
- The weights by certainty are not exchanged for constants that suit a data set.
"""

from collections.abc import Iterator, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from agm.distributed import LossFunction, cross_entropy
from agm.methods.method import Loader, Method, Network, num_samples
from agm.models.encoders import initialise
from agm.models.fusion import Features, Fusion
from agm.models.multimodal import Inputs, Model


class MLA(Method):
    """MLA for any number of modalities whose features are of one size."""

    needs_features = True
    needs_additive = "its shared head can only take the place of an additive fusion"
    classification = True
    single_step = False
    reads = ("train",)
    own_network = "one head for all modalities, weighted by certainty"

    projection: Tensor

    def __init__(self, model: Model, *, loss_fn: LossFunction = cross_entropy) -> None:
        super().__init__(model, loss_fn=loss_fn)
        model.fusion = SharedHead(self.fusion.dims, self.fusion.classes).to(next(model.parameters()))
        weight = self.head.weight
        self.register_buffer("projection", torch.eye(self.head.in_features).to(weight))
        self.samples, self.seen = 1, 0
        self.mean: Tensor | None = None

    @classmethod
    def refusal(cls, network: Network, **arguments: Any) -> str | None:
        if reason := super().refusal(network, **arguments):
            return reason
        if network.dims is not None and len(set(network.dims.values())) > 1:
            return f"its shared head needs features of one size, found {dict(network.dims)}"
        return None

    @property
    def head(self) -> nn.Linear:
        """F, which takes the place of the fusion."""
        return cast(SharedHead, self.model.fusion).head

    def start_epoch(
        self, epoch: int, *, train: Loader | None = None, val: Loader | None = None, epochs: int | None = None
    ) -> None:
        self.samples, self.seen = num_samples(self.needed(train, "train")), 0

    def get_extra_state(self) -> Tensor:
        """How many samples there are and how many this epoch has seen: numbers that the host counts."""
        return torch.tensor([self.samples, self.seen])

    def set_extra_state(self, state: Tensor) -> None:
        self.samples, self.seen = state.tolist()

    def loss(self, inputs: Inputs, targets: Tensor) -> Tensor:
        raise RuntimeError("MLA makes a step for each modality of a batch: use `step`, or `losses`")

    def losses(self, inputs: Inputs, targets: Tensor, ids: Sequence[Any] | None = None) -> Iterator[Tensor]:
        own = []
        for name, encoder in self.model.encoders.items():
            feature = encoder(inputs[name])
            self.mean = feature.detach().mean(dim=0)
            loss = self.mean_loss(self.head(feature), targets)
            own.append(loss.detach())
            yield loss
        self.seen += len(targets)
        self.report(loss=torch.stack(own))

    def modulate(self) -> None:
        weight = self.head.weight
        if weight.grad is None or self.mean is None:
            return
        weight.grad = weight.grad @ self.projection.T
        self._take_in(self.mean.to(self.projection))

    @torch.no_grad()
    def _take_in(self, r: Tensor) -> None:
        """Bring P up to date with the mean feature of a step, `[D]`."""
        alpha = 0.1 ** (1 + self.seen / self.samples)
        k = self.projection @ r
        self.projection -= torch.outer(k, k) / (alpha + r @ k)
        self.projection /= torch.linalg.matrix_norm(self.projection)


class SharedHead(Fusion):
    """f = Σ_m w_m F(h_m), w_m ∝ exp(−H_m): one linear layer for all, the more certain modality counts for more."""

    late = True

    def __init__(self, dims: dict[str, int], classes: int) -> None:
        super().__init__(dims, classes)
        self.head = nn.Linear(next(iter(dims.values())), classes)
        initialise(self)

    @property
    def classifiers(self) -> list[nn.Linear]:
        return [self.head]

    def fuse(self, features: Features) -> Tensor:
        return torch.cat(list(features.values()), dim=1)

    def classify(self, fused: Tensor) -> Tensor:
        logits = self.head(fused.unflatten(1, (len(self.dims), -1)))
        shares = logits.log_softmax(dim=2)
        entropy = -(shares.exp() * shares).sum(dim=2, keepdim=True)
        # The largest entropy, which the paper subtracts from, is the same factor for all: it cancels out.
        return ((-entropy).softmax(dim=1) * logits).sum(dim=1)
