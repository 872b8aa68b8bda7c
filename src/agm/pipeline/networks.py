"""The networks and methods that `params.yaml` describes, built of the library's parts.

Initial weights depend on the run's seed alone: on neither the method nor the other modalities.
"""

import hashlib
import math
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from agm import methods
from agm.methods import Method
from agm.models import Inputs, Multimodal, OnlyModality, encoders, fusion
from agm.models.encoders import Encoder, initialise
from agm.models.fusion import Fusion
from agm.pipeline.config import schema
from agm.pipeline.config.methods import arguments
from agm.pipeline.errors import AgmError
from agm.pipeline.io.tensors import Feature

FUSIONS: dict[str, type[Fusion]] = {
    "late_sum": fusion.LateSum,
    "late_concat": fusion.LateConcat,
    "early": fusion.Early,
    "film": fusion.Film,
    "gated": fusion.Gated,
    "low_rank": fusion.LowRank,
    "cross_attention": fusion.CrossAttention,
    "psp": fusion.Psp,
}


def build_joint(params: schema.Params, name: str, features: dict[str, Feature], classes: int, seed: int) -> Multimodal:
    """The network of the fusion `name`. Its initial weights depend on `seed` alone, not on the method."""
    block = params.fusions[name]
    networks: dict[str, Encoder] = {}
    for modality, feature in features.items():
        # A seed of its own, so that an encoder starts alike whichever modalities stand beside it.
        seed_for(seed, f"encoder {modality}")
        networks[modality] = build_encoder(params.encoders[modality], feature, block.sequential)
    seed_for(seed, "fusion")
    head = build_fusion(block, {modality: network.dim for modality, network in networks.items()}, classes)
    return Multimodal(networks, head)


def build_concept(
    params: schema.Params, name: str, modality: str, features: dict[str, Feature], classes: int, seed: int
) -> Multimodal | OnlyModality:
    """The mono-modal concept of `modality` (paper, section 3): for a late fusion the modality's encoder with a
    classifier of its own; for an early one the whole network with the other inputs zeroed."""
    whole = build_joint(params, name, features, classes, seed)
    if not whole.fusion.late:
        return OnlyModality(whole, modality)
    return build_joint(params, name, {modality: features[modality]}, classes, seed)


def build_method(
    block: schema.MethodBlock, model: Multimodal | OnlyModality, seed: int, **prerequisites: Any
) -> Method:
    """The method that `block` describes, for `model`, of which it may replace a part; its own weights depend on
    `seed` alone.

    Args:
        prerequisites: what its class names so; left out wherever a run is not trained but evaluated.

    Raises:
        AgmError: when the finished runs are not what it can start from.
    """
    seed_for(seed, f"method {block.name}")
    try:
        return methods.get(block.name)(model, **arguments(block), **prerequisites)
    except ValueError as error:
        raise AgmError(str(error), where=f"the method {block.name}") from None


def build_encoder(block: schema.Encoder, feature: Feature, sequence: bool = False) -> Encoder:
    """The encoder that `block` describes, for inputs like `feature`, initialised from torch's global generator.

    Args:
        sequence: whether it gives a sequence of features, for a fusion that is sequential.

    Raises:
        AgmError: when pretrained weights, or the data, are not what `block` says.
    """
    match block:
        case schema.TransformerEncoder():
            return _transformer(block, feature, sequence)
        case schema.SequenceTransformerEncoder():
            options = block.model_dump(exclude={"name"})
            return encoders.SequenceTransformer(math.prod(feature.shape[1:]), sequence=sequence, **options)
        case schema.IdentityEncoder():
            return _identity(block, feature, sequence)
        case schema.ConvEncoder():
            encoder: Encoder = encoders.Conv(feature.shape[-3], block.channels, sequence)
            initialise(encoder)
        case schema.ResNet18Encoder():
            encoder = _resnet18(block, feature, sequence)
    return encoders.OverFrames(encoder) if feature.kind == "video" else encoder


def build_fusion(block: schema.Fusion, dims: dict[str, int], classes: int) -> Fusion:
    """The fusion that `block` describes, for features of sizes `dims`, initialised from torch's global generator."""
    return FUSIONS[block.name](dims, classes, **block.model_dump(exclude={"name"}))


