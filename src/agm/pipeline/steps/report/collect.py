"""Read the results of the study: runs, evaluations and data; refuse what is missing or out of date."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from agm.metrics.competition import too_few_clips
from agm.metrics.intervals import Interval, bootstrap_share
from agm.pipeline import config
from agm.pipeline.config import Params
from agm.pipeline.dag import provenance
from agm.pipeline.dag.graph import Graph, Job
from agm.pipeline.errors import AgmError, listed
from agm.pipeline.io.files import read_index, read_json


@dataclass(frozen=True)
class Run:
    """One trained and evaluated network: a method's run, or the mono-modal concept of one modality.

    Attributes:
        method: the method, None for a concept.
        concept: the modality of a concept, None for a method's run.
        index: content of run.json.
        environment: what the network was trained with: versions, device, threads.
        history: one row per epoch.
        evaluation: content of evaluation.json.
        correct: for a concept, which test clips it classifies correctly, bool [N]; None for a method's run and for a
            run that failed.
        command: the command that trains it.
        folder: the folder of the run.
    """

    fusion: str
    method: str | None
    concept: str | None
    seed: int
    index: dict[str, Any]
    environment: dict[str, Any]
    history: pl.DataFrame
    evaluation: dict[str, Any]
    correct: np.ndarray | None
    command: str
    folder: Path

    @property
    def failed(self) -> dict[str, Any] | None:
        """What is known about the failure of the run; None where it did not fail."""
        return self.evaluation["failed"]


@dataclass(frozen=True)
class Study:
    """Everything that the report reads, in the order of the study.

    Attributes:
        sheet: the contact sheet, a PNG.
    """

    params: Params
    runs: tuple[Run, ...]
    manifest: dict[str, Any]
    shards: dict[str, Any]
    inspection: dict[str, Any]
    sheet: bytes
    quarantine: pl.DataFrame

    @property
    def baseline(self) -> str | None:
        """The method that the others are compared with: the study's first plain joint training, if it has one."""
        return self.params.baseline

    def of(self, fusion: str, method: str | None = None, concept: str | None = None) -> list[Run]:
        """The runs of one method or concept, one per seed."""
        wanted = (fusion, method, concept)
        return [run for run in self.runs if (run.fusion, run.method, run.concept) == wanted]

    def succeeded(self, fusion: str, method: str | None = None, concept: str | None = None) -> list[Run]:
        """The runs of one method or concept that did not fail."""
        return [run for run in self.of(fusion, method, concept) if not run.failed]

    @property
    def failed(self) -> list[Run]:
        """All runs that failed."""
        return [run for run in self.runs if run.failed]

    @property
    def majority(self) -> float:
        """Accuracy on the test split of always naming its largest class."""
        test = self.shards["splits"]["test"]
        return max(test["labels"].values()) / test["rows"]

    @cached_property
    def uninformed(self) -> dict[tuple[str, str], Interval]:
        """The concepts, by fusion and modality, that may know no more than the largest class.

        The value is the accuracy, with an interval over clips and seeds that reaches down to `majority`. A comparison
        with such a network, a gap or a competition strength, means nothing.
        """
        confidence = self.params.evaluation.confidence
        uninformed = {}
        for fusion in self.params.study.fusions:
            for name in self.params.study.modalities:
                correct = [run.correct for run in self.succeeded(fusion, concept=name)]
                # Where every run failed, nothing is known about the network.
                if not correct:
                    continue
                accuracy = bootstrap_share(np.stack(correct), confidence)
                if accuracy.low <= self.majority:
                    uninformed[fusion, name] = accuracy
        return uninformed

    def no_d(self, fusion: str, modality: str) -> str | None:
        """Why the competition strength of a modality is unknown in every seed, or means nothing; None otherwise."""
        clips = {name: split["rows"] for name, split in self.shards["splits"].items()}
        if few := too_few_clips(clips):
            return few
        if (fusion, modality) in self.uninformed:
            return f"{modality} alone may only know the largest class"
        return None


