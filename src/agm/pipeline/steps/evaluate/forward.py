"""The forward passes of an evaluation, which are not done again for another ridge regression or confidence.

They depend on the network, the clips, the size of batches and the permutations alone, and are kept in the store
(`agm.pipeline.dag.store`) under these.
"""

import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import nn

from agm.pipeline.config import Params
from agm.pipeline.dag import provenance, store
from agm.pipeline.dag.graph import Job
from agm.pipeline.steps.evaluate.permute import permuted_accuracy
from agm.pipeline.steps.evaluate.predict import Predictions, predict, separable
from agm.pipeline.steps.shard.stream import Shards

SPLITS = ("val", "test")
ARRAYS = ("labels", "logits", "fused")
BY_MODALITY = ("responses", "features", "absent")
SETTINGS = ("batch_size", "permutations")
"""What matters here of the parameters `evaluation`."""


@dataclass(frozen=True)
class Forward:
    """What a network answers.

    Attributes:
        predictions: by split.
        permuted: by split and modality, the accuracy of every draw with that modality permuted; no modalities for a
            mono-modal concept and where an output is not finite.
        within: "split" or "batch": what was permuted over.
    """

    predictions: dict[str, Predictions]
    permuted: dict[str, dict[str, list[float]]]
    within: str


def forward(params: Params, job: Job, trained: Job, shards: Shards, model: Callable[[], nn.Module]) -> Forward:
    """What the network of `trained` answers to the clips of the validation and the test split.

    Args:
        job: the evaluation.
        model: makes the network, in evaluation mode; called when the passes were not done before.
    """
    expected = provenance.expected(job, params)
    # Of the inputs the run, and the shards as far as they matter; not the concepts that it is compared with.
    concepts = {str(path) for path in job.inputs if path.name == "evaluation.json"}
    made_from = {
        "settings": {name: getattr(params.evaluation, name) for name in SETTINGS},
        "code": expected["code"],
        "inputs": {name: checksum for name, checksum in expected["inputs"].items() if name not in concepts},
    }
    return _from_bytes(store.remembered("forward", made_from, lambda: _to_bytes(_passes(params, shards, model()))))


def _passes(params: Params, shards: Shards, model: nn.Module) -> Forward:
    settings = params.evaluation
    device = next(model.parameters()).device
    predictions = {split: predict(model, shards, split, settings.batch_size, device) for split in SPLITS}
    permuted: dict[str, dict[str, list[float]]] = {split: {} for split in SPLITS}
    if all(one.responses and one.finite.all() for one in predictions.values()):
        for split, one in predictions.items():
            draws, size = settings.permutations, settings.batch_size
            permuted[split] = permuted_accuracy(model, one, shards, split, draws, size)
    return Forward(predictions, permuted, "split" if separable(model) else "batch")


def _to_bytes(passes: Forward) -> bytes:
    about: dict[str, Any] = {"permuted": passes.permuted, "within": passes.within, "clip_ids": {}}
    arrays = {}
    for split, one in passes.predictions.items():
        about["clip_ids"][split] = one.clip_ids
        arrays |= {f"{split}/{name}": getattr(one, name) for name in ARRAYS}
        for name in BY_MODALITY:
            arrays |= {f"{split}/{name}/{modality}": array for modality, array in getattr(one, name).items()}
    written = io.BytesIO()
    np.savez(written, about=np.frombuffer(json.dumps(about).encode(), np.uint8), **arrays)
    return written.getvalue()


def _from_bytes(content: bytes) -> Forward:
    with np.load(io.BytesIO(content), allow_pickle=False) as file:
        arrays = dict(file)
    about = json.loads(arrays.pop("about").tobytes())
    predictions = {}
    for split, clip_ids in about["clip_ids"].items():
        plain = {name: arrays[f"{split}/{name}"] for name in ARRAYS}
        nested = {name: _below(arrays, f"{split}/{name}/") for name in BY_MODALITY}
        predictions[split] = Predictions(clip_ids, **plain, **nested)
    return Forward(predictions, about["permuted"], about["within"])


def _below(arrays: dict[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
