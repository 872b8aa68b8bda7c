"""Train one run of the study: `agm train FUSION METHOD SEED`, or `agm concept FUSION MODALITY SEED` for what one
modality can do alone.

Reads data/<dataset>/shards as a stream, never a whole split. Writes, below runs/<dataset>/<fusion>/…:

  model.safetensors   the weights of the epoch with the best validation metric (trainer.monitor)
  history.parquet     one row per epoch: losses, validation accuracy in total and of each φ_m, κ and scores of AGM
  run.json            what the run was and what made it

A run is decided by its configuration and its seed: the initial weights and the order of the clips are the same for
every method. Set AGM_DEVICE (cpu, cuda, cuda:1, …) to choose the device; trainer.processes trains with several.

Interrupted, it goes on when started again, from its last epoch or batch, and ends as it would have: its checkpoints
are below .cache/train until then, where `agm clean` lists them. SIGTERM, SIGUSR1, SIGUSR2 and Ctrl-C write one first.
A run whose loss or gradients are not finite any more ends there, with the weights selected so far; run.json says where,
the report that it failed.
"""

import os
from pathlib import Path
from typing import Any

import polars as pl
import torch
from safetensors.torch import load_file, save
from torch import nn

from agm import distributed, methods
from agm.methods import Joint
from agm.pipeline.config import Params
from agm.pipeline.dag import provenance, unfinished
from agm.pipeline.dag.graph import Graph, Job
from agm.pipeline.io.files import checksums, read_index, read_json, replacing, write_json, write_parquet
from agm.pipeline.networks import build_concept, build_joint, build_method
from agm.pipeline.runtime.device import environment, prepare_device
from agm.pipeline.runtime.progress import say
from agm.pipeline.steps.shard.stream import Shards
from agm.pipeline.steps.train.checkpoint import Checkpoints, plain
from agm.pipeline.steps.train.loop import Training
from agm.pipeline.steps.train.watch import Signals

CPU = torch.device("cpu")
FAILED = "failed.json"
PARAMS = "params.json"


def run(params: Params, job: Job) -> dict[str, Any]:
    """Train the run of `job` and write its weights and history.

    Raises:
        Stopped: when a signal came; the checkpoint is written.
        AgmError: when the shards are damaged, or one of several processes died.
    """
    failed = _failed_prerequisite(params, job)
    if failed:
        training = build_training(params, job, prepare_device(params.trainer.threads), network_only=True)
    else:
        train = _train_together if params.trainer.processes > 1 else _train
        with unfinished.begun(params, job) as folder:
            training = train(params, job, folder)
        failed = training.failed
    # Where no epoch was completed, what the run began with.
    weights = training.best_weights or plain(build_training(params, job, CPU, network_only=True).model.state_dict())
    history = pl.DataFrame(training.history or {"epoch": pl.Series([], dtype=pl.Int64)}, infer_schema_length=None)
    model_file, history_file = job.outputs
    with replacing(model_file) as temporary:
        # Not save_file: it writes beside its target first, under a name of its own, which a kill would leave there.
        temporary.write_bytes(save(weights))
    write_parquet(history_file, history)
    if failed:
        say(f"{job.command}: the run FAILED: {failed['what']}; {job.index} says more, the report shows it")
    return {
        "run": describe(params, job),
        "parameters": sum(weight.numel() for weight in training.model.parameters()),
        "own_network": training.method.own_network,
        "epochs": len(training.history),
        "selected_epoch": training.best_epoch,
        "failed": failed,
        "sha256": checksums(job.index.parent, [model_file.name, history_file.name]),
        provenance.ABOUT: {
            "config": effective_configuration(params, job),
            "environment": environment(training.device),
        },
    }


def _train(params: Params, job: Job, folder: Path) -> Training:
    """Train the run here."""
    training = build_training(params, job, prepare_device(params.trainer.threads))
    with Signals().listening() as signals:
        training.fit(folder, signals)
    return training


