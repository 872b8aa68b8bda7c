"""Join the modalities by clip into shards that training streams from: agm shard

Reads    data/<data set>/manifest.parquet, quarantine-ingest.parquet and features/<modality>/part-<part>.parquet
Writes   data/<data set>/shards/<split>-<number>.parquet: clip_id, label, and one tensor column per modality
         data/<data set>/shards.json: what the tensors are (mean and standard deviation over the training split
         included), counts per split and class, checksums
         data/<data set>/quarantine.parquet: every clip that ingest or extract quarantined, with the reason

A clip that lacks a modality is not used. The manifest's seeded random order is kept. Memory holds one row group per
modality and one block per split, however large the data is.
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

CLIPS = "clip_id"
"""The key of what all modalities share, beside the names of the modalities; no modality can have this name."""


class SplitWriter:
    """Write one split's clips to files of at most `rows` clips in row groups of at most `block`."""

    def __init__(self, folder: Path, split: str, features: dict[str, Feature], rows: int, block: int) -> None:
        self._folder, self._split, self._features = folder, split, features
        self._rows, self._block = rows, block
        self._layout = tensors.schema({"clip_id": pa.string(), "label": pa.int64()}, features)
        # The tensors of one row group, filled clip by clip and used again for the next one.
        self._held: dict[str, np.ndarray] = {}
        for name, feature in features.items():
            self._held[name] = np.empty((block, *feature.shape), feature.dtype)
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
        """Write the remaining clips; afterwards `written` describes every file."""
        if self._clips:
            self._flush()
        self._close_file()

    def checksums(self) -> dict[str, str]:
        """Checksums of the ids and labels of all clips in their order, and of their tensors of each modality."""
        return {name: digest.hexdigest() for name, digest in self._digests.items()}

    def _rows_in_file(self) -> int:
        return self.written[-1]["rows"] if self._file else 0

    def _flush(self) -> None:
        """Write one row group, into a new file where none is open."""
        count = len(self._clips)
        if self._file is None:
            self.written.append({"name": f"{self._split}-{len(self.written):05}.parquet", "rows": 0})
            self._file = tensors.writer(self._folder / self.written[-1]["name"], self._layout)
        clip_ids, labels = zip(*self._clips, strict=True)
        self._digests[CLIPS].update(repr(self._clips).encode())
        columns = [pa.array(clip_ids), pa.array(labels)]
        for name, feature in self._features.items():
            held = self._held[name][:count]
            self._digests[name].update(held.tobytes())
            columns.append(tensors.encode(held, feature))
        self._file.write_table(pa.table(columns, schema=self._layout))
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
    parts: dict[str, list[Job]] = {}
    features: dict[str, Feature] = {}
    by_extract: list[dict[str, Any]] = []
    for name in params.dataset.modalities:
        parts[name] = graph.parts(name)
        indexes = [files.read_index(part.index, part.command) for part in parts[name]]
        features[name] = _agreed(parts[name], indexes)
        for index in indexes:
            by_extract += index["quarantined"]
    clips = _joined(_manifest(graph), parts)
    with files.replacing(folder) as temporary:
        temporary.mkdir()
        writers, moments = _write(temporary, clips, parts, features, params)
    quarantined = _quarantine(graph, quarantine, by_extract)
    # Text has no moments: its tensors hold ids of words.
    for name, of_channels in moments.items():
        features[name] = replace(features[name], mean=of_channels.mean, std=of_channels.std)
    classes = files.read_json(graph.job("ingest").index)["classes"]
    return {
        "classes": classes,
        "features": {name: feature.to_json() for name, feature in features.items()},
        "splits": {split: _counted(writer, classes) for split, writer in writers.items()},
        "content": _content(writers, params),
        "quarantined": quarantined,
        "sha256": files.checksums(graph.data, [quarantine.name]),
    }


# --- read the parts ---


def _agreed(parts: list[Job], indexes: list[dict[str, Any]]) -> Feature:
    """The form of one modality's tensors, on which all its parts must agree."""
    first = indexes[0]
    for part, index in zip(parts, indexes, strict=True):
        for key in ("feature", "pretrained"):
            if index.get(key) != first.get(key):
                what = "Two parts of a modality were extracted differently"
                raise AgmError(what, where=f"{parts[0].index}, {part.index}", fix=f"run `{part.command}`")
    attributes = dict(first["feature"])
    if isinstance(attributes["vocabulary"], list):
        # There are two more ids than words: padding and the unknown word.
        attributes["vocabulary"] = len(attributes["vocabulary"]) + 2
    feature = Feature.from_json(attributes)
    for part in parts:
        tensors.check(pq.read_schema(part.outputs[0]), {"tensor": feature}, part.outputs[0], part.command)
    return feature


