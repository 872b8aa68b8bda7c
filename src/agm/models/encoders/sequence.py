"""Encoders of sequences of vectors, `[B, T, …]`, in which a step of exact zeros is padding (`agm.models.tokens`)."""

from torch import Tensor, nn

from agm.models.encoders.base import Encoder, initialise
from agm.models.tokens import kept, mean_of_kept, padding_of


class SequenceTransformer(Encoder):
    """The published network of UR-FUNNY: a convolution of one step's width, then a transformer, `[B, T, …] → [B, dim]`.

    The feature is the first step's state; as a sequence, every step's. Its stages are the transformer's layers.

    Deviation: padding is not attended to, where the published network takes it for data.
    """

    def __init__(
        self,
        values: int,
        *,
        dim: int = 768,
        num_heads: int = 4,
        num_layers: int = 8,
        dim_feedforward: int = 2048,
        dropout: float = 0.1,
        sequence: bool = False,
    ) -> None:
        """`values`: numbers in one step."""
        super().__init__()
        self.dim, self.sequence = dim, sequence
        self.projection = nn.Conv1d(values, dim, 1, bias=False)
        layer = nn.TransformerEncoderLayer(dim, num_heads, dim_feedforward, dropout, batch_first=True)
        # As in the encoder of words: no nested tensors.
        self.layers = nn.TransformerEncoder(layer, num_layers, enable_nested_tensor=False)
        self.channels = [dim] * num_layers
        # The layers keep PyTorch's own initialisation, as in the published network: see `initialise`.
        initialise(self.projection)

    @property
    def stages(self) -> list[nn.Module]:
        return list(self.layers.layers)

    def begin(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        x = x.flatten(2)
        return self.projection(x.transpose(1, 2)).transpose(1, 2), padding_of(x)

    def step(self, stage: nn.Module, state: Tensor, padding: Tensor | None) -> Tensor:
        return stage(state, src_key_padding_mask=padding)

    def end(self, state: Tensor, padding: Tensor | None) -> Tensor:
        assert padding is not None, "sequences have padding"
        return kept(state, padding) if self.sequence else state[:, 0]


class Identity(Encoder):
    """A sequence handed on as it is, each step as one vector, `[B, T, …] → [B, T, dim]`; for a fusion that reads no
    sequences the mean over the steps that are not padding, `[B, dim]`. It has no stages and no weights."""

    def __init__(self, dim: int, sequence: bool = False) -> None:
        super().__init__()
        self.dim, self.sequence = dim, sequence
        self.channels = []

    @property
    def stages(self) -> list[nn.Module]:
        return []

    def begin(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        x = x.flatten(2)
        return x, padding_of(x)

    def end(self, state: Tensor, padding: Tensor | None) -> Tensor:
        assert padding is not None, "sequences have padding"
        return state if self.sequence else mean_of_kept(state, padding)