def _train_together(params: Params, job: Job, folder: Path) -> Training:
    """Let several processes train the run, and take up what they left."""
    from agm.pipeline.steps.train.launch import train_together  # here, because torchrun is not for every run

    failure_file = folder / FAILED
    failure_file.unlink(missing_ok=True)
    # The processes must not read params.yaml again: it may be another one by then.
    write_json(folder / PARAMS, params.content)
    os.environ["AGM_PARAMS"] = str(folder / PARAMS)
    os.environ["AGM_DEVICE"] = train_together(job.command.split()[1:], params.trainer.processes)
    training = build_training(params, job, prepare_device(params.trainer.threads))
    Checkpoints(folder).restore_epoch(training)
    training.failed = read_json(failure_file) if failure_file.exists() else None
    return training


def train_as_member(params: Params, job: Job, device: torch.device, signals: Signals) -> None:
    """What each of several processes does; the first one leaves word of a failure beside the checkpoints."""
    folder = unfinished.checkpoint_folder(params, job)
    training = build_training(params, job, device)
    training.fit(folder, signals)
    if training.failed and distributed.rank() == 0:
        write_json(folder / FAILED, training.failed)


def build_training(params: Params, job: Job, device: torch.device, network_only: bool = False) -> Training:
    """The model, method and data of `job`, ready to fit; `network_only` leaves out the finished runs that it reads."""
    fusion, name, seed = job.cell[0], job.cell[1], int(job.cell[2])
    shards = Shards.open(job.data[0].parent)
    if job.step == "concept":
        model = build_concept(params, fusion, name, shards.features, len(shards.classes), seed).to(device)
        method = Joint(model)
    else:
        model = build_joint(params, fusion, shards.features, len(shards.classes), seed).to(device)
        finished = _prerequisites(params, job, shards, device) if job.after_runs and not network_only else {}
        method = build_method(params.methods[name], model, seed, **finished)
    return Training(model, method.to(device), shards, params.trainer, seed, label=job.command)


def _failed_prerequisite(params: Params, job: Job) -> dict[str, Any] | None:
    """The failure of a run of which a prerequisite failed, or None."""
    for run in _prerequisite_runs(params, job) if job.after_runs else []:
        if read_json(run.index, run.command)["failed"]:
            what = f"its prerequisite run `{run.command}` failed"
            return {"what": what, "epoch": None, "step": None, "batch": None, "checkpoint": None}
    return None


def _prerequisite_runs(params: Params, job: Job) -> list[Job]:
    """The runs that the method reads: each modality's concept, in the study's order, and plain joint training."""
    graph = Graph(params)
    fusion, _, seed = job.cell
    concepts = [graph.job("concept", fusion, name, seed) for name in params.study.modalities]
    return [*concepts, graph.job("train", fusion, "joint", seed)]


def _prerequisites(params: Params, job: Job, shards: Shards, device: torch.device) -> dict[str, Any]:
    """What the method of `job` reads of finished runs: arguments of its constructor."""
    names = [*params.study.modalities, "joint"]
    runs = dict(zip(names, _prerequisite_runs(params, job), strict=True))
    for run in runs.values():
        read_index(run.index, run.command)
    arguments: dict[str, Any] = {}
    for argument in methods.get(params.methods[job.cell[1]].name).prerequisites:
        if argument == "teachers":
            arguments[argument] = {
                name: _trained_encoder(params, runs[name], shards).to(device) for name in params.study.modalities
            }
        elif argument == "histories":
            arguments[argument] = {name: _losses(run) for name, run in runs.items()}
    return arguments


def _trained_encoder(params: Params, run: Job, shards: Shards) -> nn.Module:
    """The encoder of a concept's modality, which may be a part of a whole network, without gradients."""
    fusion, name, seed = run.cell
    concept = build_concept(params, fusion, name, shards.features, len(shards.classes), int(seed))
    concept.load_state_dict(load_file(run.outputs[0]))
    return concept.encoders[name].requires_grad_(False)


def _losses(run: Job) -> dict[str, list[float]]:
    """The losses of a finished run, a number for each epoch."""
    history = pl.read_parquet(run.outputs[1]).sort("epoch")
    return {name: history[name].to_list() for name in ("train_loss", "val_loss")}


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
    configuration = {
        "encoders": {modality: block.model_dump() for modality, block in params.encoders.items()},
        "fusion": params.fusions[fusion].model_dump(),
        "trainer": params.trainer.model_dump(),
    }
    if job.step == "train":
        configuration["method"] = params.methods[name].model_dump()
    return configuration
