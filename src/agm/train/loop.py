"""The one training loop: every method, every fusion, CPU or GPU, and the same result after an interruption."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from agm.attribution import evaluating, mono_modal_responses
from agm.config import schema
from agm.errors import AgmError
from agm.methods.method import Batch, Method, gradients
from agm.models import MultimodalModel
from agm.models.multimodal import Inputs
from agm.progress import track
from agm.shard.stream import Shards
from agm.train import checkpoint
from agm.train.meter import Meter


class Training:
    """A model in training.

    Attributes:
        history: one row per epoch done.
        best_epoch, best_weights: the epoch with the best validation figure, and its weights.
    """

    def __init__(
        self,
        model: nn.Module,
        method: Method,
        shards: Shards,
        trainer: schema.Trainer,
        seed: int,
        label: str = "train",
    ) -> None:
        self.model, self.method, self.shards, self.trainer = model, method, shards, trainer
        self.seed, self.label = seed, label
        self.device = next(model.parameters()).device
        self.data = Clips(shards, model, trainer, seed)
        self.weights = [*model.parameters(), *method.parameters()]
        self.optimiser = build_optimiser(trainer.optimiser, self.weights)
        if trainer.channels_last:
            model.to(memory_format=torch.channels_last)
        if trainer.compile:
            compile_parts(model)
        self.history: list[dict[str, Any]] = []
        self.best_epoch = -1
        self.best_weights: dict[str, Tensor] = {}
        # Dropout draws from the global generator: alike for every method of this seed.
        torch.manual_seed(seed)

    def fit(self, checkpoint_file: Path) -> None:
        """Train to the last epoch, from `checkpoint_file` where there is one; it is brought up to date every epoch."""
        checkpoint.restore(self, checkpoint_file)
        remaining = range(len(self.history), self.trainer.epochs)
        for epoch in track(remaining, len(remaining), self.label):
            self._set_learning_rate(epoch)
            row = {
                "epoch": epoch,
                "lr": self.optimiser.param_groups[0]["lr"],
                **self._train_epoch(epoch),
                **self._validate(),
            }
            self.history.append(row)
            if epoch == select_epoch(self.history, self.trainer.select):
                self.best_epoch = epoch
                self.best_weights = {
                    name: value.detach().cpu().clone() for name, value in self.model.state_dict().items()
                }
            checkpoint.save(self, checkpoint_file)

    def _train_epoch(self, epoch: int) -> dict[str, float]:
        self.model.train()
        self.method.start_epoch(epoch, self.model, self.data)
        meter = Meter()
        for batch in self.data.batches("train", epoch):
            # BatchNorm has no statistics of a single clip: the last batch of an epoch may be one.
            if len(batch.labels) > 1:
                loss = self.train_step(batch)
                meter.add({"train_loss": loss, **self.method.diagnostics}, weight=len(batch.labels))
        row = meter.summary(ranges=("kappa",))
        if not all(torch.isfinite(torch.tensor(value)) for value in row.values()):
            raise AgmError(
                f"Training diverged in epoch {epoch}: loss {row['train_loss']}",
                where=self.label,
                fix="lower trainer.optimiser.lr, or the method's strength; the checkpoint holds the epoch before",
            )
        return row

    def train_step(self, batch: Batch) -> Tensor:
        """What the method does with one batch; returns the loss, on the device, the mean where there are several."""
        inputs, labels, _ = self.method.augment(batch)
        losses = self.method.losses(self.model, inputs, labels)
        noted = []
        # A generator goes on where it is asked: each loss comes after the step on the one before.
        while (loss := self._next(losses)) is not None:
            self.optimiser.zero_grad(set_to_none=True)
            self.method.backward(self.model, loss)
            if self.trainer.clip is not None:
                clip_gradients(self.model.fusion.classifiers, self.weights, self.trainer.clip)
            self.optimiser.step()
            noted.append(loss.detach())
        return torch.stack(noted).mean()

    def _next(self, losses: Iterator[Tensor]) -> Tensor | None:
        low = self.trainer.precision == "bfloat16"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=low):
            return next(losses, None)

    @torch.no_grad()
    def _validate(self) -> dict[str, float]:
        """Loss and accuracy on the validation split, and the accuracy of each φ_m where there are several."""
        meter = Meter()
        with evaluating(self.model):
            for inputs, labels, _ in self.data.batches("val"):
                meter.add(_validation_figures(self.model, inputs, labels), weight=len(labels))
        return meter.summary()

    def _set_learning_rate(self, epoch: int) -> None:
        """StepLR, as a function of the epoch: nothing to keep across an interruption."""
        schedule = self.trainer.schedule
        for group in self.optimiser.param_groups:
            group["lr"] = self.trainer.optimiser.lr * schedule.gamma ** (epoch // schedule.step)


class Clips:
    """The clips of a run's splits, prepared for its network (`agm.methods.method.Data`)."""

    def __init__(self, shards: Shards, model: nn.Module, trainer: schema.Trainer, seed: int) -> None:
        self.shards, self.model, self.trainer, self.seed = shards, model, trainer, seed
        self.device = next(model.parameters()).device

    def clips(self, split: str) -> int:
        """How many clips `split` has."""
        return self.shards.rows(split)

    def batches(self, split: str, epoch: int | None = None) -> Iterator[Batch]:
        """Batches on the device, of the modalities that the network reads: in the order in which training sees
        `epoch`, or the stored one."""
        order = {} if epoch is None else {"shuffle": (self.seed, epoch), "window": self.trainer.shuffle_window}
        modalities = self.model.modalities
        for batch in self.shards.batches(split, self.trainer.batch_size, modalities=modalities, **order):
            raw = {name: value.to(self.device, non_blocking=True) for name, value in batch.inputs.items()}
            labels = batch.labels.to(self.device, non_blocking=True)
            yield Batch(self._laid_out(self.model.prepare(raw)), labels, batch.clip_ids)

    def _laid_out(self, inputs: Inputs) -> Inputs:
        if not self.trainer.channels_last:
            return inputs
        images = {name: x for name, x in inputs.items() if x.ndim == 4}
        return inputs | {name: x.contiguous(memory_format=torch.channels_last) for name, x in images.items()}


