"""MSES, modality-specific early stopping: Fujimori et al., 'Modality-Specific Learning Rate Control for Multimodal
Classification', ACPR 2019.

Before each epoch, with l_m the validation loss of the unimodal logits u_m:

    L_m ← 0.6 L_m + 0.4 l_m        at first l_m

When L_m has not fallen below its smallest value for more than `patience` epochs, m's encoder gets back the weights that
it had at that value, and is frozen for the rest of training, and so is its own classifier in a fusion that has one for
each modality; what the modalities share and the other encoders go on.

A frozen encoder is out of the optimizer's hands, momentum and weight decay included, and stays in evaluation mode: its
BatchNorm statistics belong to the weights it got back, and its dropout would be noise that nothing learns from.

Deviations from the published copy:
- Encoders are reached as modules. There the names of weights matched nothing in early fusion, and nothing stopped.
- Only what is the modality's own goes back. There the whole network and the optimizer did, the others with it.
- The gradient is absent, not multiplied by 0, which leaves momentum and weight decay at work.
- L_m is smoothed with its own former value. There it was mixed with the former epoch's loss, which was not smoothed.
- The losses are those of the validation split; there they were those of the test.
- Training does not end when the last encoder is frozen.
"""

import torch
from torch import Tensor, nn

from agm.distributed import LossFunction, cross_entropy
from agm.methods.method import Loader, Method
from agm.methods.mslr import validation_scores
from agm.methods.parameters import Count
from agm.models.multimodal import Model

SMOOTHING = 0.6
"""Share of the former value in a smoothed loss."""


class MSES(Method):
    """MSES for any number of modalities.

    Args:
        patience: epochs without a smaller loss that a modality is given: with one more it stops.
    """

    modulates_encoders = True
    classification = True
    reads = ("val",)

    smoothed: Tensor
    smallest: Tensor
    waited: Tensor
    frozen: Tensor

    def __init__(self, model: Model, *, loss_fn: LossFunction = cross_entropy, patience: Count = 10) -> None:
        super().__init__(model, loss_fn=loss_fn)
        self.patience = patience
        infinite = torch.full((len(self.modalities),), torch.inf, dtype=torch.float64, device=self.device)
        self.register_buffer("smoothed", infinite)
        self.register_buffer("smallest", infinite.clone())
        self.register_buffer("waited", torch.zeros_like(infinite, dtype=torch.int64))
        self.register_buffer("frozen", torch.zeros_like(infinite, dtype=torch.bool))
        self.best = nn.ModuleDict({name: Copy(model.own_part(name)) for name in self.modalities})

    def start_epoch(
        self, epoch: int, *, train: Loader | None = None, val: Loader | None = None, epochs: int | None = None
    ) -> None:
        if epoch > 0:
            self._judge(validation_scores(self.model, self.needed(val, "val")).loss)
        for name, frozen in zip(self.modalities, self.frozen, strict=True):
            # Every epoch anew: the loop sets training mode, and after an interruption nothing of it is left.
            if frozen:
                self.model.own_part(name).eval().requires_grad_(False)
        self.report(coefficient=(~self.frozen).double())

    def _judge(self, loss: Tensor) -> None:
        """Take in the losses `[M]` after an epoch; keep the weights of those that fell, and stop who waited enough."""
        mixed = SMOOTHING * self.smoothed + (1 - SMOOTHING) * loss
        self.smoothed.copy_(torch.where(self.smoothed.isinf(), loss, mixed))
        better = (self.smoothed < self.smallest) & ~self.frozen
        self.smallest.copy_(torch.where(better, self.smoothed, self.smallest))
        self.waited.copy_(torch.where(better, 0, self.waited + 1))
        stops = (self.waited > self.patience) & ~self.frozen
        for index, name in enumerate(self.modalities):
            copy = self.best.get_submodule(name)
            assert isinstance(copy, Copy)
            if better[index]:
                copy.take(self.model.own_part(name))
            if stops[index]:
                copy.give(self.model.own_part(name))
        self.frozen |= stops


class Copy(nn.Module):
    """A copy of a module's weights and statistics, as buffers: kept, not trained."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        for index, value in enumerate(module.state_dict().values()):
            self.register_buffer(f"value_{index}", value.clone())

    def take(self, module: nn.Module) -> None:
        """Copy what `module` has now."""
        for kept, value in zip(self.buffers(), module.state_dict().values(), strict=True):
            kept.copy_(value)

    def give(self, module: nn.Module) -> None:
        """Copy it back into `module`."""
        module.load_state_dict(dict(zip(module.state_dict(), self.buffers(), strict=True)))
