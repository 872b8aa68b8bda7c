"""The one training loop: every method, every fusion, CPU or GPU, and the same result after an interruption."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from agm import distributed
from agm.methods.method import Batch, Method, gradients
from agm.models import Model
from agm.pipeline.config import schema
from agm.pipeline.errors import Stopped
from agm.pipeline.runtime.progress import track
from agm.pipeline.steps.shard.stream import Shards
from agm.pipeline.steps.train.checkpoint import Checkpoints, plain
from agm.pipeline.steps.train.clips import Clips, Split
from agm.pipeline.steps.train.meter import Meter
from agm.pipeline.steps.train.validate import validate
from agm.pipeline.steps.train.watch import Signals, Watch, named


class Diverged(Exception):
    """Training has met a number that is not finite.

    Args:
        what: which one.
        batch: the number of the batch in its epoch; None for the validation behind it.
    """

    def __init__(self, what: str, batch: int | None) -> None:
        super().__init__(what)
        self.what, self.batch = what, batch


class Training:
    """A model in training.

    Attributes:
        history: one row per epoch done.
        best_epoch, best_weights: the epoch with the best validation figure, and its weights; -1 before the first.
        failed: what went wrong where the run diverged; see `_diagnosis`.
        fewest: clips of a batch that is trained on; of a smaller one no step is made.
        gradient_norm: that of the last step, before clipping, on the device.
    """

    def __init__(
        self,
        model: Model,
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
        self.optimizer = build_optimizer(trainer.optimizer, self.weights)
        if trainer.channels_last:
            model.to(memory_format=torch.channels_last)
        if trainer.compile:
            compile_parts(model)
        if distributed.initialized():
            distributed.distribute(method)
        # BatchNorm has no statistics of a single clip.
        self.fewest = 2 if any(isinstance(module, _BatchNorm) for module in model.modules()) else 1
        self.history: list[dict[str, Any]] = []
        self.best_epoch = -1
        self.best_weights: dict[str, Tensor] = {}
        self.failed: dict[str, Any] | None = None
        self.gradient_norm = torch.zeros((), device=self.device)
        # Dropout draws from the global generator: alike for every method of this seed.
        torch.manual_seed(seed + distributed.rank())

    def fit(self, folder: Path, signals: Signals | None = None) -> None:
        """Train to the last epoch, or to where the numbers are not finite any more.

        Args:
            folder: for the checkpoints of this run alone; where there are any, training goes on from the last one.
            signals: those that have come: for one of them training stops at the next batch.

        Raises:
            Stopped: when a signal came, with a checkpoint behind the last batch.
        """
        checkpoints, watch = Checkpoints(folder), Watch(self.device, signals)
        checkpoints.restore_epoch(self)
        remaining = range(len(self.history), self.trainer.epochs)
        for epoch in track(remaining, len(remaining), self.label):
            try:
                row = self._epoch(epoch, checkpoints, watch)
            except Diverged as error:
                self.failed = self._diagnosis(error, folder)
                return
            self.history.append(row)
            if epoch == select_epoch(self.history, self.trainer.monitor):
                self.best_epoch, self.best_weights = epoch, plain(self.model.state_dict())
            checkpoints.save_epoch(self)
            watch.look()
            if watch.stop and len(self.history) < self.trainer.epochs:
                raise self._stopped(watch, epoch, "its end")

    def _epoch(self, epoch: int, checkpoints: Checkpoints, watch: Watch) -> dict[str, Any]:
        self._set_learning_rate(epoch)
        meter = self._train_epoch(epoch, checkpoints, watch)

        def between_batches() -> None:
            # Several processes would have to ask each other, and have different numbers of batches to validate.
            if watch.signals.received and not distributed.initialized():
                self._look(watch, checkpoints, meter, self.data.batches_per_epoch)

        figures = validate(self.model, Split(self.data, "val"), between_batches)
        if not math.isfinite(figures["val_loss"]):
            raise Diverged(f"the validation loss is {figures['val_loss']}", None)
        lr = self.optimizer.param_groups[0]["lr"]
        return {"epoch": epoch, "lr": lr, **meter.summary(ranges=("kappa",)), **figures}

    def _train_epoch(self, epoch: int, checkpoints: Checkpoints, watch: Watch) -> Meter:
        self.model.train()
        train, val = Split(self.data, "train", epoch), Split(self.data, "val")
        self.method.start_epoch(epoch, train=train, val=val, epochs=self.trainer.epochs)
        meter = Meter()
        done = checkpoints.restore_step(self, meter)
        for batch in self.data.batches("train", epoch, skip=done):
            # The last batch of an epoch may be a single clip.
            if (size := self.data.size("train", done)) >= self.fewest:
                loss = self.train_step(batch)
                meter.add({"train_loss": loss, **self.method.diagnostics}, weight=size)
                watch.note(done, loss, self.gradient_norm)
            done += 1
            if watch.due(done):
                self._look(watch, checkpoints, meter, done)
        self._look(watch, checkpoints, meter, done)
        return meter

    def _look(self, watch: Watch, checkpoints: Checkpoints, meter: Meter, done: int) -> None:
        """Look whether to give up, write a checkpoint, stop."""
        watch.look()
        if watch.bad:
            number, what = watch.bad
            raise Diverged(what, number)
        if watch.save or watch.stop:
            checkpoints.save_step(self, done, meter)
        if watch.stop:
            raise self._stopped(watch, len(self.history), f"batch {done}")

    def _stopped(self, watch: Watch, epoch: int, where: str) -> Stopped:
        kept = f"the checkpoint holds epoch {epoch}, {where}; started again, it goes on from there"
        return Stopped(f"stopped by {named(watch.stop)}: {kept}", watch.stop)

    def _diagnosis(self, error: Diverged, folder: Path) -> dict[str, Any]:
        """What a person needs to look into a run that diverged.

        Returns:
            what: which number is not finite; epoch: counted from 0; step: batches of the whole run before the bad one;
            batch: the ids of its clips; checkpoint: the folder of the last good state, None before the first epoch.
        """
        epoch, batch = len(self.history), error.batch
        before = epoch * self.data.batches_per_epoch
        return {
            "what": error.what,
            "epoch": epoch,
            "step": before + (self.data.batches_per_epoch if batch is None else batch),
            "batch": [] if batch is None else self.data.clip_ids(epoch, batch),
            "checkpoint": str(folder) if self.history else None,
        }

    def train_step(self, batch: Batch) -> Tensor:
        """What the method does with one batch; returns the loss, on the device, the mean where there are several."""
        losses = self._losses(batch)
        noted, norms = [], []
        # A generator goes on where it is asked: each loss comes after the step on the one before.
        while (loss := self._next(losses)) is not None:
            self.optimizer.zero_grad(set_to_none=True)
            self.method.backward(loss)
            norms.append(gradient_norm(self.weights))
            if self.trainer.grad_clip is not None:
                clip_gradients(self.model.fusion.classifiers, self.weights, self.trainer.grad_clip, norms[-1])
            self.optimizer.step()
            noted.append(loss.detach())
        self.gradient_norm = torch.stack(norms).amax()
        return torch.stack(noted).mean()

    def _losses(self, batch: Batch) -> Iterator[Tensor]:
        inputs, labels, ids = batch
        if self.method.objective is None:
            yield from self.method.losses(inputs, labels, ids)
            return
        # A process without a clip of this batch takes part with one that counts for nothing.
        nobody = len(labels) == 0
        if nobody:
            inputs = {name: x.new_zeros(1, *x.shape[1:]) for name, x in inputs.items()}
            labels = labels.new_zeros(1)
        with distributed.idle(nobody):
            loss = self.method.objective(inputs, labels)
        yield loss

    def _next(self, losses: Iterator[Tensor]) -> Tensor | None:
        low = self.trainer.precision == "bfloat16"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=low):
            return next(losses, None)

    def _set_learning_rate(self, epoch: int) -> None:
        """StepLR, as a function of the epoch: nothing to keep across an interruption."""
        schedule = self.trainer.schedule
        for group in self.optimizer.param_groups:
            group["lr"] = self.trainer.optimizer.lr * schedule.gamma ** (epoch // schedule.step_size)


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


def build_optimizer(config: schema.Sgd | schema.AdamW, weights: list[nn.Parameter]) -> torch.optim.Optimizer:
    """The optimizer that `config` describes."""
    if isinstance(config, schema.Sgd):
        return torch.optim.SGD(weights, config.lr, config.momentum, weight_decay=config.weight_decay)
    return torch.optim.AdamW(weights, config.lr, weight_decay=config.weight_decay)


@torch.no_grad()
def gradient_norm(weights: list[nn.Parameter]) -> Tensor:
    """The norm of all gradients together, on the device."""
    return torch.nn.utils.get_total_norm(gradients(weights))


def clip_gradients(classifiers: list[nn.Linear], weights: list[nn.Parameter], limit: float, norm: Tensor) -> None:
    """Where an entry of a classifier's weight gradient exceeds `limit`, clip all gradients, of that `norm`, to it.

    The published rule, for every method alike; decided on the device, without waiting for it.
    """
    classifier = gradients(layer.weight for layer in classifiers)
    if not classifier:
        return
    largest = torch.stack([gradient.abs().amax() for gradient in classifier]).amax()
    scale = torch.where(largest > limit, (limit / (norm + 1e-6)).clamp_max(1.0), 1.0)
    torch._foreach_mul_(gradients(weights), scale)


def select_epoch(history: list[dict[str, Any]], by: str) -> int:
    """The epoch whose weights are kept: the best on validation, the earliest of equals."""
    if by == "accuracy":
        return max(history, key=lambda row: (row["val_accuracy"], -row["epoch"]))["epoch"]
    return min(history, key=lambda row: (row["val_loss"], row["epoch"]))["epoch"]
