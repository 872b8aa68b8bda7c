"""Score one finished run: `agm evaluate FUSION METHOD SEED`, or `agm evaluate-concept FUSION MODALITY SEED`.

Reads the run's weights (those picked on validation), the shards, and for a method's run the predictions of the
mono-modal concepts of the same fusion and seed. Writes, below evaluations/<dataset>/<fusion>/…:

  predictions.parquet   every validation and test clip: its label, the class that is predicted, the logits, and φ of
                        each modality
  features.safetensors  for a method's run h_m of the same clips (`val.<modality>`, `test.<modality>`) and E(0)
                        (`absent.<modality>`): 4 bytes for each clip and number of a feature, so that what a modality
                        does can be asked again without the shards; no tensors where features are sequences, or depend
                        on other modalities (`greedy`)
  evaluation.json       accuracy, macro F1, weighted F1 and a table per class; for a method's run, by modality,
                          phi_accuracy        of φ_m as it is published
                          phi_constant        share of φ_m's spread that is the same for every clip
                          centred_accuracy    of φ_m centred by its mean over validation clips (`agm.metrics.responses`)
                          permuted_accuracy   with m's features permuted over clips
                                              (`agm.pipeline.steps.evaluate.permute`): mean and standard deviation over
                                              draws; permuted_within says `split` or `batch`
                          competition         the strength d_m with its interval, and `published`, its plain formula
                        and in `centre` what the responses are centred by

The ridge regression behind d_m is fitted on the validation split and read on the test split; the means behind the
centred responses are of the validation split.

A run that failed is not scored: `failed` says what is known of it, `splits` and `competition` are empty, and so is the
table of predictions. So is one whose outputs are not finite. Where a concept failed, d of its modality is null, with
the reason.
"""

from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from safetensors.numpy import save
from safetensors.torch import load_file
from torch import nn

from agm.metrics.classification import accuracy, classification_summary
from agm.metrics.competition import competition_strength, too_few_clips
from agm.metrics.responses import Centre, constant_share
from agm.pipeline.config import Params
from agm.pipeline.dag.graph import Graph, Job
from agm.pipeline.errors import AgmError
from agm.pipeline.io.files import checksums, read_index, replacing, write_parquet
from agm.pipeline.networks import build_concept, build_joint, build_method
from agm.pipeline.runtime.device import prepare_device
from agm.pipeline.runtime.progress import say
from agm.pipeline.steps.evaluate.forward import Forward, forward
from agm.pipeline.steps.evaluate.predict import Predictions
from agm.pipeline.steps.shard.stream import Shards


def run(params: Params, job: Job) -> dict[str, Any]:
    """Evaluate the run that `job` names and write its predictions."""
    graph = Graph(params)
    is_concept = job.step == "evaluate_concept"
    trained = graph.job("concept" if is_concept else "train", *job.cell)
    record = read_index(trained.index, trained.command)
    shards = Shards.open(graph.data)
    passes = None
    if not record["failed"]:
        passes = forward(params, job, trained, shards, partial(_trained, params, trained, shards))
    predictions = {} if passes is None else passes.predictions
    if failed := record["failed"] or _not_finite(predictions):
        say(f"{job.command}: not scored, because the run failed: {failed['what']}")
        predictions = {}
    modalities = [] if is_concept else params.study.modalities
    write_parquet(job.outputs[0], _table(predictions) if predictions else _no_predictions(shards, modalities))
    splits = {
        split: classification_summary(one.logits, one.labels, shards.classes) for split, one in predictions.items()
    }
    summary = {
        "run": record["run"],
        "selected_epoch": record["selected_epoch"],
        "failed": failed,
        "splits": splits,
    }
    if not is_concept:
        _write_features(job.outputs[1], predictions)
        if predictions and len(modalities) > 1:
            summary["centre"] = _add_modalities(splits, passes)
        summary["competition"] = _competition(params, graph, job, predictions) if predictions else {}
    return summary | {"sha256": checksums(job.index.parent, [path.name for path in job.outputs])}


def _trained(params: Params, trained: Job, shards: Shards) -> nn.Module:
    """The network of a finished run, in evaluation mode."""
    device = prepare_device(params.trainer.threads)
    fusion, name, seed = trained.cell[0], trained.cell[1], int(trained.cell[2])
    if trained.step == "concept":
        model = build_concept(params, fusion, name, shards.features, len(shards.classes), seed)
    else:
        model = build_joint(params, fusion, shards.features, len(shards.classes), seed)
        build_method(params.methods[name], model, seed)  # a few methods are networks of their own
    model.load_state_dict(load_file(trained.outputs[0]))
    return model.to(device).eval()


