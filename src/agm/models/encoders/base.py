"""What every encoder offers, and how its weights start."""

from collections.abc import Generator, Sequence

from torch import Tensor, nn


class Encoder(nn.Module):
    """One modality's prepared input to its feature: `[B, …] → [B, dim]`, or for a sequential fusion `[B, T, dim]`.

    It is a chain of stages, so that something may be put between them. The state that is handed from stage to stage
    is `[B · frames, C, H, W]` in an encoder of images (frames is 1 but for videos) and `[B, T, C]` in one of
    sequences: the channels are its second axis where it has four, its last where it has three.

    Attributes:
        dim: size of the feature, of each token where there are several.
        channels: C of the state after each stage.
        sequence: whether the feature is `[B, T, dim]`, with padded positions exactly zero.
    """

    dim: int
    channels: list[int]
    sequence = False

    @property
    def stages(self) -> Sequence[nn.Module] | nn.ModuleList:
        """The modules in order."""
        raise NotImplementedError

    def begin(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """The state before the first stage, and for sequences which positions are padding, bool `[B, T]`."""
        return x, None

    def step(self, stage: nn.Module, state: Tensor, padding: Tensor | None) -> Tensor:
        """The state after one stage."""
        return stage(state)

    def end(self, state: Tensor, padding: Tensor | None) -> Tensor:
        """The feature, of the state after the last stage."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        state, padding = self.begin(x)
        for stage in self.stages:
            state = self.step(stage, state, padding)
        return self.end(state, padding)

    def run_stages(self, x: Tensor) -> Generator[Tensor, Tensor, Tensor]:
        """Stage by stage: yields the state after each, is sent the state to go on with, returns the feature."""
        state, padding = self.begin(x)
        for stage in self.stages:
            state = yield self.step(stage, state, padding)
        return self.end(state, padding)


def initialise(module: nn.Module) -> None:
    """The published experiments' initialisation: Xavier for linear layers, Kaiming *uniform* for convolutions.

    It makes every bias zero. Not for post-norm transformer layers: there an input of zeros would stay exactly zero,
    and each LayerNorm would multiply its gradient by 1/√ε = 316.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            nn.init.xavier_normal_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        elif isinstance(layer, nn.Conv1d | nn.Conv2d):
            nn.init.kaiming_uniform_(layer.weight, mode="fan_out", nonlinearity="relu")
