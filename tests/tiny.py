"""Networks of plain torch modules, a few numbers wide, of any fusion and two to four modalities; samples for them."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset, Subset

import agm
from agm.methods import Method
from agm.models import Inputs, Model, Multimodal
from agm.models.encoders import Encoder
from agm.models.fusion import Features, Fusion, Mixed

CLASSES = 3
SIZES = {"audio": 5, "video": 4, "text": 3, "sensor": 2}
"""Numbers in one step of each modality's input."""
STEPS = 3
"""Steps of an input that is a sequence."""
DIM = 4
"""Numbers in a feature."""
OPTIONS: dict[str, dict[str, Any]] = {
    "CrossAttention": {"dim": 4, "num_heads": 2, "num_layers": 1, "dim_feedforward": 5, "dropout": 0.0},
    "Early": {"hidden": (6,), "dropout": 0.0},
    "Gated": {"hidden": 5},
    "LowRank": {"rank": 2, "hidden": 5},
    "Psp": {"regions": 2, "attention": 5, "hidden": 3, "fused": 4, "dropout": 0.0},
}
"""What makes a fusion small."""
ABSTRACT = ("Fusion", "Additive", "Mixed")


def seed_draws(seed: int) -> None:
    """Seed the draws on the processor.

    `torch.manual_seed` also keeps a stack trace for each kind of device that is not there, in case it comes: in tests
    of a few milliseconds that was a sixth of the time.
    """
    torch.default_generator.manual_seed(seed)


def fusions() -> dict[str, type[Fusion]]:
    """Every fusion of the library that can be made."""
    found = {}
    for name in agm.fusion.__all__:
        kind = getattr(agm.fusion, name)
        if isinstance(kind, type) and issubclass(kind, Fusion) and name not in ABSTRACT:
            found[name] = kind
    return found


class Staged(Encoder):
    """A chain of two small stages over a sequence; its feature is the mean over time."""

    def __init__(self, size: int, dim: int, norm: bool, dropout: float) -> None:
        super().__init__()
        self.chain = nn.ModuleList([layer(size, dim, norm, dropout, True), layer(dim, dim, norm, dropout, True)])
        self.dim, self.channels = dim, [dim, dim]

    @property
    def stages(self) -> list[nn.Module]:
        return list(self.chain)

    def begin(self, x: Tensor) -> tuple[Tensor, None]:
        return (x if x.ndim == 3 else x.unsqueeze(1)), None

    def end(self, state: Tensor, padding: Tensor | None) -> Tensor:
        return state.mean(dim=1)


class OverLast(nn.BatchNorm1d):
    """BatchNorm over the last axis of `[B, T, C]`."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.transpose(1, 2)).transpose(1, 2)


class Branch(nn.Sequential):
    """A chain of layers with a `forward` of its own: torch does not compile that of `nn.Sequential` in place."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x)


def layer(size: int, dim: int, norm: bool, dropout: float, sequence: bool = False) -> nn.Module:
    """A layer of an encoder, with BatchNorm and dropout if it has `norm`."""
    layers: list[nn.Module] = [nn.Linear(size, dim)]
    if norm:
        layers.append(OverLast(dim) if sequence else nn.BatchNorm1d(dim))
    layers.append(nn.Tanh())
    if norm:
        layers.append(nn.Dropout(dropout))
    return Branch(*layers)


