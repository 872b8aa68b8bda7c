"""The multimodal network, and the mono-modal concepts that it is measured against."""

import hashlib

import torch
from torch import Tensor, nn

from agm.models.encoders import build_encoder
from agm.models.fusion import Fusion, build_fusion
from agm.pipeline.config import schema
from agm.pipeline.io.tensors import Feature

Inputs = dict[str, Tensor]


class MultimodalModel(nn.Module):
    """An encoder per modality and a fusion: `{m: [B, …]} → [B, C]`.

    Inputs are prepared (see `prepare`) before they are encoded or masked, so that zero is the mean input.

    Attributes:
        exchange: what lets the encoders see each other on the way (`(encoders, inputs) → features`); None, with
            encoders that do not, for every method but `greedy`.
    """

    exchange: nn.Module | None

    def __init__(self, encoders: dict[str, nn.Module], fusion: Fusion, features: dict[str, Feature]) -> None:
        super().__init__()
        # Not a class attribute: that would hide the module set here later.
        self.exchange = None
        self.encoders = nn.ModuleDict(encoders)
        self.fusion = fusion
        for name, feature in features.items():
            if feature.mean is not None:
                mean, scale = _per_channel(feature)
                self.register_buffer(f"mean_{name}", mean, persistent=False)
                self.register_buffer(f"scale_{name}", scale, persistent=False)
        self._padded = {name for name, feature in features.items() if feature.kind == "sequence"}

    @property
    def modalities(self) -> list[str]:
        return list(self.encoders)

    def prepare(self, raw: Inputs) -> Inputs:
        """Stored tensors to network inputs: normalised by the training split's statistics, but for words, which stay
        numbers, and padded steps of sequences, which stay exactly zero."""
        return {name: self._normalise(name, raw[name]) for name in self.encoders}

    def _normalise(self, name: str, x: Tensor) -> Tensor:
        if not hasattr(self, f"mean_{name}"):
            return x.long()
        mean, scale = getattr(self, f"mean_{name}"), getattr(self, f"scale_{name}")
        normalised = (x.to(mean.dtype) - mean) / scale
        if name not in self._padded:
            return normalised
        empty = x.eq(0).flatten(2).all(dim=2)
        return normalised.masked_fill(empty.view(*empty.shape, *[1] * (x.ndim - 2)), 0.0)

    def own_part(self, modality: str) -> nn.ModuleList:
        """What no other modality has a share in: its encoder and, in a fusion that has one, its own classifier."""
        return nn.ModuleList([self.encoders[modality], *self.fusion.own_classifier(modality)])

    def encode(self, inputs: Inputs) -> Inputs:
        """Prepared inputs to features, `{m: [B, …]} → {m: [B, D_m]}`, `[B, T_m, D_m]` for a sequential fusion."""
        if self.exchange is not None:
            return self.exchange(self.encoders, inputs)
        return {name: encoder(inputs[name]) for name, encoder in self.encoders.items()}

    def forward(self, inputs: Inputs) -> Tensor:
        return self.fusion(self.encode(inputs))


class OnlyModality(nn.Module):
    """A multimodal network that sees one modality only: the other inputs are zeros, in training and after."""

    def __init__(self, model: MultimodalModel, modality: str) -> None:
        super().__init__()
        self.model = model
        self.modality = modality

    @property
    def fusion(self) -> Fusion:
        return self.model.fusion

    @property
    def modalities(self) -> list[str]:
        return self.model.modalities

    def prepare(self, raw: Inputs) -> Inputs:
        inputs = self.model.prepare(raw)
        return {name: x if name == self.modality else torch.zeros_like(x) for name, x in inputs.items()}

    def forward(self, inputs: Inputs) -> Tensor:
        return self.model(inputs)


def build_joint(
    params: schema.Params, fusion: str, features: dict[str, Feature], classes: int, seed: int
) -> MultimodalModel:
    """The network of one fusion. Its initial weights depend on `seed` alone, not on the method."""
    return _build(params, fusion, features, classes, seed)


def build_concept(
    params: schema.Params, fusion: str, modality: str, features: dict[str, Feature], classes: int, seed: int
) -> MultimodalModel | OnlyModality:
    """The mono-modal concept of `modality` (paper, section 3): for a late fusion the modality's encoder with a
    classifier of its own; for an early one the whole network with the other inputs zeroed."""
    whole = _build(params, fusion, features, classes, seed)
    if not whole.fusion.late:
        return OnlyModality(whole, modality)
    return _build(params, fusion, {modality: features[modality]}, classes, seed)


def _build(
    params: schema.Params, fusion: str, features: dict[str, Feature], classes: int, seed: int
) -> MultimodalModel:
    block, encoders = params.fusions[fusion], {}
    for name, feature in features.items():
        # A seed of its own, so that an encoder starts alike whichever modalities stand beside it.
        seed_for(seed, f"encoder {name}")
        encoders[name] = build_encoder(params.encoders[name], feature, block.sequential)
    seed_for(seed, "fusion")
    head = build_fusion(block, {name: encoder.dim for name, encoder in encoders.items()}, classes)
    return MultimodalModel(encoders, head, features)


def seed_for(seed: int, purpose: str) -> None:
    """Seed torch's global generator for one part of a network, whatever the other parts drew."""
    digest = hashlib.sha256(f"{seed} {purpose}".encode()).digest()
    torch.manual_seed(int.from_bytes(digest[:7], "little"))


def _per_channel(feature: Feature) -> tuple[Tensor, Tensor]:
    """Mean and scale per channel, shaped for `[…, C, H, W]`, of a sequence for `[…, C]`."""
    shape = (-1,) if feature.kind == "sequence" else (-1, 1, 1)
    dtype = torch.get_default_dtype()
    mean, scale = (torch.tensor(each, dtype=dtype).view(shape) for each in (feature.mean, feature.scale))
    # A scale that single precision rounds to zero.
    return mean, scale.clamp_min(torch.finfo(dtype).tiny)