def _manifest(graph: Graph) -> pl.DataFrame:
    """clip_id, split and label of every clip, in order."""
    ingest = graph.job("ingest")
    files.read_index(ingest.index, ingest.command)
    return pl.read_parquet(graph.data / "manifest.parquet", columns=["clip_id", "split", "label"])


def _joined(manifest: pl.DataFrame, parts: dict[str, list[Job]]) -> pl.DataFrame:
    """The manifest's clips that every modality has."""
    for jobs in parts.values():
        extracted = pl.concat([pl.read_parquet(part.outputs[0], columns=["clip_id"]) for part in jobs])
        manifest = manifest.join(extracted, on="clip_id", how="semi", maintain_order="left")
    for split in SPLITS:
        left = manifest["split"].eq(split).sum()
        fewest = FEWEST_CLIPS[split]
        if left < fewest:
            what = f"Too few clips of the split {split} have all of {', '.join(parts)}: {left}, and {fewest} are needed"
            raise AgmError(what, fix="the `quarantined` lists of the parts, beside their features, give the reasons")
    return manifest


# --- write the shards ---


def _write(
    folder: Path, clips: pl.DataFrame, parts: dict[str, list[Job]], features: dict[str, Feature], params: Params
) -> tuple[dict[str, SplitWriter], dict[str, Moments]]:
    """Write every clip of `clips` to its split's files, and gather the moments of the training split."""
    sizes = (params.shards.max_rows_per_file, params.shards.row_group_size)
    writers = {split: SplitWriter(folder, split, features, *sizes) for split in SPLITS}
    kept = set(clips["clip_id"])
    # All modalities are read side by side, in the manifest's order.
    streams = []
    moments: dict[str, Moments] = {}
    for name, feature in features.items():
        streams.append(_rows(parts[name], feature, kept))
        if feature.kind != "text":
            moments[name] = Moments(feature)
    rows = zip(clips.iter_rows(), *streams, strict=True)
    for (clip_id, split, label), *of_modalities in track(rows, len(clips), "shard"):
        row: dict[str, np.ndarray] = {}
        for name, (extracted_id, tensor) in zip(features, of_modalities, strict=True):
            if extracted_id != clip_id:
                raise AgmError(f"The parts are not in the manifest's order at clip {clip_id}", fix="extract them again")
            row[name] = tensor
        writers[split].add(clip_id, label, row)
        # Normalisation must not know the validation and test splits.
        if split == "train":
            for name, of_channels in moments.items():
                of_channels.add(row[name])
    for writer in writers.values():
        writer.close()
    return writers, moments


def _rows(parts: list[Job], feature: Feature, kept: set[str]) -> Iterator[tuple[str, np.ndarray]]:
    """Yield clip id and tensor of the clips of one modality that are kept, with one row group in memory at a time."""
    for part in parts:
        with pq.ParquetFile(part.outputs[0], memory_map=True) as file:
            for group in range(file.num_row_groups):
                table = file.read_row_group(group, use_threads=False)
                clip_ids = table["clip_id"].to_pylist()
                decoded = tensors.decode(table["tensor"], feature)
                for clip_id, tensor in zip(clip_ids, decoded, strict=True):
                    if clip_id in kept:
                        yield clip_id, tensor


# --- write the quarantine table and the index ---


def _quarantine(graph: Graph, target: Path, by_extract: list[dict[str, Any]]) -> int:
    """Write the clips that ingest and extract quarantined, and return how many clips these are."""
    by_ingest = pl.read_parquet(graph.data / "quarantine-ingest.parquet", columns=list(QUARANTINE))
    table = pl.concat([by_ingest.cast(QUARANTINE), pl.DataFrame(by_extract, schema=QUARANTINE)])
    files.write_parquet(target, table)
    # One clip may have a row for each modality.
    return table["clip_id"].n_unique()


def _content(writers: dict[str, SplitWriter], params: Params) -> dict[str, Any]:
    """Checksums by modality and split, for runs that read only some of the modalities; with what all runs read."""
    content: dict[str, dict[str, Any]] = {name: {} for name in (CLIPS, *params.dataset.modalities)}
    for split, writer in writers.items():
        checksums = writer.checksums()
        for name, of_splits in content.items():
            of_splits[split] = checksums[name]
    # Both decide the order of training.
    content[CLIPS]["row_group_size"] = params.shards.row_group_size
    content[CLIPS]["max_rows_per_file"] = params.shards.max_rows_per_file
    return content


def _counted(writer: SplitWriter, classes: list[str]) -> dict[str, Any]:
    """The clips of one split, in all and of each class, and its files."""
    labels = {name: writer.labels[label] for label, name in enumerate(classes)}
    return {"rows": writer.labels.total(), "labels": labels, "files": writer.written}