def seed_for(seed: int, purpose: str) -> None:
    """Seed torch's global generator for one part of a network, whatever the other parts drew.

    The texts that are given as `purpose` decide initial weights: another text is another network.
    """
    digest = hashlib.sha256(f"{seed} {purpose}".encode()).digest()
    torch.manual_seed(int.from_bytes(digest[:7], "little"))


def _transformer(block: schema.TransformerEncoder, feature: Feature, sequence: bool) -> encoders.Transformer:
    options = block.model_dump(exclude={"name", "embedding"})
    encoder = encoders.Transformer(feature.vocabulary, feature.shape[0], sequence=sequence, **options)
    if block.embedding:
        path = Path(block.embedding)
        vectors = _pretrained(path, "embedding").get("embedding")
        wanted = encoder.embedding.weight.shape
        if vectors is None or vectors.shape != wanted:
            holds = "no `embedding`" if vectors is None else f"an `embedding` of shape {list(vectors.shape)}"
            raise AgmError(
                f"The word vectors do not fit: the file holds {holds}, and {list(wanted)} is needed",
                where=path,
                fix="one row per id of the vocabulary (0 is padding, 1 an unknown word), encoders.<modality>.dim wide",
            )
        encoder.load_embedding(vectors)
    return encoder


def _identity(block: schema.IdentityEncoder, feature: Feature, sequence: bool) -> encoders.Identity:
    numbers = math.prod(feature.shape[1:])
    if numbers != block.dim:
        raise AgmError(
            f"Each step of the sequence has {numbers} numbers, and the encoder `identity` was told {block.dim}",
            fix=f"set encoders.<modality>.dim={numbers}, or extract the features again",
        )
    return encoders.Identity(block.dim, sequence)


def _resnet18(block: schema.ResNet18Encoder, feature: Feature, sequence: bool) -> encoders.ResNet18:
    encoder = encoders.ResNet18(feature.shape[-3], sequence)
    initialise(encoder)
    if block.weights:
        path = Path(block.weights)
        try:
            encoder.load_pretrained(_pretrained(path, "weights"))
        except RuntimeError as error:
            raise AgmError(f"These are not the weights of a ResNet-18: {error}", where=path) from None
    return encoder


def _pretrained(path: Path, parameter: str) -> dict[str, Tensor]:
    """The weights in a safetensors file that `encoders.<modality>.<parameter>` names.

    Raises:
        AgmError: when it is missing or none.
    """
    if not path.is_file():
        raise AgmError(
            "There are no pretrained weights", where=path, fix=f"set encoders.<modality>.{parameter} to a local file"
        )
    try:
        return load_file(path)
    except SafetensorError as error:
        raise AgmError(f"The pretrained weights are not a safetensors file, or damaged: {error}", where=path) from None


class Preparation(nn.Module):
    """Stored tensors to network inputs: normalised by the training split's statistics, so that zero is the mean input.

    Words stay numbers, and padded steps of sequences stay exactly zero.
    """

    def __init__(self, features: dict[str, Feature], modalities: list[str]) -> None:
        super().__init__()
        self.features = {name: features[name] for name in modalities}
        for name, feature in self.features.items():
            if feature.mean is not None:
                mean, scale = _per_channel(feature)
                self.register_buffer(f"mean_{name}", mean)
                self.register_buffer(f"scale_{name}", scale)

    def forward(self, raw: Inputs) -> Inputs:
        return {name: self._normalise(name, raw[name]) for name in self.features}

    def _normalise(self, name: str, x: Tensor) -> Tensor:
        if self.features[name].mean is None:
            return x.long()
        mean, scale = self.get_buffer(f"mean_{name}"), self.get_buffer(f"scale_{name}")
        normalised = (x.to(mean.dtype) - mean) / scale
        if self.features[name].kind != "sequence":
            return normalised
        empty = x.eq(0).flatten(2).all(dim=2)
        return normalised.masked_fill(empty.view(*empty.shape, *[1] * (x.ndim - 2)), 0.0)


def _per_channel(feature: Feature) -> tuple[Tensor, Tensor]:
    """Mean and scale per channel, shaped for `[…, C, H, W]`, of a sequence for `[…, C]`."""
    shape = (-1,) if feature.kind == "sequence" else (-1, 1, 1)
    dtype = torch.get_default_dtype()
    mean = torch.tensor(feature.mean, dtype=dtype).view(shape)
    scale = torch.tensor(feature.scale, dtype=dtype).view(shape)
    # A scale that single precision rounds to zero.
    return mean, scale.clamp_min(torch.finfo(dtype).tiny)
