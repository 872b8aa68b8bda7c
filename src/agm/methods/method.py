"""What every method is: plain joint training, of which a subclass changes the loss or the gradients.

    method = agm.methods.AGM(model, alpha=1.0)
    for inputs, targets in loader:
        loss = method.step(inputs, targets, optimizer)

or, for loops that need the pieces,

    for loss in method.losses(inputs, targets):      one, for nearly all
        optimizer.zero_grad()
        method.backward(loss)
        optimizer.step()

Most methods override `loss`, and those that change gradients `modulate`.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Protocol, cast
from weakref import ReferenceType, ref

import torch
from torch import Tensor, nn
from torch.amp.autocast_mode import is_autocast_available
from torch.amp.grad_scaler import GradScaler

from agm.distributed import LossFunction, cross_entropy, mean_loss
from agm.methods.parameters import Window, checked, problem, settings
from agm.models.encoders import initialise
from agm.models.fusion import Fusion
from agm.models.multimodal import Inputs, Model


class Batch(NamedTuple):
    """Inputs `{m: [B, …]}`, targets `[B, …]` and what names each sample, or None."""

    inputs: Inputs
    targets: Tensor
    ids: Sequence[Any] | None = None


class Loader(Protocol):
    """What yields batches, `(inputs, targets)` or `(inputs, targets, ids)`: a DataLoader, say. Its number of samples is
    `num_samples`, or the length of its `dataset`."""

    def __iter__(self) -> Iterator[Any]:
        """Begin a pass over its samples."""


@dataclass(frozen=True)
class Network:
    """What a method may ask of a model, to refuse what it cannot train; a configuration knows it before there is one.

    Attributes:
        modalities: their names.
        dims: size of each modality's feature; None for a black box.
        additive: whether the output is a sum of terms, one for each modality.
        encoders: for the modalities whose encoder is known, whether it has weights.
        staged: whether the encoders are chains of stages (`agm.models.encoders.Encoder`).
    """

    modalities: Sequence[str]
    dims: Mapping[str, int] | None
    additive: bool
    encoders: Mapping[str, bool]
    staged: bool = True

    @classmethod
    def of(cls, model: Model) -> "Network":
        """The description of a model."""
        encoders = dict(model.encoders.items())
        has_weights = {name: bool(list(encoder.parameters())) for name, encoder in encoders.items()}
        dims = model.fusion.dims if isinstance(model.fusion, Fusion) else None
        staged = all(hasattr(encoder, "run_stages") for encoder in encoders.values())
        return cls(model.modalities, dims, model.additive, has_weights, staged)


class Method(nn.Module):
    """Joint training with a loss, or gradients, of its own.

    A method never changes the network's encoders and fusion, the order of the data, the initial weights or the
    clipping: only what is minimised and what becomes of the gradients. The few that are networks of their own
    (MMCosine, MLA, AMCo, Greedy) say so, and replace a part of the model when they are made: make the optimizer after
    the method.

    Its parameters are trained with the model's. `state_dict` has all that must survive an interruption between two
    epochs; what `start_epoch` sets is set by it again.

    Attributes:
        model: the model that it trains. Not one of its submodules: its weights are not in `state_dict`.
        loss_fn: the loss of each sample, outputs `[B, …]` and targets `[B, …]` to `[B]`.
        objective: its loss as a module that several processes share (`agm.distributed.distribute`), or None.
        diagnostics: scalars of the last step, `<quantity>_<modality>`, on the device.

    Class attributes:
        needs_features: whether it reads features: not for a black box.
        needs_additive: why it needs an additive fusion; None where it does not.
        needs_encoders: whether it acts on the encoders' weights: a black box must name them.
        modulates_encoders: whether that is all it does: each encoder must then have weights.
        classification: whether it reads classes: then the loss is the cross-entropy.
        single_step: whether a batch is one step of the optimizer, so that `loss` and `backward` are all of it.
        scale_free: whether it may be given the gradients of a loss times a factor, as a GradScaler makes them.
        data_parallel: whether several processes may train it together: its loss is then global, and it leaves the
            gradients as they are.
        prerequisites: arguments of the constructor that come from finished runs: the unimodal models and plain joint
            training.
        reads: which splits `start_epoch` reads, "train" or "val".
        own_network: what it changes in the network, in a few words; None for nearly all.
    """

    needs_features: ClassVar[bool] = False
    needs_additive: ClassVar[str | None] = None
    needs_encoders: ClassVar[bool] = False
    modulates_encoders: ClassVar[bool] = False
    classification: ClassVar[bool] = False
    single_step: ClassVar[bool] = True
    scale_free: ClassVar[bool] = True
    data_parallel: ClassVar[bool] = False
    prerequisites: ClassVar[tuple[str, ...]] = ()
    reads: ClassVar[tuple[str, ...]] = ()
    own_network: ClassVar[str | None] = None

    model: Model
    objective: nn.Module | None

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        if "__init__" in vars(cls):
            cls.__init__ = checked(cls.__init__)  # type: ignore[method-assign]

    @checked
    def __init__(self, model: Model, *, loss_fn: LossFunction = cross_entropy) -> None:
        super().__init__()
        self.model = model
        self.objective = None
        self.loss_fn = loss_fn
        self.modalities = list(model.modalities)
        self.diagnostics: dict[str, Tensor] = {}
        self._checked_optimizer: ReferenceType[torch.optim.Optimizer] | None = None

    def __setattr__(self, name: str, value: Any) -> None:
        if name in ("model", "objective"):
            # Not as submodules: the weights of the model are not the method's, and the objective holds the method.
            self.__dict__[name] = value
        else:
            super().__setattr__(name, value)

    @classmethod
    def require(cls, model: object, arguments: Mapping[str, Any]) -> None:
        """Refuse a model or arguments of which the method cannot be made.

        Raises:
            TypeError: for a model that is none of `agm.models`.
            ValueError: with the reason.
        """
        if not isinstance(model, Model):
            kind = type(model).__name__
            raise TypeError(
                f"{cls.__name__} trains agm.Multimodal or agm.BlackBox, found {kind}: "
                "agm.BlackBox(model, modalities=[…]) takes any network"
            )
        for name, parameter in settings(cls).items():
            wrong = problem(arguments[name], parameter.annotation)
            if wrong:
                raise ValueError(f"{cls.__name__}: {name}: {wrong}")
        reason = cls.refusal(Network.of(model), **arguments)
        if reason:
            raise ValueError(f"{cls.__name__} cannot train this model: {reason}")

    @classmethod
    def refusal(cls, network: Network, **arguments: Any) -> str | None:
        """Why this method cannot train this network with these arguments, or None."""
        if cls.needs_features and network.dims is None:
            return "it reads the features of each modality, which a black box does not show; use agm.Multimodal"
        if cls.needs_additive and not network.additive:
            return cls.needs_additive
        unknown = [name for name in network.modalities if name not in network.encoders]
        if (cls.needs_encoders or cls.modulates_encoders) and unknown:
            named = ", ".join(unknown)
            return f"it acts on the weights of the encoders; name those of {named}: BlackBox(…, encoders={{…}})"
        bare = [name for name, has_weights in network.encoders.items() if not has_weights]
        if cls.modulates_encoders and bare:
            return f"it acts on the weights of the encoders, and those of {', '.join(bare)} have none"
        if cls.classification and arguments.get("loss_fn", cross_entropy) is not cross_entropy:
            return "it reads classes: its loss is the cross-entropy"
        return None

    def start_epoch(
        self, epoch: int, *, train: Loader | None = None, val: Loader | None = None, epochs: int | None = None
    ) -> None:
        """Begin an epoch. Call it before each one for the methods that act by epochs.

        Args:
            epoch: counted from 0.
            train: the training samples, in the order of this epoch, for methods that read "train".
            val: the validation samples, for methods that read "val". A method never sees the test split.
            epochs: how many epochs training has, for methods whose schedule depends on it.
        """

    def losses(self, inputs: Inputs, targets: Tensor, ids: Sequence[Any] | None = None) -> Iterator[Tensor]:
        """The losses of one batch, each followed by a step of the optimizer before the next is asked for.

        Args:
            inputs: `{m: [B, …]}`.
            targets: `[B, …]`; labels are `[B]` int64.
            ids: what names each sample, for `SampleValuation`.
        """
        if self.objective is None:
            yield self.loss(inputs, targets)
        else:
            yield self.objective(inputs, targets)

    def loss(self, inputs: Inputs, targets: Tensor) -> Tensor:
        """The loss of one step, `[]`.

        Args:
            inputs: `{m: [B, …]}`.
            targets: `[B, …]`; labels are `[B]` int64.
        """
        return self.mean_loss(self.model(inputs), targets)

    def mean_loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The mean of `loss_fn` over the batch, `[]`."""
        return mean_loss(self.loss_fn, outputs, targets)

    def sum_of_losses(self, outputs: Iterable[Tensor], targets: Tensor) -> Tensor:
        """The mean losses of several outputs, one per modality, in sum, `[]`."""
        return torch.stack([self.mean_loss(output, targets) for output in outputs]).sum()

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of `loss`, changed as the method does, to what the weights have in `grad`.

        Of a batch in k pieces, each with `backward(loss / k)`, every piece's gradients are changed on their own.
        """
        changes = type(self).modulate is not Method.modulate or type(self).differentiate is not Method.differentiate
        earlier = self._take_gradients() if changes else []
        # Gradients have the type of their weights, also where a whole `step` runs under autocast.
        with without_autocast(self.device.type):
            self.differentiate(loss)
            self.modulate()
        for weight, gradient in earlier:
            weight.grad = gradient if weight.grad is None else gradient.add_(weight.grad)

    def differentiate(self, loss: Tensor) -> None:
        """Leave the gradients of `loss` in the weights' `grad`."""
        loss.backward()

    def modulate(self) -> None:
        """Change the gradients of the step's loss, which are all that the weights have in `grad`."""

    def step(
        self,
        inputs: Inputs,
        targets: Tensor,
        optimizer: torch.optim.Optimizer,
        *,
        ids: Sequence[Any] | None = None,
        scaler: GradScaler | None = None,
        max_norm: float | None = None,
    ) -> Tensor:
        """Train on one batch.

        Args:
            inputs: `{m: [B, …]}`.
            targets: `[B, …]`; labels are `[B]` int64.
            optimizer: of all weights of the model and of the method.
            ids: what names each sample, for `SampleValuation`.
            scaler: for training in float16.
            max_norm: gradients are clipped to this norm.

        Returns:
            The loss, `[]`, on the device; the mean where the method makes several steps.

        Raises:
            ValueError: when the optimizer lacks a weight, or the method cannot work with a scaler.
        """
        self._check_optimizer(optimizer)
        if scaler is not None and not self.scale_free:
            raise ValueError(f"{type(self).__name__} compares gradients of different steps: no GradScaler")
        step_losses = []
        for loss in self.losses(inputs, targets, ids):
            optimizer.zero_grad(set_to_none=True)
            self.backward(loss if scaler is None else scaler.scale(loss))
            if max_norm is not None:
                if scaler is not None:
                    scaler.unscale_(optimizer)
                torch.nn.utils.clip_grad_norm_(self.weights(), max_norm)
            if scaler is None:
                optimizer.step()
            else:
                scaler.step(optimizer)
                scaler.update()
            step_losses.append(loss.detach())
        return torch.stack(step_losses).mean()

    def weights(self) -> list[nn.Parameter]:
        """The weights that are trained: the model's and the method's own."""
        return [weight for weight in (*self.model.parameters(), *self.parameters()) if weight.requires_grad]

    def _check_optimizer(self, optimizer: torch.optim.Optimizer) -> None:
        """Refuse an optimizer that would leave a weight as it is. Each optimizer is looked at once."""
        if self._checked_optimizer is not None and self._checked_optimizer() is optimizer:
            return
        held: set[int] = set()
        for group in optimizer.param_groups:
            held.update(id(weight) for weight in group["params"])
        missing = []
        for owner, module in (("model", self.model), ("method", self)):
            for name, weight in module.named_parameters():
                if weight.requires_grad and id(weight) not in held:
                    missing.append(f"{owner}.{name}")
        if missing:
            more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
            raise ValueError(
                f"the optimizer lacks {', '.join(missing[:3])}{more}: make it after the method, of "
                "[*model.parameters(), *method.parameters()]"
            )
        self._checked_optimizer = ref(optimizer)

    def _take_gradients(self) -> list[tuple[nn.Parameter, Tensor]]:
        """Take away the gradients of earlier pieces of the batch."""
        taken = []
        for weight in self.weights():
            if weight.grad is not None:
                taken.append((weight, weight.grad))
                weight.grad = None
        return taken

    def report(self, **quantities: Tensor) -> None:
        """Note values `[M]` of this step as diagnostics."""
        self.diagnostics = {}
        for name, values in quantities.items():
            for index, modality in enumerate(self.modalities):
                self.diagnostics[f"{name}_{modality}"] = values[index].detach()

    @property
    def fusion(self) -> Fusion:
        """The fusion of a model that is no black box."""
        return cast(Fusion, self.model.fusion)

    @property
    def device(self) -> torch.device:
        """Where the model is: the buffers of the method are made there."""
        return next((weight.device for weight in self.model.parameters()), torch.device("cpu"))

    def needed(self, loader: Loader | None, split: str) -> Loader:
        """The loader that `start_epoch` reads.

        Raises:
            ValueError: when it was not given.
        """
        if loader is None:
            raise ValueError(f"{type(self).__name__} reads the {split} samples: start_epoch(epoch, {split}=loader)")
        return loader


