"""Encoder of words."""

import torch
from torch import Tensor, nn

from agm.models.encoders.base import Encoder
from agm.models.tokens import kept, mean_of_kept, padding_among


class Transformer(Encoder):
    """A transformer over word numbers, averaged over the words: `[B, words] → [B, dim]`; 0 is padding.

    The first position is always attended to, so that a text of nothing but padding (a masked modality) has a feature.
    Its stages are its layers.
    """

    def __init__(
        self,
        vocabulary: int,
        words: int,
        *,
        dim: int = 64,
        num_heads: int = 4,
        num_layers: int = 2,
        dim_feedforward: int = 128,
        dropout: float = 0.1,
        sequence: bool = False,
    ) -> None:
        super().__init__()
        self.dim, self.sequence = dim, sequence
        self.embedding = nn.Embedding(vocabulary, dim, padding_idx=0)
        self.position = nn.Parameter(torch.randn(words, dim) * 0.02)
        layer = nn.TransformerEncoderLayer(dim, num_heads, dim_feedforward, dropout, batch_first=True, norm_first=True)
        # Nested tensors would change shapes and take another path in evaluation than in training.
        self.layers = nn.TransformerEncoder(layer, num_layers, nn.LayerNorm(dim), enable_nested_tensor=False)
        self.channels = [dim] * num_layers

    @property
    def stages(self) -> list[nn.Module]:
        return list(self.layers.layers)

    def load_embedding(self, vectors: Tensor) -> None:
        """Start from word vectors `[vocabulary, dim]`, a row for each id; padding, id 0, stays zero.

        Raises:
            ValueError: when their shape is another.
        """
        own = self.embedding.weight
        if vectors.shape != own.shape:
            raise ValueError(f"expected word vectors of shape {list(own.shape)}, found {list(vectors.shape)}")
        with torch.no_grad():
            own[1:] = vectors[1:]

    def begin(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        return self.embedding(x) + self.position, padding_among(x.eq(0))

    def step(self, stage: nn.Module, state: Tensor, padding: Tensor | None) -> Tensor:
        return stage(state, src_key_padding_mask=padding)

    def end(self, state: Tensor, padding: Tensor | None) -> Tensor:
        assert padding is not None, "texts have padding"
        state = self.layers.get_submodule("norm")(state)
        return kept(state, padding) if self.sequence else mean_of_kept(state, padding)
