"""What a run reads of the shards: batches of clips, normalised, on its device."""

from collections.abc import Iterator
from functools import cached_property
from typing import Any

import torch

from agm import distributed
from agm.methods.method import Batch
from agm.models import Inputs, Model
from agm.pipeline.config import schema
from agm.pipeline.networks import Preparation
from agm.pipeline.steps.shard.stream import Shards


class Clips:
    """The clips of a run's splits, prepared for its network: of several processes, those of this one."""

    def __init__(self, shards: Shards, model: Model, trainer: schema.Trainer, seed: int) -> None:
        self.shards, self.trainer, self.seed = shards, trainer, seed
        self.modalities = model.modalities
        self.device = next(model.parameters()).device

    @cached_property
    def prepare(self) -> Preparation:
        """Stored tensors to inputs of the network."""
        return Preparation(self.shards.features, self.modalities).to(self.device)

    def clips(self, split: str) -> int:
        """How many clips `split` has."""
        return self.shards.rows(split)

    @property
    def batches_per_epoch(self) -> int:
        """How many batches the training split has."""
        return -(-self.clips("train") // self.trainer.batch_size)

    def size(self, split: str, number: int) -> int:
        """How many clips batch `number` has, over all processes."""
        return min(self.trainer.batch_size, self.clips(split) - number * self.trainer.batch_size)

    def clip_ids(self, epoch: int, number: int) -> list[str]:
        """The clips of batch `number` of an epoch, over all processes."""
        order = self._order(epoch)
        batches = self.shards.batches("train", self.trainer.batch_size, skip=number, modalities=(), **order)
        return next(batches).clip_ids

    def batches(self, split: str, epoch: int | None = None, skip: int = 0) -> Iterator[Batch]:
        """Batches on the device, of the modalities that the network reads: in the order in which training sees
        `epoch`, or the stored one; without the first `skip`."""
        order = {} if epoch is None else self._order(epoch)
        order |= {"skip": skip, "modalities": self.modalities, "part": (distributed.rank(), distributed.world_size())}
        for batch in self.shards.batches(split, self.trainer.batch_size, **order):
            raw = {name: value.to(self.device, non_blocking=True) for name, value in batch.inputs.items()}
            labels = batch.labels.to(self.device, non_blocking=True)
            yield Batch(self._laid_out(self.prepare(raw)), labels, batch.clip_ids)

    def _order(self, epoch: int) -> dict[str, Any]:
        return {"shuffle": (self.seed, epoch), "window": self.trainer.shuffle_buffer}

    def _laid_out(self, inputs: Inputs) -> Inputs:
        if not self.trainer.channels_last:
            return inputs
        images = {name: x for name, x in inputs.items() if x.ndim == 4}
        return inputs | {name: x.contiguous(memory_format=torch.channels_last) for name, x in images.items()}


class Split:
    """One split, as `Method.start_epoch` reads it: in the order of an epoch, or in the stored one."""

    def __init__(self, clips: Clips, split: str, epoch: int | None = None) -> None:
        self.clips, self.split, self.epoch = clips, split, epoch

    @property
    def num_samples(self) -> int:
        """How many clips the split has, over all processes."""
        return self.clips.clips(self.split)

    def __iter__(self) -> Iterator[Batch]:
        return self.clips.batches(self.split, self.epoch)
