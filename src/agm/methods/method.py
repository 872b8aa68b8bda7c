"""What the training loop asks of a method; as it stands, plain joint training.

A method is one file of this folder, with its parameters as the class's `Config`, and one file in params/method/. For
each batch the loop does

    for loss in method.losses(model, inputs, labels):      one, for nearly all
        optimiser.zero_grad(); method.backward(model, loss); clip; optimiser.step()

so most methods override `loss`, and those that change gradients `backward`.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, Protocol

import polars as pl
import torch
from torch import Tensor, nn

from agm import distributed
from agm.models.encoders import initialise
from agm.models.fusion import Fusion
from agm.models.multimodal import Inputs, MultimodalModel
from agm.pipeline.config import schema


class Batch(NamedTuple):
    """Prepared inputs `{m: [B, …]}`, labels `[B]` and the clips' ids."""

    inputs: Inputs
    labels: Tensor
    clip_ids: list[str]


class Data(Protocol):
    """The training and validation clips. A method never sees the test split.

    Attributes:
        epochs: how many epochs training has.
    """

    epochs: int

    def clips(self, split: str) -> int:
        """How many clips `split` has."""

    def batches(self, split: str, epoch: int | None = None) -> Iterator[Batch]:
        """Batches on the device: in the order in which training sees `epoch`, or the stored one."""


@dataclass(frozen=True)
class Network:
    """What a method may ask of the network before there is one, to refuse what it cannot train."""

    fusion: schema.Fusion
    dims: dict[str, int]


@dataclass(frozen=True)
class Past:
    """Finished runs of the same fusion and seed, for a method that is `taught`.

    Attributes:
        concepts: the trained mono-modal network of each modality, in evaluation mode, without gradients.
        histories: the epochs of each modality's concept, and under "joint" those of plain joint training.
    """

    concepts: dict[str, nn.Module]
    histories: dict[str, pl.DataFrame]


class Method(nn.Module):
    """Plain joint training: the cross-entropy of the full output.

    A method never changes the network's encoders and fusion, the data order, the initial weights or the clipping:
    only what is minimised and what becomes of the gradients. The few that are networks of their own (MMCosine, MLA,
    AMCo, Greedy) say so, and replace a part of the model when they are made.

    What must survive an interruption is a parameter, a buffer or one of `counters`; parameters are trained with the
    model's. What `start_epoch` sets need not: a run that goes on within an epoch begins that epoch again, in the state
    before it, and then takes up the parameters, buffers and counters of where it was.

    Attributes:
        taught: whether it reads finished runs (`Past`); its block then stands in params under `taught`.
        modulates_encoders: whether all it does is done to the encoders' weights, of which each must then have some.
        own_network: what it changes in the network, in a few words for the report; None for nearly all.
        data_parallel: whether several processes may train it together (`agm.distributed`): its loss is then global,
            and it leaves the gradients as they are.
        counters: whole numbers that its steps count up, by name.
        diagnostics: scalars of the last step for the history, `<quantity>_<modality>`, left on the device.
    """

    Config: ClassVar[type[schema.MethodBlock]] = schema.MethodBlock
    taught: ClassVar[bool] = False
    modulates_encoders: ClassVar[bool] = False
    own_network: ClassVar[str | None] = None
    data_parallel: ClassVar[bool] = False

    def __init__(self, config: schema.MethodBlock, model: MultimodalModel, past: Past | None = None) -> None:
        """`past` is None for an untaught method, and wherever a run is not trained but evaluated."""
        super().__init__()
        self.config = config
        self.modalities = model.modalities
        self.counters: dict[str, int] = {}
        self.diagnostics: dict[str, Tensor] = {}

    @classmethod
    def refusal(cls, config: schema.MethodBlock, network: Network) -> str | None:
        """Why this method cannot train this network, or None."""
        return None

    def start_epoch(self, epoch: int, model: MultimodalModel, data: Data) -> None:
        """Told before each epoch, counted from 0."""

    def augment(self, batch: Batch) -> Batch:
        """The clips that a step is made of, where it is not the batch as it comes."""
        return batch

    def losses(self, model: MultimodalModel, inputs: Inputs, labels: Tensor) -> Iterator[Tensor]:
        """The losses of one batch, each followed by a step of the optimiser before the next is asked for."""
        yield self.loss(model, inputs, labels)

    def loss(self, model: MultimodalModel, inputs: Inputs, labels: Tensor) -> Tensor:
        """The loss of one step.

        Args:
            inputs: prepared inputs, `{m: [B, …]}`.
            labels: `[B]` int64.
        """
        return distributed.cross_entropy(model(inputs), labels)

    def backward(self, model: MultimodalModel, loss: Tensor) -> None:
        """Leave in the weights' `grad` what the optimiser is to descend."""
        loss.backward()

    def report(self, **quantities: Tensor) -> None:
        """Note values `[M]` of this step for the history."""
        self.diagnostics = {
            f"{name}_{modality}": value[index].detach()
            for name, value in quantities.items()
            for index, modality in enumerate(self.modalities)
        }


class Windowed(Method):
    """A method that acts in the epochs of `config.window`, and is plain joint training outside it."""

    def __init__(self, config: schema.MethodBlock, model: MultimodalModel, past: Past | None = None) -> None:
        super().__init__(config, model, past)
        self.active = True

    def start_epoch(self, epoch: int, model: MultimodalModel, data: Data) -> None:
        self.active = self.config.window.holds(epoch)
        self.diagnostics = {}

    def loss(self, model: MultimodalModel, inputs: Inputs, labels: Tensor) -> Tensor:
        if not self.active:
            return super().loss(model, inputs, labels)
        return self.modulated_loss(model, inputs, labels)

    def modulated_loss(self, model: MultimodalModel, inputs: Inputs, labels: Tensor) -> Tensor:
        """The loss of a step within the window."""
        raise NotImplementedError


def gradients(weights: Iterable[nn.Parameter]) -> list[Tensor]:
    """The gradients of those of the weights that have one: what is frozen or took no part has none."""
    return [weight.grad for weight in weights if weight.grad is not None]


@torch.no_grad()
def scale_gradients(parts: Iterable[nn.Module], factors: Tensor) -> None:
    """Multiply the gradients of each part, one per modality, by its factor, `[M]`, without waiting for the device."""
    for part, factor in zip(parts, factors, strict=True):
        found = gradients(part.parameters())
        if found:
            torch._foreach_mul_(found, factor.to(found[0].dtype))


def pooled(feature: Tensor) -> Tensor:
    """`[B, D]` of a feature, which for a sequential fusion is a sequence: its mean over time."""
    return feature if feature.ndim == 2 else feature.flatten(1, -2).mean(dim=1)


def own_classifiers(fusion: Fusion) -> nn.ModuleDict:
    """A new linear classifier for each modality, `[B, D_m] → [B, C]`, to be trained beside the fusion."""
    heads = nn.ModuleDict({name: nn.Linear(dim, fusion.classes) for name, dim in fusion.dims.items()})
    initialise(heads)
    return heads
