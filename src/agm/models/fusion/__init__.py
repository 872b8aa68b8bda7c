"""Fusions: every modality's feature to logits, by way of the fused feature Z that the competition metric probes."""

from agm.models.fusion.base import Additive, Features, Fusion, Mixed
from agm.models.fusion.cross_attention import CrossAttention
from agm.models.fusion.early import Early, MaxOut
from agm.models.fusion.film import Film
from agm.models.fusion.gated import Gated
from agm.models.fusion.late import LateConcat, LateSum
from agm.models.fusion.low_rank import LowRank
from agm.models.fusion.psp import Psp

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
]
