"""Data-parallel training: what is global is computed here.

Every process has its own samples of each batch, any number of them. Scores, statistics and losses are over the whole
batch, so that any number of processes computes what one does, to rounding. A process without a sample of a batch
computes on one that counts for nothing (`idle`), because all must take part in what is summed. Without a process group,
as nearly always, there is one process, and each function is what it would be anyway.

`distribute(method)` is all that a training loop needs:

    torch.distributed.init_process_group("gloo")
    method = agm.methods.AGM(model)
    agm.distributed.distribute(method)                 # wraps model and method in DistributedDataParallel
    loss = method.step(inputs, labels, optimizer)      # inputs and labels of this process
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
import torch.distributed.nn.functional as differentiable
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

if TYPE_CHECKING:
    from agm.methods.method import Method

LossFunction = Callable[[Tensor, Tensor], Tensor]
"""Outputs `[B, …]` and targets `[B, …]` to the loss of each sample, `[B]`."""

_weight = 1.0
"""What each sample of this process counts for: 0 while it is idle."""


def rank() -> int:
    """The number of this process, from 0."""
    return dist.get_rank() if initialized() else 0


def world_size() -> int:
    """How many processes there are."""
    return dist.get_world_size() if initialized() else 1


def initialized() -> bool:
    """Whether this process is one of a group."""
    return dist.is_available() and dist.is_initialized()


def gathered(own: Tensor) -> list[Tensor]:
    """A tensor of every process, by rank; all are of one shape."""
    if not initialized():
        return [own]
    tensors = [torch.empty_like(own) for _ in range(world_size())]
    dist.all_gather(tensors, own)
    return tensors


def summed(value: Tensor) -> Tensor:
    """The sum over the processes; of a single one the value itself. Without gradients."""
    if initialized():
        value = value.clone()
        dist.all_reduce(value)
    return value


def broadcast_names(names: list[str]) -> list[str]:
    """The names that the first process has."""
    if not initialized():
        return names
    objects = [names]
    dist.broadcast_object_list(objects, device=torch.device("cpu"))
    return objects[0]


def any_process(flags: list[bool]) -> list[bool]:
    """Whether any process has each flag raised."""
    if not initialized():
        return flags
    raised = torch.tensor(flags, dtype=torch.int32)
    dist.all_reduce(raised, dist.ReduceOp.MAX)
    return [bool(flag) for flag in raised]


@contextmanager
def idle(is_idle: bool) -> Iterator[None]:
    """While it lasts, the samples of this process count for nothing, if `is_idle`."""
    global _weight
    _weight = 0.0 if is_idle else 1.0
    try:
        yield
    finally:
        _weight = 1.0


def mean(values: Tensor) -> Tensor:
    """The mean over the samples of the whole batch, the last axis: `[…, B] → […]`. Without gradients."""
    if not initialized():
        return values.mean(dim=-1)
    return summed(values.sum(dim=-1) * _weight) / _samples(values.shape[-1], values.device).to(values)


def cross_entropy(outputs: Tensor, labels: Tensor) -> Tensor:
    """The cross-entropy of each sample, logits `[B, C]` and labels `[B]` to `[B]`: the default loss of every method."""
    return functional.cross_entropy(outputs, labels, reduction="none")


def sample_losses(loss_fn: LossFunction, outputs: Tensor, targets: Tensor) -> Tensor:
    """The loss of each sample, `[B]`.

    Raises:
        ValueError: when the function gives something else, such as the mean.
    """
    losses = loss_fn(outputs, targets)
    if losses.shape != outputs.shape[:1]:
        raise ValueError(
            f"loss_fn gives the shape {list(losses.shape)}, expected a loss for each sample, [{len(outputs)}]: "
            "use reduction='none', and the mean over what is left"
        )
    return losses


def mean_loss(loss_fn: LossFunction, outputs: Tensor, targets: Tensor) -> Tensor:
    """The mean loss, `[]`: its gradients, averaged over the processes, are those of the whole batch's mean.

    Args:
        loss_fn: the loss of each sample.
        outputs: `[B, …]`, of the samples of this process.
        targets: `[B, …]`.
    """
    if not initialized():
        if loss_fn is cross_entropy:
            return functional.cross_entropy(outputs, targets)  # one kernel
        return sample_losses(loss_fn, outputs, targets).mean()
    if loss_fn is cross_entropy:
        total = functional.cross_entropy(outputs, targets, reduction="sum")
    else:
        total = sample_losses(loss_fn, outputs, targets).sum()
    return total * _weight * (world_size() / _samples(len(outputs), outputs.device)).to(total)


def _samples(own: int, device: torch.device) -> Tensor:
    """How many samples the whole batch has, `[]` float64."""
    return summed(torch.tensor(own * _weight, dtype=torch.float64, device=device))


class Objective(nn.Module):
    """A method's loss as a module, `(inputs, targets) → loss`: for DistributedDataParallel, which averages the
    gradients of one forward pass."""

    def __init__(self, method: Method) -> None:
        super().__init__()
        self.model, self.method = method.model, method

    def forward(self, inputs: dict[str, Tensor], targets: Tensor) -> Tensor:
        return self.method.loss(inputs, targets)


def distribute(method: Method, **options: Any) -> None:
    """Let several processes train one model: from now on `method.step` takes each process's share of a batch.

    BatchNorm has the statistics of the whole batch from now on.

    Args:
        method: one that says `data_parallel`; made alike in every process.
        options: of DistributedDataParallel.

    Raises:
        ValueError: for a method whose step needs more than the mean of the gradients.
    """
    if not method.data_parallel:
        raise ValueError(f"{type(method).__name__} cannot be trained by several processes")
    convert_batch_norm(method.model)
    # Buffers are computed alike everywhere: nothing to broadcast.
    method.objective = DistributedDataParallel(Objective(method), broadcast_buffers=False, **options)


class GlobalBatchNorm(nn.modules.batchnorm._BatchNorm):
    """BatchNorm over the samples of all processes, on any device and with any number of samples in each.

    torch's SyncBatchNorm needs a GPU. Like BatchNorm, it normalises by the biased variance and keeps the unbiased one.
    """

    def _check_input_dim(self, x: Tensor) -> None:
        """Any number of axes: what this replaces has checked."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or not initialized():
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
        if self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
            momentum = 1 / self.num_batches_tracked if self.momentum is None else self.momentum
            self.running_mean.lerp_(mean.to(self.running_mean.dtype), momentum)
            self.running_var.lerp_(variance.to(self.running_var.dtype), momentum)


def convert_batch_norm(module: nn.Module) -> None:
    """Make every BatchNorm below `module` one of the whole batch, with the weights and statistics that it has."""
    for layer in module.modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            layer.__class__ = GlobalBatchNorm
