"""Encoders: one modality's prepared input to one feature per clip, `[B, …] → [B, dim]`."""

import math
from pathlib import Path

from agm.models.encoders.base import Encoder, initialise
from agm.models.encoders.image import Conv, OverFrames, ResNet18
from agm.models.encoders.sequence import Identity, SequenceTransformer
from agm.models.encoders.text import Transformer
from agm.pipeline.config import schema
from agm.pipeline.errors import AgmError
from agm.pipeline.io.tensors import Feature


def build_encoder(config: schema.Encoder, feature: Feature, sequence: bool = False) -> Encoder:
    """The encoder that `config` describes, for inputs like `feature`, initialised from torch's global generator.

    Args:
        sequence: whether it gives a sequence of features, for a fusion that is sequential.

    Raises:
        AgmError: when pretrained weights, or the data, are not what `config` says.
    """
    match config:
        case schema.TransformerEncoder():
            return _transformer(config, feature, sequence)
        case schema.SequenceTransformerEncoder():
            return SequenceTransformer(math.prod(feature.shape[1:]), config, sequence)
        case schema.IdentityEncoder():
            return _identity(config, feature, sequence)
        case schema.ConvEncoder():
            encoder = Conv(feature.shape[-3], config.channels, sequence)
            initialise(encoder)
        case schema.ResNet18Encoder():
            encoder = ResNet18(feature.shape[-3], sequence)
            initialise(encoder)
            if config.weights:
                encoder.load(Path(config.weights))
    return OverFrames(encoder) if feature.kind == "video" else encoder


def _transformer(config: schema.TransformerEncoder, feature: Feature, sequence: bool) -> Transformer:
    encoder = Transformer(feature.vocabulary, feature.shape[0], config, sequence)
    if config.embedding:
        encoder.load(Path(config.embedding))
    return encoder


def _identity(config: schema.IdentityEncoder, feature: Feature, sequence: bool) -> Identity:
    if (found := math.prod(feature.shape[1:])) != config.dim:
        raise AgmError(
            f"Each step of the sequence has {found} numbers, and the encoder `identity` was told {config.dim}",
            fix=f"set encoders.<modality>.dim={found}, or extract the features again",
        )
    return Identity(config.dim, sequence)


__all__ = [
    "Conv",
    "Encoder",
    "Identity",
    "OverFrames",
    "ResNet18",
    "SequenceTransformer",
    "Transformer",
    "build_encoder",
    "initialise",
]
