"""Fusions: every modality's feature to logits, by way of the fused feature Z that the competition metric probes."""

from agm.models.fusion.base import Additive, Features, Fusion, Mixed
from agm.models.fusion.cross_attention import CrossAttention
from agm.models.fusion.early import Early, MaxOut
from agm.models.fusion.film import Film
from agm.models.fusion.gated import Gated
from agm.models.fusion.late import LateConcat, LateSum
from agm.models.fusion.low_rank import LowRank
from agm.models.fusion.psp import Psp
from agm.pipeline.config import schema


def build_fusion(config: schema.Fusion, dims: dict[str, int], classes: int) -> Fusion:
    """The fusion that `config` describes, for features of sizes `dims`, initialised from torch's global generator."""
    match config:
        case schema.LateSum():
            return LateSum(dims, classes)
        case schema.LateConcat():
            return LateConcat(dims, classes)
        case schema.Early():
            return Early(dims, classes, config)
        case schema.Film():
            return Film(dims, classes)
        case schema.Gated():
            return Gated(dims, classes, config)
        case schema.LowRank():
            return LowRank(dims, classes, config)
        case schema.CrossAttention():
            return CrossAttention(dims, classes, config)
        case schema.Psp():
            return Psp(dims, classes, config)


__all__ = [
    "Additive",
    "CrossAttention",
    "Early",
    "Features",
    "Film",
    "Fusion",
    "Gated",
    "LateConcat",
    "LateSum",
    "LowRank",
    "MaxOut",
    "Mixed",
    "Psp",
    "build_fusion",
]