def compile_parts(model: nn.Module) -> None:
    """Compile each encoder and the fusion: the parts that attribution calls one by one."""
    import torch._dynamo.config  # here, because they take seconds and are for this only
    import torch._functorch.config

    # All encoders share a `forward`, and each has its own shapes and two modes: more versions than the default allows,
    # beyond which compiling is given up without a word.
    torch._dynamo.config.recompile_limit = 64
    # A method may take two gradients from one graph, which buffers that the first gives away would not allow.
    torch._functorch.config.donated_buffer = False
    network = getattr(model, "model", model)
    for part in (*network.encoders.values(), network.fusion):
        part.compile()


def build_optimiser(config: schema.Sgd | schema.AdamW, weights: list[nn.Parameter]) -> torch.optim.Optimizer:
    """The optimiser that `config` describes."""
    if isinstance(config, schema.Sgd):
        return torch.optim.SGD(weights, config.lr, config.momentum, weight_decay=config.weight_decay)
    return torch.optim.AdamW(weights, config.lr, weight_decay=config.weight_decay)


def clip_gradients(classifiers: list[nn.Linear], weights: list[nn.Parameter], limit: float) -> None:
    """Where an entry of a classifier's weight gradient exceeds `limit`, clip all gradients to that norm.

    The published rule, for every method alike; decided on the device, without waiting for it.
    """
    classifier = gradients(layer.weight for layer in classifiers)
    if not classifier:
        return
    largest = torch.stack([gradient.abs().amax() for gradient in classifier]).amax()
    found = gradients(weights)
    norm = torch.nn.utils.get_total_norm(found)
    scale = torch.where(largest > limit, (limit / (norm + 1e-6)).clamp_max(1.0), 1.0)
    torch._foreach_mul_(found, scale)


def select_epoch(history: list[dict[str, Any]], by: str) -> int:
    """The epoch whose weights are kept: the best on validation, the earliest of equals."""
    if by == "accuracy":
        return max(history, key=lambda row: (row["val_accuracy"], -row["epoch"]))["epoch"]
    return min(history, key=lambda row: (row["val_loss"], row["epoch"]))["epoch"]


def _validation_figures(model: nn.Module, inputs: Inputs, labels: Tensor) -> dict[str, Tensor]:
    def accuracy(logits: Tensor) -> Tensor:
        return (logits.argmax(dim=1) == labels).double().mean()

    if not isinstance(model, MultimodalModel) or len(model.modalities) == 1:
        logits = model(inputs)
        return {"val_loss": cross_entropy(logits, labels), "val_accuracy": accuracy(logits)}
    responses = mono_modal_responses(model, inputs)
    logits = responses.sum(dim=0)
    figures = {"val_loss": cross_entropy(logits, labels), "val_accuracy": accuracy(logits)}
    return figures | {f"val_phi_{name}": accuracy(phi) for name, phi in zip(model.modalities, responses, strict=True)}