def _not_finite(predictions: dict[str, Predictions]) -> dict[str, Any] | None:
    """The failure of a run that was trained to its end and answers a clip with NaN or infinity; None for any other."""
    for split, one in predictions.items():
        if not one.finite.all():
            clips = [clip for clip, finite in zip(one.clip_ids, one.finite, strict=True) if not finite]
            what = f"an output on the {split} split is not finite"
            return {"what": what, "epoch": None, "step": None, "batch": clips, "checkpoint": None}
    return None


def _add_modalities(splits: dict[str, dict[str, Any]], passes: Forward) -> dict[str, Any]:
    """Add to the scores of each split what is said of each modality; returns what responses are centred by."""
    validation = passes.predictions["val"]
    centre = Centre.of(validation.responses, validation.logits)
    for split, one in passes.predictions.items():
        said = {"phi_accuracy": {}, "phi_constant": {}, "centred_accuracy": {}, "permuted_accuracy": {}}
        for name, phi in one.responses.items():
            said["phi_accuracy"][name] = accuracy(phi, one.labels)
            said["phi_constant"][name] = constant_share(phi)
            said["centred_accuracy"][name] = accuracy(centre.centred(name, phi), one.labels)
            draws = np.array(passes.permuted[split][name])
            said["permuted_accuracy"][name] = {"mean": float(draws.mean()), "deviation": float(draws.std(ddof=1))}
        splits[split] |= said | {"permuted_within": passes.within}
    means = {name: mean.tolist() for name, mean in centre.responses.items()}
    return {"responses": means, "output": centre.output.tolist()}


def _write_features(target: Path, predictions: dict[str, Predictions]) -> None:
    tensors = {}
    for split, one in predictions.items():
        tensors |= {f"{split}.{name}": feature for name, feature in one.features.items()}
    for one in predictions.values():
        tensors |= {f"absent.{name}": feature for name, feature in one.absent.items()}
    with replacing(target) as temporary:
        # Not save_file: see `agm.pipeline.steps.train.step`.
        temporary.write_bytes(save(tensors))


def _table(predictions: dict[str, Predictions]) -> pl.DataFrame:
    tables = []
    for split, one in predictions.items():
        columns = {
            "clip_id": one.clip_ids,
            "split": [split] * len(one.clip_ids),
            "label": one.labels,
            "prediction": one.logits.argmax(axis=1),
            "logits": one.logits,
        }
        columns |= {f"phi_{name}": phi for name, phi in one.responses.items()}
        tables.append(pl.DataFrame(columns))
    return pl.concat(tables)


def _no_predictions(shards: Shards, modalities: list[str]) -> pl.DataFrame:
    """The table of a run that failed: the columns of any other, and no rows."""
    scores = pl.Array(pl.Float32, len(shards.classes))
    phis = [f"phi_{name}" for name in modalities if len(modalities) > 1]
    columns = {"clip_id": pl.String, "split": pl.String, "label": pl.Int64, "prediction": pl.Int64, "logits": scores}
    return pl.DataFrame(schema=columns | dict.fromkeys(phis, scores))


def _competition(params: Params, graph: Graph, job: Job, predictions: dict[str, Predictions]) -> dict[str, Any]:
    fusion, _, seed = job.cell
    settings = params.evaluation
    strengths = {}
    few = too_few_clips({split: len(one.clip_ids) for split, one in predictions.items()})
    for modality in params.study.modalities:
        concept = graph.job("evaluate_concept", fusion, modality, seed)
        if failed := read_index(concept.index, concept.command)["failed"]:
            strengths[modality] = {"d": None, "why": f"`agm concept {' '.join(concept.cell)}` failed: {failed['what']}"}
            continue
        if few:
            strengths[modality] = {"d": None, "why": few}
            continue
        outputs = _concept_outputs(concept.outputs[0], predictions, settings.outputs)
        strength = competition_strength(
            predictions["val"].fused,
            outputs["val"],
            predictions["test"].fused,
            outputs["test"],
            alpha=settings.ridge_alpha,
            confidence=settings.confidence,
        )
        strengths[modality] = asdict(strength)
    return strengths


def _concept_outputs(path: Path, predictions: dict[str, Predictions], kind: str) -> dict[str, np.ndarray]:
    """The concept's outputs by split, clip for clip beside `predictions`."""
    table = pl.read_parquet(path)
    outputs = {}
    for split, one in predictions.items():
        rows = table.filter(pl.col("split") == split)
        if rows["clip_id"].to_list() != one.clip_ids:
            raise AgmError("The concept was evaluated on other clips", where=path, fix="run `snakemake` or `dvc repro`")
        logits = rows["logits"].to_numpy().astype(np.float64)
        outputs[split] = logits if kind == "logits" else torch.from_numpy(logits).softmax(dim=1).numpy()
    return outputs
