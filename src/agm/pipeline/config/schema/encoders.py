"""The encoders."""

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from agm.pipeline.config.schema.base import Block, Fraction, Positive


class Attention(Block):
    """What has attention of several heads."""

    dim: Positive
    num_heads: Positive

    @model_validator(mode="after")
    def _split_among_heads(self) -> Self:
        if self.dim % self.num_heads:
            raise ValueError(f"expected num_heads to divide dim, found num_heads {self.num_heads} and dim {self.dim}")
        return self


class EncoderBlock(Block):
    reads: ClassVar[tuple[str, ...]]
    """The kinds of modality that it can read."""
    batch_norm: ClassVar[bool] = False
    """Whether it normalises by the statistics of the batch, which a single clip has none of."""


class ConvEncoder(EncoderBlock):
    reads = ("video", "audio", "image")
    batch_norm = True
    name: Literal["conv"]
    channels: list[Positive] = Field(default=[16, 32, 64], min_length=1)
    """Output channels of each stride-2 convolution."""

    @property
    def dim(self) -> int:
        """Size of the feature."""
        return self.channels[-1]


class ResNet18Encoder(EncoderBlock):
    reads = ("video", "audio", "image")
    batch_norm = True
    name: Literal["resnet18"]
    weights: str | None = None
    """Local path of a torchvision ResNet-18 in safetensors; null starts from scratch."""
    dim: ClassVar[int] = 512


class TransformerEncoder(Attention, EncoderBlock):
    reads = ("text",)
    name: Literal["transformer"]
    dim: Positive = 64
    num_heads: Positive = 4
    num_layers: Positive = 2
    dim_feedforward: Positive = 128
    dropout: Fraction = 0.1
    embedding: str | None = None
    """Local path of word vectors in safetensors, `embedding` [vocabulary, dim], a row for each id of the extracted
    vocabulary; null starts from scratch."""


class SequenceTransformerEncoder(Attention, EncoderBlock):
    """A convolution over single steps, then a transformer; the feature is its first step, as published for UR-FUNNY."""

    reads = ("sequence",)
    name: Literal["sequence_transformer"]
    dim: Positive = 768
    num_heads: Positive = 4
    num_layers: Positive = 8
    dim_feedforward: Positive = 2048
    dropout: Fraction = 0.1


class IdentityEncoder(EncoderBlock):
    """A sequence as it is, for a fusion that is the whole network; its mean over time, for one that reads none."""

    reads = ("sequence",)
    name: Literal["identity"]
    dim: Positive
    """Numbers in one step: the product of features.<modality>.shape."""


Encoder = Annotated[
    ConvEncoder | ResNet18Encoder | TransformerEncoder | SequenceTransformerEncoder | IdentityEncoder,
    Field(discriminator="name"),
]
