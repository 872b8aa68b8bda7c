"""Train one run of the study: `agm train FUSION METHOD SEED`, or `agm concept FUSION MODALITY SEED` for what one
modality can do alone.

Reads data/<dataset>/shards as a stream, never a whole split. Writes, below runs/<dataset>/<fusion>/…:

  model.safetensors   the weights of the epoch with the best validation figure (trainer.select)
  history.parquet     one row per epoch: losses, validation accuracy in total and of each φ_m, κ and scores of AGM
  run.json            what the run was and what made it

A run is decided by its configuration and its seed: the initial weights and the order of the clips are the same for
every method. Set AGM_DEVICE (cpu, cuda, cuda:1, …) to choose the device. Interrupted, it goes on from its last epoch
when started again, and ends as it would have; its checkpoint is below .cache/train until then.
"""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import polars as pl
import torch
from safetensors.torch import load_file, save_file

from agm import config, provenance
from agm.config import Params, schema
from agm.device import environment, prepare_device
from agm.files import checksums, read_json, replacing, verify, write_parquet
from agm.graph import Graph, Job
from agm.methods import Method, Past, build_method
from agm.models import build_concept, build_joint
from agm.shard.stream import Shards
from agm.train.loop import Training

CHECKPOINTS = Path(".cache/train")


def run(params: Params, job: Job) -> dict[str, Any]:
    """Train the run of `job` and write its weights and history."""
    device = prepare_device(params.trainer.threads)
    training = build_training(params, job, device)
    checkpoint = _checkpoint(job)
    training.fit(checkpoint)
    model_file, history_file = job.outputs
    with replacing(model_file) as temporary:
        save_file(training.best_weights, temporary)
    write_parquet(history_file, pl.DataFrame(training.history, infer_schema_length=None))
    shutil.rmtree(checkpoint.parent, ignore_errors=True)
    return {
        "run": describe(params, job),
        "config": effective_configuration(params, job),
        "parameters": sum(weight.numel() for weight in training.model.parameters()),
        "own_network": training.method.own_network,
        "epochs": len(training.history),
        "selected_epoch": training.best_epoch,
        "environment": environment(device),
        "sha256": checksums(job.index.parent, [model_file.name, history_file.name]),
    }


def build_training(params: Params, job: Job, device: torch.device) -> Training:
    """The model, method and data of `job`, ready to fit."""
    fusion, name, seed = job.cell[0], job.cell[1], int(job.cell[2])
    shards = Shards.open(job.data[0].parent)
    if job.step == "concept":
        model = build_concept(params, fusion, name, shards.features, len(shards.classes), seed)
        method = Method(schema.MethodBlock(name="joint"), model)
    else:
        model = build_joint(params, fusion, shards.features, len(shards.classes), seed).to(device)
        past = _past(params, job, shards, device) if job.taught else None
        method = build_method(params.method(name), model, seed, past)
    return Training(model.to(device), method.to(device), shards, params.trainer, seed, label=job.command)


def _past(params: Params, job: Job, shards: Shards, device: torch.device) -> Past:
    """The finished runs that a taught method reads."""
    graph = Graph(params)
    fusion, _, seed = job.cell
    runs = {name: graph.job("concept", fusion, name, seed) for name in params.study.modalities}
    concepts = {}
    for name, run in runs.items():
        verify(run.index.parent, read_json(run.index, run.command)["sha256"], run.command)
        model = build_concept(params, fusion, name, shards.features, len(shards.classes), int(seed))
        model.load_state_dict(load_file(run.outputs[0]))
        concepts[name] = model.to(device).eval().requires_grad_(False)
    runs["joint"] = graph.job("train", fusion, "joint", seed)
    return Past(concepts, {name: pl.read_parquet(run.outputs[1]) for name, run in runs.items()})


def describe(params: Params, job: Job) -> dict[str, Any]:
    """Which cell of the study a run is."""
    kind = "concept" if "concept" in job.step else "method"
    return {
        "dataset": params.dataset.name,
        "fusion": job.cell[0],
        kind: job.cell[1],
        "seed": int(job.cell[2]),
    }


def effective_configuration(params: Params, job: Job) -> dict[str, Any]:
    """Everything that decided the run, with every default spelled out."""
    fusion, name, _ = job.cell
    blocks = {"encoders": params.encoders, "fusion": params.fusions[fusion], "trainer": params.trainer}
    if job.step == "train":
        blocks["method"] = params.method(name)
    return {
        key: {name: each.model_dump() for name, each in block.items()}
        if isinstance(block, dict)
        else block.model_dump()
        for key, block in blocks.items()
    }


def _checkpoint(job: Job) -> Path:
    """Outside the declared outputs, which the engines delete first; named by all that decides the run."""
    identity = json.dumps([job.command, provenance.expected(job, config.read())], sort_keys=True)
    return CHECKPOINTS / hashlib.sha256(identity.encode()).hexdigest()[:32] / "checkpoint.safetensors"
