"""Encoder of words."""

from pathlib import Path

import torch
from torch import Tensor, nn

from agm.models.encoders.base import Encoder, pretrained
from agm.models.tokens import kept, mean_of_kept, padding_among
from agm.pipeline.config import schema
from agm.pipeline.errors import AgmError


class Transformer(Encoder):
    """A transformer over word numbers, averaged over the words: `[B, words] → [B, dim]`; 0 is padding.

    The first position is always attended to, so that a text of nothing but padding (a masked modality) has a feature.
    Its stages are its layers.
    """

    def __init__(self, vocabulary: int, words: int, config: schema.TransformerEncoder, sequence: bool = False) -> None:
        super().__init__()
        self.dim, self.sequence = config.dim, sequence
        self.embedding = nn.Embedding(vocabulary, config.dim, padding_idx=0)
        self.position = nn.Parameter(torch.randn(words, config.dim) * 0.02)
        layer = nn.TransformerEncoderLayer(
            config.dim, config.num_heads, config.dim_feedforward, config.dropout, batch_first=True, norm_first=True
        )
        # Nested tensors would change shapes and take another path in evaluation than in training.
        self.layers = nn.TransformerEncoder(
            layer, config.num_layers, nn.LayerNorm(config.dim), enable_nested_tensor=False
        )
        self.channels = [config.dim] * config.num_layers

    @property
    def stages(self) -> list[nn.Module]:
        return list(self.layers.layers)

    def load(self, path: Path) -> None:
        """Load word vectors from a safetensors file, `embedding` [vocabulary, dim]; padding stays 0.

        Raises:
            AgmError: when the file is missing or does not fit the vocabulary.
        """
        found, wanted = pretrained(path, "embedding").get("embedding"), self.embedding.weight
        if found is None or found.shape != wanted.shape:
            holds = "no `embedding`" if found is None else f"an `embedding` of shape {list(found.shape)}"
            raise AgmError(
                f"The word vectors do not fit: the file holds {holds}, and {list(wanted.shape)} is needed",
                where=path,
                fix="one row per id of the vocabulary (0 is padding, 1 an unknown word), encoders.<modality>.dim wide",
            )
        with torch.no_grad():
            wanted[1:] = found[1:]

    def begin(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        return self.embedding(x) + self.position, padding_among(x.eq(0))

    def step(self, stage: nn.Module, state: Tensor, padding: Tensor | None) -> Tensor:
        return stage(state, src_key_padding_mask=padding)

    def end(self, state: Tensor, padding: Tensor | None) -> Tensor:
        state = self.layers.norm(state)
        return kept(state, padding) if self.sequence else mean_of_kept(state, padding)
