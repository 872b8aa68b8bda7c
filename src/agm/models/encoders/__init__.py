"""Encoders: one modality's prepared input to one feature per sample, `[B, …] → [B, dim]`."""

from agm.models.encoders.base import Encoder, initialise
from agm.models.encoders.image import Conv, OverFrames, ResNet18
from agm.models.encoders.sequence import Identity, SequenceTransformer
from agm.models.encoders.text import Transformer

__all__ = [
    "Conv",
    "Encoder",
    "Identity",
    "OverFrames",
    "ResNet18",
    "SequenceTransformer",
    "Transformer",
    "initialise",
]
