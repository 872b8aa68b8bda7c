"""What a network does on the validation split after an epoch."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from agm import distributed
from agm.attribution import evaluating, modality_responses
from agm.methods.method import Batch
from agm.models import Model, Multimodal
from agm.pipeline.steps.train.meter import Meter


@torch.no_grad()
def validate(model: Model, clips: Iterable[Batch], between_batches: Callable[[], None]) -> dict[str, float]:
    """Loss and accuracy on the validation split, and of several modalities the accuracy of each φ_m.

    Returns:
        val_loss, val_accuracy; val_phi_<m>, of φ_m as it is published; val_centred_<m>, of φ_m centred by its mean over
        these clips (`agm.metrics.responses`), for which all outputs are held: 4 (M + 1) C bytes a clip.
    """
    names = model.modalities if isinstance(model, Multimodal) and len(model.modalities) > 1 else []
    meter, held = Meter(), []
    with evaluating(model):
        for inputs, labels, _ in clips:
            between_batches()
            responses = modality_responses(model, inputs) if names else model(inputs).unsqueeze(0)
            logits = responses.sum(dim=0)
            meter.add({"val_loss": cross_entropy(logits, labels)}, weight=len(labels))
            meter.add_counts({"val_accuracy": _right(logits, labels)}, weight=len(labels))
            if names:
                meter.add_counts(_named("val_phi", names, _right(responses, labels)), weight=len(labels))
            held.append((responses, labels))
    if names:
        shift = _shift(model, [responses for responses, _ in held])
        for responses, labels in held:
            right = _right(responses + shift, labels)
            meter.add_counts(_named("val_centred", names, right), weight=len(labels))
    return meter.summary()


def _named(prefix: str, names: list[str], values: Tensor) -> dict[str, Tensor]:
    return {f"{prefix}_{name}": value for name, value in zip(names, values, strict=True)}


def _right(scores: Tensor, labels: Tensor) -> Tensor:
    """How many clips have their highest score at their label: `[…, B, C]` and `[B]` to `[…]`."""
    return (scores.argmax(dim=-1) == labels).sum(dim=-1)


def _shift(model: Multimodal, responses: list[Tensor]) -> Tensor:
    """mean f − mean φ_m over the clips of all processes, `[M, 1, C]` float64: what centring adds."""
    device = next(model.parameters()).device
    # A process without clips takes part in the sums.
    totals = torch.zeros(len(model.modalities), model.fusion.classes, dtype=torch.float64, device=device)
    clips = torch.zeros((), dtype=torch.float64, device=device)
    for batch in responses:
        totals += batch.sum(dim=1, dtype=torch.float64)
        clips += batch.shape[1]
    means = distributed.summed(totals) / distributed.summed(clips)
    return (means.sum(dim=0) - means).unsqueeze(1)