def network(
    fusion: str | type[Fusion] = "LateConcat",
    count: int = 2,
    *,
    names: Sequence[str] | None = None,
    staged: bool = False,
    one_size: bool = True,
    norm: bool = False,
    dropout: float = 0.3,
    mask: Any = 0.0,
    dtype: torch.dtype = torch.float64,
    seed: int = 0,
) -> Multimodal:
    """A small network of plain torch modules and a fusion of the library.

    Args:
        fusion: its name, or a class of the test's own.
        count: how many modalities it has.
        names: the modalities; None are the first ones.
        staged: whether the encoders are chains of stages.
        one_size: whether the features of all modalities have the same size.
        norm: whether the encoders have BatchNorm and dropout.
        dropout: its probability.
        mask: what stands in the place of a masked input.
        dtype: of its weights.
        seed: of its weights.
    """
    seed_draws(seed)
    kind = fusions()[fusion] if isinstance(fusion, str) else fusion
    encoders: dict[str, nn.Module] = {}
    dims = {}
    for number, name in enumerate(names or list(SIZES)[:count]):
        # Even sizes: Psp splits a feature into two regions.
        dims[name] = DIM if one_size else DIM + 2 * number
        if staged:
            encoders[name] = Staged(SIZES[name], dims[name], norm, dropout)
        else:
            encoders[name] = layer(SIZES[name], dims[name], norm, dropout)
    head = kind(dims, CLASSES, **OPTIONS.get(kind.__name__, {}))
    model = Multimodal(encoders, head).to(dtype)
    # Biases start at zero in the library: a test would not see what becomes of them.
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight), alpha=0.1)
    model.mask = mask
    return model


class Samples(Dataset):
    """Samples of all four modalities: `({m: x}, label, number)`, with something of the label in each modality."""

    def __init__(self, count: int, sequence: bool, dtype: torch.dtype = torch.float64, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.labels = torch.arange(count) % CLASSES
        self.inputs = {}
        for name, size in SIZES.items():
            shape = (count, STEPS, size) if sequence else (count, size)
            x = torch.randn(shape, generator=generator, dtype=torch.float64)
            x[..., 0] += self.labels.view(-1, *[1] * (x.ndim - 2)) - 1
            self.inputs[name] = x.to(dtype)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, number: int) -> tuple[dict[str, Tensor], Tensor, int]:
        return {name: x[number] for name, x in self.inputs.items()}, self.labels[number], number


class Only(Dataset):
    """Samples with some of the modalities."""

    def __init__(self, samples: Dataset, names: Sequence[str]) -> None:
        self.samples, self.names = samples, names

    def __len__(self) -> int:
        return len(self.samples)  # type: ignore[arg-type]

    def __getitem__(self, number: int) -> tuple[dict[str, Tensor], Tensor, int]:
        inputs, label, sample = self.samples[number]
        return {name: inputs[name] for name in self.names}, label, sample


class Data:
    """Training and validation samples for a model, by way of torch's own DataLoader."""

    def __init__(self, model: Model, train: int = 12, batch: int = 4) -> None:
        fusion, weight = model.fusion, next(model.parameters())
        sequence = isinstance(fusion, Fusion) and fusion.sequential
        samples = Only(Samples(train + 9, sequence, weight.dtype), model.modalities)
        self.train_samples, self.val_samples = Subset(samples, range(train)), Subset(samples, range(train, train + 9))
        self.size = batch

    def train(self, epoch: int) -> DataLoader:
        """The training samples in the order of an epoch."""
        shuffled = torch.randperm(len(self.train_samples), generator=torch.Generator().manual_seed(epoch))
        return self._loader(Subset(self.train_samples, shuffled.tolist()))

    def val(self) -> DataLoader:
        """The validation samples."""
        return self._loader(self.val_samples)

    def _loader(self, samples: Dataset) -> DataLoader:
        # With a generator of its own: a DataLoader draws from the global one whenever it is read.
        return DataLoader(samples, batch_size=self.size, generator=torch.Generator().manual_seed(0))

    def start(self, method: Method, epoch: int = 0, epochs: int = 3) -> None:
        """Begin an epoch, as a training loop does."""
        method.model.train()
        method.start_epoch(epoch, train=self.train(epoch), val=self.val(), epochs=epochs)

    def batch(self, epoch: int = 0) -> tuple[Inputs, Tensor, Tensor]:
        """The first batch of an epoch."""
        return next(iter(self.train(epoch)))


def sgd(method: Method) -> torch.optim.Optimizer:
    """An optimizer of all weights, with momentum and weight decay."""
    weights = [*method.model.parameters(), *method.parameters()]
    return torch.optim.SGD(weights, lr=0.1, momentum=0.9, weight_decay=1e-3)


