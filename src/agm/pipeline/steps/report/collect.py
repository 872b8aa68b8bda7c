"""Read what the study left: runs, evaluations and the story of the data; refuse what is missing or out of date."""

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
        record: content of run.json.
        environment: what it was trained with: versions, device, threads.
        history: one row per epoch.
        evaluation: content of evaluation.json.
        right: of a concept, which test clips it names right, bool [N]; None for a method's run or one that failed.
        command: that trains it.
        folder: where the run lies.
    """

    fusion: str
    method: str | None
    concept: str | None
    seed: int
    record: dict[str, Any]
    environment: dict[str, Any]
    history: pl.DataFrame
    evaluation: dict[str, Any]
    right: np.ndarray | None
    command: str
    folder: Path

    @property
    def failed(self) -> dict[str, Any] | None:
        """What is known of a run that failed; None for one that did not."""
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

    def sound(self, fusion: str, method: str | None = None, concept: str | None = None) -> list[Run]:
        """Those that did not fail."""
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
        """The concepts, by fusion and modality, that are not seen to know more than the largest class.

        Their accuracies, with intervals over clips and seeds that reach down to `majority`. What is measured against
        such a network, a gap or a competition strength, means nothing.
        """
        confidence = self.params.evaluation.confidence
        found = {}
        for fusion in self.params.study.fusions:
            for name in self.params.study.modalities:
                right = [run.right for run in self.sound(fusion, concept=name)]
                interval = bootstrap_share(np.stack(right), confidence) if right else None
                if interval is not None and interval.low <= self.majority:
                    found[fusion, name] = interval
        return found

    def no_d(self, fusion: str, modality: str) -> str | None:
        """Why the competition strength of a modality is known in no seed, or says nothing; None where it may."""
        if few := too_few_clips({split: found["rows"] for split, found in self.shards["splits"].items()}):
            return few
        known = (fusion, modality) not in self.uninformed
        return None if known else f"{modality} alone may only know the largest class"


def collect(params: Params) -> Study:
    """Read every cell of the study.

    Raises:
        AgmError: when a result is missing, damaged, or not what the parameters ask for.
    """
    graph = Graph(params)
    _refuse(graph)
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


def _refuse(graph: Graph) -> None:
    """A run vouches for the shards it read (`provenance.check_inputs`), but not for what these were made with.

    The bulk of the earlier steps need not be on this machine, so only their records are compared, where there are any.
    """
    problems = []
    for job in graph.jobs:
        record = provenance.recorded(job)
        if job.step == "report" or record is None:
            continue
        had, want = record["made_from"]["parameters"], config.select(graph.params.content, list(job.parameters))
        if changed := [name for name in {**had, **want} if had.get(name) != want.get(name)]:
            problems.append(f"`{job.command}`: made with other parameters: {', '.join(changed)}")
    if problems:
        raise AgmError(
            f"Results are not what the parameters ask for:\n{listed(problems, provenance.LISTED)}",
            where=config.PARAMS_FILE,
            fix="`snakemake` or `dvc repro` rebuilds them; by hand: those commands, then what depends on them",
        )


def _runs(graph: Graph) -> Iterator[Run]:
    study = graph.params.study
    for fusion in study.fusions:
        for method in study.methods:
            for seed in study.seeds:
                run, evaluation = (graph.job(step, fusion, method, seed) for step in ("train", "evaluate"))
                yield _run(run, evaluation, method=method)
        for name in study.modalities:
            for seed in study.seeds:
                run, evaluation = (graph.job(step, fusion, name, seed) for step in ("concept", "evaluate_concept"))
                yield _run(run, evaluation, concept=name)


def _run(run: Job, evaluation: Job, method: str | None = None, concept: str | None = None) -> Run:
    name = "history.parquet"
    record = read_index(run.index, run.command, name)
    scores = read_json(evaluation.index, evaluation.command)
    return Run(
        fusion=run.cell[0],
        method=method,
        concept=concept,
        seed=int(run.cell[-1]),
        record=record,
        environment=provenance.recorded(run)["environment"],
        history=_parquet(run.index.parent / name, run),
        evaluation=scores,
        right=_right(evaluation) if concept is not None and not scores["failed"] else None,
        command=run.command,
        folder=run.index.parent,
    )


def _right(evaluation: Job) -> np.ndarray:
    """Which test clips the evaluated network names right, bool `[N]`."""
    (path,) = evaluation.outputs
    read_index(evaluation.index, evaluation.command, path.name)
    table = _parquet(path, evaluation).filter(split="test")
    return (table["label"] == table["prediction"]).to_numpy()


def _parquet(path: Any, job: Job) -> pl.DataFrame:
    try:
        return pl.read_parquet(path)
    except (FileNotFoundError, pl.exceptions.PolarsError) as error:
        raise AgmError(f"A table cannot be read ({error})", where=path, fix=f"run `{job.command}`") from None
