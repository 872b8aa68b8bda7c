"""What a model loses when one modality belongs to other clips: its accuracy with that modality permuted.

A modality that the model does not use may as well come from another clip. Unlike a masked input, a permuted one is one
that the model was trained on, so this needs no assumption about what a zero means.

The permutations depend on the number of clips alone: every run of a study meets the same.
"""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from agm.models import Multimodal
from agm.pipeline.networks import Preparation
from agm.pipeline.steps.evaluate.predict import Predictions, separable
from agm.pipeline.steps.shard.stream import Shards

Counts = dict[str, list[int]]


def permuted_accuracy(
    model: Multimodal, predictions: Predictions, shards: Shards, split: str, draws: int, batch_size: int
) -> dict[str, list[float]]:
    """Accuracy of every draw with each modality's features permuted over the clips of `split`, `{m: [draws]}`.

    Features that were stored are permuted over the whole split. Sequences of features, and encoders that see one
    another, need a pass over the shards, which permutes within its batches: the clips are stored in random order.

    Args:
        model: in evaluation mode.
        predictions: of the same model on the same split.
    """
    if separable(model):
        right = _over_the_split(model, predictions, draws, batch_size)
    else:
        right = _within_batches(model, shards, split, draws, batch_size)
    accuracies = {}
    for name, counts in right.items():
        accuracies[name] = [count / len(predictions.labels) for count in counts]
    return accuracies


@torch.no_grad()
def _over_the_split(model: Multimodal, predictions: Predictions, draws: int, batch_size: int) -> Counts:
    """How many clips are right in each draw, from their features."""
    device = next(model.parameters()).device
    features = {name: torch.from_numpy(h).to(device) for name, h in predictions.features.items()}
    labels = torch.from_numpy(predictions.labels).to(device)
    orders = list(permutations(len(labels), draws))
    right: Counts = {}
    for name in features:
        right[name] = []
        for order in orders:
            mixed = features | {name: features[name][order.to(device)]}
            logits = []
            for start in range(0, len(labels), batch_size):
                batch = {modality: h[start : start + batch_size] for modality, h in mixed.items()}
                logits.append(model.fusion(batch))
            right[name].append(int((torch.cat(logits).argmax(dim=1) == labels).sum()))
    return right


@torch.no_grad()
def _within_batches(model: Multimodal, shards: Shards, split: str, draws: int, batch_size: int) -> Counts:
    """How many clips are right in each draw, by a pass over the shards."""
    device = next(model.parameters()).device
    right = {name: [0] * draws for name in model.modalities}
    clips = shards.rows(split)
    prepare = Preparation(shards.features, model.modalities).to(device)
    # Batches of nearly one size: a last one of a single clip has nothing to permute.
    size = -(-clips // -(-clips // batch_size))
    for batch in shards.batches(split, size, modalities=model.modalities):
        inputs = prepare({name: value.to(device) for name, value in batch.inputs.items()})
        labels = batch.labels.to(device)
        parts = model.encode(inputs) if model.factored else inputs
        rest = model.fusion if model.factored else model
        for name in right:
            for draw, order in enumerate(permutations(len(labels), draws)):
                logits = rest(parts | {name: parts[name][order.to(device)]})
                right[name][draw] += int((logits.argmax(dim=1) == labels).sum())
    return right


def permutations(clips: int, draws: int) -> Iterator[Tensor]:
    """Random orders of so many clips, the same for every model."""
    generator = np.random.default_rng([clips, draws])
    for _ in range(draws):
        yield torch.from_numpy(generator.permutation(clips))