def train_epoch(
    method: Method, optimizer: torch.optim.Optimizer, data: Data, epoch: int, **options: Any
) -> list[Tensor]:
    """One epoch in a loop of nobody's; returns the losses."""
    data.start(method, epoch)
    losses = []
    for inputs, targets, ids in data.train(epoch):
        losses.append(method.step(inputs, targets, optimizer, ids=ids, **options))
    return losses


def gradients_of(method: Method) -> dict[str, Tensor]:
    """The gradients of the model and of the method, by name."""
    found = {}
    for module in (method.model, method):
        for name, weight in module.named_parameters():
            if weight.grad is not None:
                found[name] = weight.grad.clone()
    return found


def first_step(method: Method, data: Data, epoch: int = 0) -> tuple[Tensor, dict[str, Tensor]]:
    """The first loss of a batch, and the gradients that the method leaves of it."""
    data.start(method, epoch)
    inputs, targets, ids = data.batch(epoch)
    seed_draws(1)
    loss = next(iter(method.losses(inputs, targets, ids)))
    method.backward(loss)
    return loss.detach(), gradients_of(method)


def close(found: object, wanted: object, tolerance: float = 1e-10) -> None:
    """Equal to rounding."""
    torch.testing.assert_close(found, wanted, rtol=tolerance, atol=tolerance)


def same_steps(first: Method, second: Method, epochs: Sequence[int] = (0, 1), tolerance: float = 1e-10) -> None:
    """Losses and weights of two methods on models of the same names, over some epochs."""
    results = []
    for method in (first, second):
        seed_draws(2)
        data, optimizer = Data(method.model), sgd(method)
        losses = [torch.stack(train_epoch(method, optimizer, data, epoch)) for epoch in epochs]
        results.append((torch.stack(losses), dict(method.model.named_parameters())))
    close(results[0][0], results[1][0], tolerance)
    assert results[0][1].keys() == results[1][1].keys()
    for name, weight in results[0][1].items():
        close(weight, results[1][1][name], tolerance)


class Whole(nn.Module):
    """A network of which nothing is known but inputs and outputs."""

    def __init__(self, model: Multimodal) -> None:
        super().__init__()
        self.parts, self.head = model.encoders, model.fusion

    def forward(self, inputs: Inputs) -> Tensor:
        return self.head({name: part(inputs[name]) for name, part in self.parts.items()})


class Closed(Fusion):
    """A fusion that does not say that its output is a sum of terms."""

    def __init__(self, fusion: Fusion) -> None:
        super().__init__(fusion.dims, fusion.classes)
        self.sequential = fusion.sequential
        self.inner = fusion

    def forward(self, features: Features) -> Tensor:
        return self.inner(features)


class Met(Mixed):
    """Modalities that meet before the classifier, without an order: Z = tanh(Σ_m W_m h_m)."""

    def __init__(self, dims: dict[str, int], classes: int) -> None:
        super().__init__(dims, classes)
        self.projections = nn.ModuleDict({name: nn.Linear(dim, 5) for name, dim in dims.items()})
        self.classifier = nn.Linear(5, classes)

    def fuse(self, features: Features) -> Tensor:
        return torch.stack([self.projections[name](h) for name, h in features.items()]).sum(dim=0).tanh()


@contextmanager
def constant_draws() -> Iterator[None]:
    """Random numbers that are the same for every modality and sample: 0.5, and no noise."""

    def halves(*shape: Any, **options: Any) -> Tensor:
        return real(*shape, **options).fill_(0.5)

    real = torch.rand
    with patch("torch.rand", halves), patch("torch.randn_like", torch.zeros_like):
        yield


def squared_error(outputs: Tensor, targets: Tensor) -> Tensor:
    """The squared distance of each sample to its class, as a one-hot vector."""
    return (outputs - functional.one_hot(targets, outputs.shape[1])).square().mean(dim=1)


def mean_of_input(x: Tensor) -> Tensor:
    """A mask that depends on the sample."""
    return x.mean(dim=-1, keepdim=True).expand_as(x)


def statistics(module: nn.Module) -> dict[str, Tensor]:
    """What BatchNorm layers keep, by name."""
    found = {}
    for name, value in module.named_buffers():
        if name.endswith(("running_mean", "running_var", "num_batches_tracked")):
            found[name] = value.clone()
    return found
