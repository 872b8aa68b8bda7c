"""The fusions."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from agm.pipeline.config.schema.base import Block, Fraction, Positive
from agm.pipeline.config.schema.data import Features, SequenceFeatures
from agm.pipeline.config.schema.encoders import Attention


class FusionBlock(Block):
    additive: ClassVar[bool] = False
    """Whether f = Σ_m u_m, a linear map of each feature."""
    sequential: ClassVar[bool] = False
    """Whether it reads sequences of features, `[B, T, D]`, where the others read one, `[B, D]`."""
    batch_norm: ClassVar[bool] = False
    """Whether it normalises by the statistics of the batch, which a single clip has none of."""

    def refusal(self, features: dict[str, Features], dims: dict[str, int]) -> str | None:
        """Why it cannot fuse these modalities, given the sizes of their features, or None."""
        return None


class LateSum(FusionBlock):
    """f = Σ_m (W_m h_m + b_m)."""

    additive = True
    name: Literal["late_sum"]


class LateConcat(FusionBlock):
    """f = W [h_1 … h_M] + b."""

    additive = True
    name: Literal["late_concat"]


class Early(FusionBlock):
    """f = W MaxOut(BatchNorm([h_1 … h_M])) + b."""

    batch_norm = True
    name: Literal["early"]
    hidden: list[Positive] = Field(default=[2048, 1024], min_length=1)
    pieces: Positive = 2
    dropout: Fraction = 0.3


class Film(FusionBlock):
    """Z = γ ⊙ h_M + β with γ and β linear in [h_1 … h_{M−1}]: the others modulate the last (Perez et al., 2018)."""

    name: Literal["film"]

    def refusal(self, features: dict[str, Features], dims: dict[str, int]) -> str | None:
        return _fewer_than_two(features)


class Gated(FusionBlock):
    """Z = Σ_m σ(Y_m [h_1 … h_M]) ⊙ tanh(W_m h_m): Gated Multimodal Unit (Arevalo et al., 2017)."""

    name: Literal["gated"]
    hidden: Positive = 512
    """Size of Z."""


class LowRank(FusionBlock):
    """Z = Σ_r ⊙_m W_m^r [1; h_m]: the outer product of all features, through a map of low rank (Liu et al., 2018)."""

    name: Literal["low_rank"]
    rank: Positive = 4
    hidden: Positive = 512
    """Size of Z."""


class CrossAttention(Attention, FusionBlock):
    """A transformer in which the tokens of each modality attend to their own and then to all others'; Z is the mean
    of each modality's tokens, one after the other (after Tsai et al., 2019, and Delbrouck et al., 2020)."""

    sequential = True
    name: Literal["cross_attention"]
    dim: Positive = 512
    num_heads: Positive = 4
    num_layers: Positive = 6
    dim_feedforward: Positive = 1024
    dropout: Fraction = 0.1

    def refusal(self, features: dict[str, Features], dims: dict[str, int]) -> str | None:
        return _fewer_than_two(features)


class Psp(FusionBlock):
    """Positive sample propagation between the segments of sound and those of pictures (Zhou et al., 2021).

    The first modality guides the attention over the regions of the last. Scores are those of a clip, the mean over
    its segments: one label per clip, not the localisation of events.
    """

    sequential = True
    name: Literal["psp"]
    regions: Positive = 49
    """Regions in each of the last modality's tokens, one after the other."""
    attention: Positive = 512
    """Width of the attention over regions."""
    hidden: Positive = 128
    """Width of the LSTMs in each direction."""
    fused: Positive = 64
    """Size of Z."""
    threshold: Fraction = 0.099
    """A pair of segments whose share of the similarity is not above this is not propagated."""
    dropout: Fraction = 0.1

    def refusal(self, features: dict[str, Features], dims: dict[str, int]) -> str | None:
        if len(features) != 2:
            return f"expected exactly two modalities, found {list(features)}"
        steps = {block.steps if isinstance(block, SequenceFeatures) else None for block in features.values()}
        if None in steps or len(steps) > 1:
            return "expected two sequences of equally many steps"
        last = list(features)[-1]
        if dims[last] % self.regions:
            return f"expected regions to divide the feature of {last!r}, found {self.regions} and {dims[last]}"
        return None


def _fewer_than_two(features: dict[str, Features]) -> str | None:
    return f"expected two modalities or more, found {list(features)}" if len(features) < 2 else None


Fusion = Annotated[
    LateSum | LateConcat | Early | Film | Gated | LowRank | CrossAttention | Psp, Field(discriminator="name")
]
