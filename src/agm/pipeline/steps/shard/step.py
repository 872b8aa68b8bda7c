"""Join the modalities by clip into shards that training streams from: agm shard

Reads    data/<data set>/manifest.parquet, rejected.parquet and features/<modality>/part-<part>.parquet
Writes   data/<data set>/shards/<split>-<number>.parquet: clip_id, label, and one tensor column per modality
         data/<data set>/shards.json: what the tensors are (mean and standard deviation over the training split
         included), counts per split and class, checksums
         data/<data set>/quarantine.parquet: every clip that was quarantined since ingest, with the reason

A clip that lacks a modality is not used. The manifest's seeded random order is kept. One row group per modality and
one block per split are in memory, however large the data.
"""

import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from agm.pipeline.config import Params
from agm.pipeline.dag.graph import Graph, Job
from agm.pipeline.errors import AgmError
from agm.pipeline.io import files, tensors
from agm.pipeline.io.tables import FEWEST_CLIPS, QUARANTINE, SPLITS
from agm.pipeline.io.tensors import Feature
from agm.pipeline.runtime.progress import track
from agm.pipeline.steps.shard.statistics import Moments

CLIPS = "clip_id"  # a name that no modality has


class SplitWriter:
    """Writes one split's clips to files of at most `rows` clips in row groups of at most `block`."""

    def __init__(self, folder: Path, split: str, features: dict[str, Feature], rows: int, block: int) -> None:
        self._folder, self._split, self._features = folder, split, features
        self._rows, self._block = rows, block
        self._layout = tensors.schema({"clip_id": pa.string(), "label": pa.int64()}, features)
        self._held = {name: np.empty((block, *each.shape), each.dtype) for name, each in features.items()}
        self._clips: list[tuple[str, int]] = []
        self._file: pq.ParquetWriter | None = None
        self._digests = {name: hashlib.sha256() for name in (CLIPS, *features)}
        self.written: list[dict[str, Any]] = []
        self.labels: Counter[int] = Counter()

    def add(self, clip_id: str, label: int, row: dict[str, np.ndarray]) -> None:
        """Append one clip."""
        for name, held in self._held.items():
            held[len(self._clips)] = row[name]
        self._clips.append((clip_id, label))
        self.labels[label] += 1
        if len(self._clips) == min(self._block, self._rows - self._rows_in_file()):
            self._flush()

    def close(self) -> None:
        """Write what is left; afterwards `written` describes every file."""
        if self._clips:
            self._flush()
        self._close_file()

    def checksums(self) -> dict[str, str]:
        """Of the ids and labels of all clips in their order, and of their tensors of each modality."""
        return {name: each.hexdigest() for name, each in self._digests.items()}

    def _rows_in_file(self) -> int:
        return self.written[-1]["rows"] if self._file else 0

    def _flush(self) -> None:
        """Write one row group, in a new file where there is none open."""
        count = len(self._clips)
        if self._file is None:
            self.written.append({"name": f"{self._split}-{len(self.written):05}.parquet", "rows": 0})
            self._file = tensors.writer(self._folder / self.written[-1]["name"], self._layout)
        clip_ids, labels = zip(*self._clips, strict=True)
        self._digests[CLIPS].update(repr(self._clips).encode())
        for name, held in self._held.items():
            self._digests[name].update(held[:count].tobytes())
        columns = [tensors.encode(self._held[name][:count], each) for name, each in self._features.items()]
        self._file.write_table(pa.table([pa.array(clip_ids), pa.array(labels), *columns], schema=self._layout))
        self._clips.clear()
        self.written[-1]["rows"] += count
        if self._rows_in_file() == self._rows:
            self._close_file()

    def _close_file(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
            last = self.written[-1]
            last["sha256"] = files.sha256(self._folder / last["name"])


def run(params: Params, job: Job) -> dict[str, Any]:
    """Write the shards, the quarantine table and the index.

    Raises:
        AgmError: when parts are damaged or do not fit together, or a split ends without clips.
    """
    folder, quarantine = job.outputs
    graph = Graph(params)
    parts = {name: graph.parts(name) for name in params.dataset.modalities}
    indexes = {name: [files.read_index(part.index, part.command) for part in jobs] for name, jobs in parts.items()}
    features = {name: _agreed(jobs, indexes[name]) for name, jobs in parts.items()}
    clips = _joined(_manifest(graph), {name: [part.outputs[0] for part in jobs] for name, jobs in parts.items()})
    with files.replacing(folder) as temporary:
        temporary.mkdir()
        writers, moments = _write(temporary, clips, parts, features, params)
    rejected = _quarantine(graph, quarantine, indexes)
    classes = files.read_json(graph.job("ingest").index)["classes"]
    return {
        "classes": classes,
        "features": {name: _described(each, moments.get(name)) for name, each in features.items()},
        "splits": {split: _counted(writer, classes) for split, writer in writers.items()},
        "content": _content(writers, params),
        "rejected": rejected,
        "sha256": files.checksums(graph.data, [quarantine.name]),
    }


# --- what there is ---


def _agreed(parts: list[Job], indexes: list[dict[str, Any]]) -> Feature:
    """What the tensors of one modality are, which all its parts must say alike."""
    for part, index in zip(parts, indexes, strict=True):
        if any(index.get(key) != indexes[0].get(key) for key in ("feature", "pretrained")):
            what = "Two parts of a modality were extracted differently"
            raise AgmError(what, where=f"{parts[0].index}, {part.index}", fix=f"run `{part.command}`")
    found = dict(indexes[0]["feature"])
    if isinstance(found["vocabulary"], list):
        # Two more ids than words: padding and the unknown word.
        found["vocabulary"] = len(found["vocabulary"]) + 2
    feature = Feature.from_json(found)
    for part in parts:
        tensors.check(pq.read_schema(part.outputs[0]), {"tensor": feature}, part.outputs[0], part.command)
    return feature


def _manifest(graph: Graph) -> pl.DataFrame:
    """clip_id, split and label of every clip, in order."""
    ingest = graph.job("ingest")
    files.read_index(ingest.index, ingest.command)
    return pl.read_parquet(graph.data / "manifest.parquet", columns=["clip_id", "split", "label"])


def _joined(manifest: pl.DataFrame, parts: dict[str, list[Path]]) -> pl.DataFrame:
    """The manifest's clips that every modality has."""
    for paths in parts.values():
        there = pl.concat([pl.read_parquet(path, columns=["clip_id"]) for path in paths])
        manifest = manifest.join(there, on="clip_id", how="semi", maintain_order="left")
    for split in SPLITS:
        left, fewest = manifest["split"].eq(split).sum(), FEWEST_CLIPS[split]
        if left < fewest:
            what = f"Of the clips of the split {split} only {left} have all of {', '.join(parts)}; {fewest} are needed"
            raise AgmError(what, fix="the `rejected` lists of the parts, beside their features, give the reasons")
    return manifest


# --- streaming through it ---


def _write(
    folder: Path, clips: pl.DataFrame, parts: dict[str, list[Job]], features: dict[str, Feature], params: Params
) -> tuple[dict[str, SplitWriter], dict[str, Moments]]:
    """Write every clip of `clips` to its split's files, and gather the moments of the training split."""
    sizes = (params.shards.max_rows_per_file, params.shards.row_group_size)
    writers = {split: SplitWriter(folder, split, features, *sizes) for split in SPLITS}
    moments = {name: Moments(each) for name, each in features.items() if each.kind != "text"}
    kept = set(clips["clip_id"])
    streams = [_rows(jobs, features[name], kept) for name, jobs in parts.items()]
    rows = zip(clips.iter_rows(), *streams, strict=True)
    for (clip_id, split, label), *found in track(rows, len(clips), "shard"):
        if any(name != clip_id for name, _ in found):
            raise AgmError(f"The parts are not in the manifest's order at clip {clip_id}", fix="extract them again")
        row = dict(zip(features, (tensor for _, tensor in found), strict=True))
        writers[split].add(clip_id, label, row)
        if split == "train":
            for name, each in moments.items():
                each.add(row[name])
    for writer in writers.values():
        writer.close()
    return writers, moments


def _rows(parts: list[Job], feature: Feature, kept: set[str]) -> Iterator[tuple[str, np.ndarray]]:
    """(clip id, tensor) of the clips of one modality that are kept, one row group in memory at a time."""
    for part in parts:
        with pq.ParquetFile(part.outputs[0], memory_map=True) as file:
            for group in range(file.num_row_groups):
                table = file.read_row_group(group, use_threads=False)
                tensor = tensors.decode(table["tensor"], feature)
                names = table["clip_id"].to_pylist()
                yield from ((name, row) for name, row in zip(names, tensor, strict=True) if name in kept)


# --- what is said about it ---


def _quarantine(graph: Graph, target: Path, indexes: dict[str, list[dict[str, Any]]]) -> int:
    """Write the clips that ingest and extract quarantined, and return how many clips that are."""
    extracted = [row for parts in indexes.values() for part in parts for row in part["rejected"]]
    ingested = pl.read_parquet(graph.data / "rejected.parquet", columns=list(QUARANTINE))
    table = pl.concat([ingested.cast(QUARANTINE), pl.DataFrame(extracted, schema=QUARANTINE)])
    files.write_parquet(target, table)
    return table["clip_id"].n_unique()


def _described(feature: Feature, moments: Moments | None) -> dict[str, Any]:
    if moments is not None:
        feature = replace(feature, mean=moments.mean, std=moments.std)
    return feature.to_json()


def _content(writers: dict[str, SplitWriter], params: Params) -> dict[str, Any]:
    """What a network that reads some of the modalities depends on, by modality; with it, what all depend on."""
    by_split = {split: writer.checksums() for split, writer in writers.items()}
    found = {
        name: {split: each[name] for split, each in by_split.items()} for name in (CLIPS, *params.dataset.modalities)
    }
    # Both decide the order of training.
    found[CLIPS]["row_group_size"] = params.shards.row_group_size
    found[CLIPS]["max_rows_per_file"] = params.shards.max_rows_per_file
    return found


def _counted(writer: SplitWriter, classes: list[str]) -> dict[str, Any]:
    labels = {name: writer.labels[label] for label, name in enumerate(classes)}
    return {"rows": writer.labels.total(), "labels": labels, "files": writer.written}
