"""A trained model's outputs on a split."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from agm.attribution import absent, modality_responses
from agm.models import Model, Multimodal
from agm.pipeline.networks import Preparation
from agm.pipeline.steps.shard.stream import Shards


@dataclass(frozen=True)
class Predictions:
    """Outputs on N clips, in the shards' order.

    Attributes:
        clip_ids, labels: which clips, and their classes `[N]`.
        logits: `[N, C]` float32.
        fused: the fused feature Z that the classifier sees, `[N, D]` float32.
        responses: φ of each modality, `[N, C]` float32; empty for a mono-modal concept.
        features: h of each modality, `[N, D_m]` float32; empty where `separable` says no.
        absent: E(0), the feature of a masked modality, `[D_m]` float32; empty likewise.
    """

    clip_ids: list[str]
    labels: np.ndarray
    logits: np.ndarray
    fused: np.ndarray
    responses: dict[str, np.ndarray]
    features: dict[str, np.ndarray]
    absent: dict[str, np.ndarray]

    @property
    def finite(self) -> np.ndarray:
        """Of which clips every output is finite, bool `[N]`."""
        outputs = (self.logits, self.fused, *self.responses.values())
        return np.logical_and.reduce([np.isfinite(values).all(axis=1) for values in outputs])


def separable(model: Model) -> bool:
    """Whether a clip is one feature vector per modality, each made from that modality alone.

    Not so for sequences, for encoders that see one another, and for a mono-modal concept, which has one modality.
    """
    joint = isinstance(model, Multimodal) and len(model.modalities) > 1
    return joint and model.factored and not model.fusion.sequential


@torch.no_grad()
def predict(model: Model, shards: Shards, split: str, batch_size: int, device: torch.device) -> Predictions:
    """Outputs of `model`, in evaluation mode, on every clip of `split`."""
    concept = not isinstance(model, Multimodal) or len(model.modalities) == 1
    prepare = Preparation(shards.features, model.modalities).to(device)
    clip_ids: list[str] = []
    columns: dict[str, list[Tensor]] = {}
    nothing: dict[str, Tensor] = {}
    for batch in shards.batches(split, batch_size, modalities=model.modalities):
        inputs = prepare({name: value.to(device) for name, value in batch.inputs.items()})
        features = model.encode(inputs)
        fused = model.fusion.fuse(features)
        outputs = {"labels": batch.labels, "logits": model.fusion.classify(fused), "fused": fused}
        if not concept:
            responses = modality_responses(model, inputs)
            outputs |= {f"phi_{name}": phi for name, phi in zip(model.modalities, responses, strict=True)}
        if separable(model):
            outputs |= {f"feature_{name}": feature for name, feature in features.items()}
            nothing = nothing or absent(model, inputs)
        clip_ids += batch.clip_ids
        for name, value in outputs.items():
            columns.setdefault(name, []).append(value.cpu())
    arrays = {name: torch.cat(values).numpy() for name, values in columns.items()}
    return Predictions(
        clip_ids,
        arrays["labels"],
        arrays["logits"],
        arrays["fused"],
        responses=_under("phi_", arrays),
        features=_under("feature_", arrays),
        absent={name: feature[0].cpu().numpy() for name, feature in nothing.items()},
    )


def _under(prefix: str, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name.removeprefix(prefix): value for name, value in arrays.items() if name.startswith(prefix)}
