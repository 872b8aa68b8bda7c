"""The DAG, job by job: what every command reads, writes and depends on.

Snakemake's rules and `dvc.yaml` state the same graph in their own languages, and tests hold the three together. The
commands take their paths from here, so that a path is spelled in one place.
"""

from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path

from agm.pipeline.config import Params
from agm.pipeline.dag.job import MANY, RECORDS, TRAINING, Job

__all__ = ["MANY", "RECORDS", "TRAINING", "Graph", "Job"]

RAW = Path("data/raw")


class Graph:
    """Every job of the study that `params` describes."""

    def __init__(self, params: Params) -> None:
        self.params = params
        self.data = Path("data") / params.dataset.name
        # Written by `agm check`, which is not a job, because it would always have to run.
        self.raw = self.data / "raw.json"
        self.runs = Path("runs") / params.dataset.name
        self.evaluations = Path("evaluations") / params.dataset.name
        self.reports = Path("reports")

    @cached_property
    def jobs(self) -> tuple[Job, ...]:
        """All jobs, each one after those that it depends on."""
        return tuple(self._jobs())

    def job(self, step: str, *cell: object) -> Job:
        """The job of `step` at `cell`.

        Raises:
            KeyError: when the study has no such cell.
        """
        return self._index[step, tuple(map(str, cell))]

    def cells(self, step: str) -> list[tuple[str, ...]]:
        """The cells of `step`."""
        return [job.cell for job in self.jobs if job.step == step]

    @cached_property
    def _index(self) -> dict[tuple[str, tuple[str, ...]], Job]:
        return {(job.step, job.cell): job for job in self.jobs}

    @cached_property
    def makers(self) -> dict[Path, Job]:
        """For each index and output the job that makes it."""
        makers = {}
        for job in self.jobs:
            makers |= dict.fromkeys(job.results, job)
        return makers

    def _jobs(self) -> Iterator[Job]:
        study = self.params.study
        for name in self.params.dataset.generated:
            yield self._generate(name)
        for key in self.params.dataset.annotations:
            yield self._annotations(key)
        yield self._list()
        yield self._ingest()
        for modality in study.modalities:
            yield from self.parts(modality)
        yield self._shard()
        yield self._inspect()
        for fusion in study.fusions:
            for seed in study.seeds:
                for modality in study.modalities:
                    yield self._concept(fusion, modality, seed)
                    yield self._evaluate_concept(fusion, modality, seed)
                # Those that read finished runs come last: jobs follow what they depend on.
                for method in (*self.params.dvc.methods, *self.params.dvc.methods_after_runs):
                    yield self._train(fusion, method, seed)
                    yield self._evaluate(fusion, method, seed)
        yield self._report()

    # --- from raw media to shards ---

    def _generate(self, name: str) -> Job:
        root = RAW / name
        return Job(
            step="generate",
            cell=(name,),
            index=root / "generated.json",
            outputs=(root / "labels.csv", root / "clips"),
            inputs=(),
            data=(),
            parameters=(name,),
            code=("generate",),
        )

    def _annotations(self, key: str) -> Job:
        return Job(
            step="annotations",
            cell=(key,),
            index=self.data / "annotations" / f"{key}.json",
            outputs=(),
            inputs=(Path(self.params.dataset.annotations[key]),),
            data=(),
            parameters=(),
            code=("annotations",),
        )

    def _list(self) -> Job:
        annotations = [self._annotations(key).index for key in self.params.dataset.annotations]
        return Job(
            step="list",
            cell=(),
            index=self.data / "listing.json",
            outputs=(self.data / "clips.parquet", self.data / "listing.parquet"),
            inputs=(*annotations, self.raw),
            data=(),
            parameters=self._source,
            code=("list",),
        )

    def _ingest(self) -> Job:
        return Job(
            step="ingest",
            cell=(),
            index=self.data / "manifest.json",
            outputs=(self.data / "manifest.parquet", self.data / "quarantine-ingest.parquet"),
            inputs=(self.data / "listing.json",),
            data=(self.data / "clips.parquet", self.data / "listing.parquet"),
            parameters=(*self._source, "dataset.limits", "dataset.quarantine"),
            code=("ingest",),
        )

    @property
    def _source(self) -> tuple[str, ...]:
        keys = ("adapter", "modalities", "group", "label", "classes", "split", "texts", "links")
        return tuple(f"dataset.{key}" for key in keys)

    def parts(self, modality: str) -> list[Job]:
        """The extraction jobs of one modality."""
        return [self._extract(modality, part) for part in range(self.params.num_parts)]

    def _extract(self, modality: str, part: int) -> Job:
        folder = self.data / "features" / modality
        return Job(
            step="extract",
            cell=(modality, str(part)),
            index=folder / f"part-{part}.json",
            outputs=(folder / f"part-{part}.parquet",),
            inputs=(self.data / "manifest.json",),
            data=(self.data / "manifest.parquet",),
            parameters=(
                "dataset.limits",
                "dataset.quarantine",
                f"dataset.modalities.{modality}",
                f"features.{modality}",
                "num_parts",
            ),
            code=("extract",),
        )

    def _all_parts(self) -> list[Job]:
        """The extraction jobs of all modalities."""
        jobs: list[Job] = []
        for modality in self.params.study.modalities:
            jobs += self.parts(modality)
        return jobs

    def _shard(self) -> Job:
        parts = self._all_parts()
        return Job(
            step="shard",
            cell=(),
            index=self.data / "shards.json",
            outputs=(self.data / "shards", self.data / "quarantine.parquet"),
            inputs=(self.data / "manifest.json", *_indexes(parts)),
            data=(self.data / "manifest.parquet", self.data / "quarantine-ingest.parquet", *_outputs(parts)),
            parameters=("shards", "num_parts", "dataset.modalities"),
            code=("shard",),
        )

    def _inspect(self) -> Job:
        return Job(
            step="inspect",
            cell=(),
            index=self.data / "inspection.json",
            outputs=(self.data / "contact_sheet.png", self.data / "duplicates.parquet"),
            inputs=(self.data / "manifest.json", self.data / "shards.json"),
            data=(
                self.data / "manifest.parquet",
                self.data / "quarantine.parquet",
                self.data / "shards",
                *_indexes(self._all_parts()),
            ),
            parameters=(),
            code=("inspect",),
        )

    # --- from shards to the report ---

    def _training(
        self,
        step: str,
        cell: tuple[str, ...],
        folder: Path,
        parameters: tuple[str, ...],
        code: tuple[str, ...] = (),
        prerequisites: tuple[Job, ...] = (),
    ) -> Job:
        return Job(
            step=step,
            cell=cell,
            index=folder / "run.json",
            outputs=(folder / "model.safetensors", folder / "history.parquet"),
            inputs=(self.data / "shards.json", *_indexes(prerequisites)),
            data=(self.data / "shards", *_outputs(prerequisites)),
            parameters=(f"fusions.{cell[0]}", "trainer", *parameters),
            code=(step, *code),
            after_runs=bool(prerequisites),
            selected=self._read_by(cell[1]) if step == "concept" else (),
        )

    def _concept(self, fusion: str, modality: str, seed: int) -> Job:
        folder = self.runs / fusion / "concepts" / modality / f"seed-{seed}"
        return self._training("concept", (fusion, modality, str(seed)), folder, (f"encoders.{modality}",))

    def _read_by(self, modality: str) -> tuple[tuple[Path, tuple[str, ...]], ...]:
        """The keys of the shards' index that the network of one modality depends on: not the other modalities."""
        keys = ("classes", "content.clip_id", f"features.{modality}", f"content.{modality}")
        return ((self.data / "shards.json", keys),)

    def _train(self, fusion: str, method: str, seed: int) -> Job:
        folder = self.runs / fusion / method / f"seed-{seed}"
        cell = (fusion, method, str(seed))
        code = (f"methods/{self.params.methods[method].name}",)
        if not self.params.reads_runs(method):
            return self._training("train", cell, folder, ("encoders", f"methods.{method}"), code)
        concepts = [self._concept(fusion, name, seed) for name in self.params.study.modalities]
        prerequisites = (*concepts, self._train(fusion, "joint", seed))
        return self._training("train", cell, folder, ("encoders", f"methods.{method}"), code, prerequisites)

    def _evaluation(self, step: str, run: Job, concepts: list[Job]) -> Job:
        folder = self.evaluations / run.index.parent.relative_to(self.runs)
        outputs = [folder / "predictions.parquet"]
        parameters = "evaluation.batch_size"
        # A method's run is compared with the concepts: all of the evaluation's parameters count.
        if concepts:
            outputs.append(folder / "features.safetensors")
            parameters = "evaluation"
        return Job(
            step=step,
            cell=run.cell,
            index=folder / "evaluation.json",
            outputs=tuple(outputs),
            inputs=(self.data / "shards.json", run.index, *_indexes(concepts)),
            data=(self.data / "shards", run.index.parent / "model.safetensors", *_outputs(concepts)),
            parameters=(parameters,),
            code=(step, *run.code[1:]),
            after_runs=run.after_runs,
            selected=run.selected,
        )

    def _evaluate_concept(self, fusion: str, modality: str, seed: int) -> Job:
        return self._evaluation("evaluate_concept", self._concept(fusion, modality, seed), [])

    def _evaluate(self, fusion: str, method: str, seed: int) -> Job:
        concepts = [self._evaluate_concept(fusion, name, seed) for name in self.params.study.modalities]
        return self._evaluation("evaluate", self._train(fusion, method, seed), concepts)

    def _report(self) -> Job:
        study = self.params.study
        runs, concepts, evaluations = [], [], []
        for fusion in study.fusions:
            for seed in study.seeds:
                runs += [self._concept(fusion, name, seed) for name in study.modalities]
                runs += [self._train(fusion, name, seed) for name in study.methods]
                concepts += [self._evaluate_concept(fusion, name, seed) for name in study.modalities]
                evaluations += [self._evaluate(fusion, name, seed) for name in study.methods]
        files = ("index.html", "metrics.json", "results.parquet", "summary.txt")
        return Job(
            step="report",
            cell=(),
            index=self.reports / "report.json",
            outputs=tuple(self.reports / name for name in files),
            inputs=(
                self.data / "manifest.json",
                self.data / "shards.json",
                self.data / "inspection.json",
                *_indexes(runs + concepts + evaluations),
            ),
            data=(
                self.data / "quarantine.parquet",
                self.data / "contact_sheet.png",
                *(job.index.parent / "history.parquet" for job in runs),
                *_outputs(concepts),
            ),
            parameters=("study", "evaluation.confidence"),
            code=("report",),
        )


def _indexes(jobs: Iterable[Job]) -> list[Path]:
    return [job.index for job in jobs]


def _outputs(jobs: Iterable[Job]) -> list[Path]:
    outputs: list[Path] = []
    for job in jobs:
        outputs += job.outputs
    return outputs