class Windowed(Method):
    """A method that acts in the epochs of a window, and is plain joint training outside it."""

    window: Window
    active: bool = True

    def start_epoch(
        self, epoch: int, *, train: Loader | None = None, val: Loader | None = None, epochs: int | None = None
    ) -> None:
        self.active = epoch in self.window
        self.diagnostics = {}

    def loss(self, inputs: Inputs, targets: Tensor) -> Tensor:
        if not self.active:
            return super().loss(inputs, targets)
        return self.modulated_loss(inputs, targets)

    def modulated_loss(self, inputs: Inputs, targets: Tensor) -> Tensor:
        """The loss of a step within the window."""
        raise NotImplementedError


def batches(loader: Loader, device: torch.device) -> Iterator[Batch]:
    """The batches of a loader on a device."""
    for batch in loader:
        inputs, targets, *rest = batch
        moved = {name: x.to(device, non_blocking=True) for name, x in inputs.items()}
        yield Batch(moved, targets.to(device, non_blocking=True), rest[0] if rest else None)


def without_autocast(device: str) -> AbstractContextManager[object]:
    """No autocast on this type of device for a while."""
    if is_autocast_available(device) and torch.is_autocast_enabled(device):
        return torch.autocast(device, enabled=False)
    return nullcontext()


def num_samples(loader: Any) -> int:
    """How many samples a loader has."""
    if hasattr(loader, "num_samples"):
        return int(loader.num_samples)
    return len(loader.dataset)