def collect(params: Params) -> Study:
    """Read every cell of the study.

    Raises:
        AgmError: when a result is missing, damaged, or not what the parameters ask for.
    """
    graph = Graph(params)
    _refuse_outdated(graph)
    shard, inspect = graph.job("shard"), graph.job("inspect")
    return Study(
        params=params,
        runs=tuple(_runs(graph)),
        manifest=read_json(graph.job("ingest").index, "agm ingest"),
        shards=read_index(shard.index, shard.command),
        inspection=read_index(inspect.index, inspect.command, "contact_sheet.png"),
        sheet=(graph.data / "contact_sheet.png").read_bytes(),
        quarantine=_parquet(graph.data / "quarantine.parquet", shard),
    )


def _refuse_outdated(graph: Graph) -> None:
    """Refuse results that were made with other parameters than those of the study.

    A run guarantees the shards that it read (`provenance.check_inputs`), but not what these were made with. The data
    of the earlier steps need not be on this machine, so only their records are compared, where there are any.
    """
    problems = []
    for job in graph.jobs:
        record = provenance.recorded(job)
        # The report is what will be made now.
        if job.step == "report" or record is None:
            continue
        had = record["made_from"]["parameters"]
        want = config.select(graph.params.content, list(job.parameters))
        if changed := [name for name in had | want if had.get(name) != want.get(name)]:
            problems.append(f"`{job.command}`: made with other parameters: {', '.join(changed)}")
    if problems:
        raise AgmError(
            f"Results are not what the parameters ask for:\n{listed(problems, provenance.LISTED)}",
            where=config.PARAMS_FILE,
            fix="`snakemake` or `dvc repro` rebuilds them; by hand: those commands, then what depends on them",
        )


def _runs(graph: Graph) -> Iterator[Run]:
    """All runs of the study: for each fusion the methods, then the concepts."""
    study = graph.params.study
    for fusion in study.fusions:
        for method in study.methods:
            for seed in study.seeds:
                run = graph.job("train", fusion, method, seed)
                evaluation = graph.job("evaluate", fusion, method, seed)
                yield _run(run, evaluation, method=method)
        for name in study.modalities:
            for seed in study.seeds:
                run = graph.job("concept", fusion, name, seed)
                evaluation = graph.job("evaluate_concept", fusion, name, seed)
                yield _run(run, evaluation, concept=name)


def _run(run: Job, evaluation: Job, method: str | None = None, concept: str | None = None) -> Run:
    # Of the run's files only the history is read: its weights need not be on this machine.
    history = run.index.parent / "history.parquet"
    index = read_index(run.index, run.command, history.name)
    scores = read_json(evaluation.index, evaluation.command)
    is_sound_concept = concept is not None and not scores["failed"]
    return Run(
        fusion=run.cell[0],
        method=method,
        concept=concept,
        seed=int(run.cell[-1]),
        index=index,
        environment=provenance.recorded(run)["environment"],
        history=_parquet(history, run),
        evaluation=scores,
        correct=_correct(evaluation) if is_sound_concept else None,
        command=run.command,
        folder=run.index.parent,
    )


def _correct(evaluation: Job) -> np.ndarray:
    """Which test clips the evaluated network classifies correctly, bool `[N]`."""
    (path,) = evaluation.outputs
    read_index(evaluation.index, evaluation.command, path.name)
    table = _parquet(path, evaluation).filter(split="test")
    return (table["label"] == table["prediction"]).to_numpy()


def _parquet(path: Path, job: Job) -> pl.DataFrame:
    try:
        return pl.read_parquet(path)
    except (FileNotFoundError, pl.exceptions.PolarsError) as error:
        raise AgmError(f"A table cannot be read ({error})", where=path, fix=f"run `{job.command}`") from None
