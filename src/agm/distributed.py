"""The processes of one data-parallel run, as the science sees them: what is global is computed here.

Every process has its own clips of each batch, any number of them. Scores, statistics and losses are over the whole
batch, so that any number of processes computes what one does, to rounding. Who has no clip of a batch computes on one
that counts for nothing (`idle`), because all must take part in what is summed. Without a process group, as nearly
always, there is one process, and each function is what it would be anyway.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
import torch.distributed.nn.functional as differentiable
from torch import Tensor, nn
from torch.nn import functional

_weight = 1.0
"""What each clip of this process counts for: 0 while it is idle."""


def rank() -> int:
    """The number of this process, from 0."""
    return dist.get_rank() if together() else 0


def count() -> int:
    """How many processes there are."""
    return dist.get_world_size() if together() else 1


def together() -> bool:
    """Whether this process is one of a group."""
    return dist.is_initialized()


def gathered(own: Tensor) -> list[Tensor]:
    """A tensor of every process, by rank; all are of one shape."""
    if not together():
        return [own]
    found = [torch.empty_like(own) for _ in range(count())]
    dist.all_gather(found, own)
    return found


def summed(value: Tensor) -> Tensor:
    """The sum over the processes; of a single one the value itself. Without gradients."""
    if together():
        value = value.clone()
        dist.all_reduce(value)
    return value


def of_the_first(names: list[str]) -> list[str]:
    """What the first process has."""
    if together():
        dist.broadcast_object_list(told := [names], device=torch.device("cpu"))
        return told[0]
    return names


def agreed(flags: list[bool]) -> list[bool]:
    """Of every flag, whether any process has it raised."""
    if not together():
        return flags
    raised = torch.tensor(flags, dtype=torch.int32)
    dist.all_reduce(raised, dist.ReduceOp.MAX)
    return [bool(each) for each in raised]


@contextmanager
def idle(is_idle: bool) -> Iterator[None]:
    """While it lasts, the clips of this process count for nothing, if `is_idle`."""
    global _weight
    _weight = 0.0 if is_idle else 1.0
    try:
        yield
    finally:
        _weight = 1.0


def mean(values: Tensor) -> Tensor:
    """The mean over the clips of the whole batch, the last axis: `[…, B] → […]`. Without gradients."""
    if not together():
        return values.mean(dim=-1)
    return summed(values.sum(dim=-1) * _weight) / _clips(values).to(values)


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """The cross-entropy whose gradients, averaged over the processes, are those of the whole batch's mean.

    Args:
        logits: `[B, C]`, of the clips of this process.
        labels: `[B]`.
    """
    if not together():
        return functional.cross_entropy(logits, labels)
    total = functional.cross_entropy(logits, labels, reduction="sum")
    return total * _weight * (count() / _clips(labels)).to(total)


def _clips(values: Tensor) -> Tensor:
    """How many clips the whole batch has."""
    return summed(torch.tensor(values.shape[-1] * _weight, dtype=torch.float64, device=values.device))


class GlobalBatchNorm(nn.modules.batchnorm._BatchNorm):
    """BatchNorm over the clips of all processes, on any device and with any number of clips in each.

    torch's SyncBatchNorm needs a GPU. Like BatchNorm, it normalises by the biased variance and keeps the unbiased one.
    """

    def _check_input_dim(self, x: Tensor) -> None:
        """Any number of axes: what this replaces has checked."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        axes = [axis for axis in range(x.ndim) if axis != 1]
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        size = wide.new_full((1,), x.numel() / x.shape[1])
        sums = differentiable.all_reduce(torch.cat([wide.sum(dim=axes), size]) * _weight)
        total = sums[-1].detach()
        shape = [1, -1, *[1] * (x.ndim - 2)]
        mean = sums[:-1] / total
        centred = wide - mean.view(shape)
        variance = differentiable.all_reduce(centred.square().sum(dim=axes) * _weight) / total
        self._keep(mean.detach(), variance.detach() * total / (total - 1))
        normalised = centred * (variance + self.eps).rsqrt().view(shape)
        if self.affine:
            normalised = normalised * self.weight.view(shape) + self.bias.view(shape)
        return normalised.to(x.dtype)

    def _keep(self, mean: Tensor, variance: Tensor) -> None:
        if self.running_mean is not None:
            self.num_batches_tracked.add_(1)
            momentum = 1 / self.num_batches_tracked if self.momentum is None else self.momentum
            self.running_mean.lerp_(mean.to(self.running_mean.dtype), momentum)
            self.running_var.lerp_(variance.to(self.running_var.dtype), momentum)


def share_statistics(module: nn.Module) -> None:
    """Make every BatchNorm below `module` one of the whole batch, with the weights and statistics that it has."""
    for each in module.modules():
        if isinstance(each, nn.modules.batchnorm._BatchNorm):
            each.__class__ = GlobalBatchNorm
