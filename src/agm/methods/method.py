"""What the training loop asks of a method; as it stands, plain joint training."""

from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from agm.config import schema
from agm.models.multimodal import Inputs


class Method:
    """Plain joint training: the cross-entropy of the full output.

    A method never changes the network, the data order, the initial weights or the clipping: only what is minimised
    and what becomes of the gradients.
    """

    def __init__(self, config: schema.Method, modalities: list[str]) -> None:
        self.config = config
        self.modalities = modalities

    def start_epoch(self, epoch: int) -> None:
        """Told before each epoch, counted from 0."""

    def loss(self, model: nn.Module, inputs: Inputs, labels: Tensor) -> Tensor:
        """The loss of one step, whose `backward` gives the gradients to descend.

        Args:
            inputs: prepared inputs, `{m: [B, …]}`.
            labels: `[B]` int64.
        """
        return cross_entropy(model(inputs), labels)

    def diagnostics(self) -> dict[str, Tensor]:
        """Scalars of the last step for the history, left on the device."""
        return {}

    def state(self) -> dict[str, Tensor]:
        """What must survive an interruption."""
        return {}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Take up a `state` again."""
