"""A trained model's outputs on a split."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from agm.attribution import mono_modal_responses
from agm.models import MultimodalModel
from agm.shard.stream import Shards


@dataclass(frozen=True)
class Predictions:
    """Outputs on N clips, in the shards' order.

    Attributes:
        clip_ids, labels: which clips, and their classes `[N]`.
        logits: `[N, C]` float32.
        fused: the fused feature Z that the classifier sees, `[N, D]` float32.
        responses: φ of each modality, `[N, C]` float32; empty for a mono-modal concept.
    """

    clip_ids: list[str]
    labels: np.ndarray
    logits: np.ndarray
    fused: np.ndarray
    responses: dict[str, np.ndarray]


@torch.no_grad()
def predict(model: nn.Module, shards: Shards, split: str, batch_size: int, device: torch.device) -> Predictions:
    """Outputs of `model`, in evaluation mode, on every clip of `split`."""
    network = model if isinstance(model, MultimodalModel) else model.model
    concept = network is not model or len(network.modalities) == 1
    clip_ids: list[str] = []
    columns: dict[str, list[torch.Tensor]] = {}
    for batch in shards.batches(split, batch_size, modalities=model.modalities):
        inputs = model.prepare({name: value.to(device) for name, value in batch.inputs.items()})
        fused = network.fusion.fuse(network.encode(inputs))
        outputs = {"labels": batch.labels, "logits": network.fusion.classify(fused), "fused": fused}
        if not concept:
            responses = mono_modal_responses(network, inputs)
            outputs |= {f"phi_{name}": phi for name, phi in zip(network.modalities, responses, strict=True)}
        clip_ids += batch.clip_ids
        for name, value in outputs.items():
            columns.setdefault(name, []).append(value.cpu())
    arrays = {name: torch.cat(values).numpy() for name, values in columns.items()}
    responses = {name.removeprefix("phi_"): value for name, value in arrays.items() if name.startswith("phi_")}
    return Predictions(clip_ids, arrays["labels"], arrays["logits"], arrays["fused"], responses)