def gradients(weights: Iterable[nn.Parameter]) -> list[Tensor]:
    """The gradients of those of the weights that have one: what is frozen or took no part has none."""
    return [weight.grad for weight in weights if weight.grad is not None]


@torch.no_grad()
def scale_gradients(parts: Iterable[nn.Module], factors: Tensor) -> None:
    """Multiply the gradients of each part, one per modality, by its factor, `[M]`, without waiting for the device."""
    for part, factor in zip(parts, factors, strict=True):
        part_gradients = gradients(part.parameters())
        if part_gradients:
            torch._foreach_mul_(part_gradients, factor.to(part_gradients[0].dtype))


def pooled(feature: Tensor) -> Tensor:
    """`[B, D]` of a feature, which for a sequential fusion is a sequence: its mean over time."""
    return feature if feature.ndim == 2 else feature.flatten(1, -2).mean(dim=1)


def own_classifiers(model: Model) -> nn.ModuleDict:
    """A new linear classifier for each modality, `[B, D_m] → [B, C]`, to be trained beside the fusion.

    They are on the device of the model's weights, and of their type.
    """
    fusion = cast(Fusion, model.fusion)
    heads = nn.ModuleDict({name: nn.Linear(dim, fusion.classes) for name, dim in fusion.dims.items()})
    initialise(heads)
    return heads.to(next(model.parameters()))
