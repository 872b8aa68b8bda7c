"""See the data: agm inspect, or agm inspect CLIP for one clip

Reads    data/<data set>/manifest.*, shards.json, shards and, for the words of texts, the features' indexes
Writes   data/<data set>/contact_sheet.png: the first clips of each class, as the networks see them
         data/<data set>/duplicates.parquet: clips of one split that look the same as a clip of an earlier one, in one
         modality or in every one: modality, clip_id, split, like, like_split, similarity (1: equal tensors
         or texts)
         data/<data set>/inspection.json: clips per split and class, a histogram of durations, the leaks between the
         splits (shared groups, and clips that two splits have in every modality), the flaws that `agm ingest` found,
         the number of blank tensors of each modality, which show nothing to a network, and the texts of the contact
         sheet

With the id of a clip, writes inspected/<clip>.png instead, and prints where the clip comes from, its label and split,
which clips look the same, and whether it was quarantined, and why. The name of the data set stands for all of it.

Equal sounds or texts alone are common and harmless: only clips that agree in every modality count as a leak. A clip
that begins elsewhere in the same recording, or that shows another part of the picture, is not detected.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from agm.pipeline.config import Params
from agm.pipeline.dag.graph import Graph, Job
from agm.pipeline.io.files import checksums, read_index, write_parquet
from agm.pipeline.io.tables import SPLITS
from agm.pipeline.runtime.progress import say, track
from agm.pipeline.steps.inspect.duplicates import duplicates, findings, summary
from agm.pipeline.steps.inspect.signature import Signatures, Signer
from agm.pipeline.steps.inspect.transcript import transcripts
from agm.pipeline.steps.shard.stream import Shards, StoredBatch

BATCH = 16
MOST = 12
"""Greatest number of clips on the contact sheet."""
BINS = 24
"""Number of bins in the histogram of durations."""


@dataclass
class Seen:
    """What one pass through the shards collects.

    Attributes:
        clip_ids: all clips, in the order of the shards.
        splits: the split of each.
        tensors: the tensors of the clips for the contact sheet, by clip id and modality.
    """

    clip_ids: list[str] = field(default_factory=list)
    splits: list[str] = field(default_factory=list)
    tensors: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)


def run(params: Params, job: Job) -> dict[str, Any]:
    """Write the outputs of `job`.

    Returns:
        Clips per split and class, durations, leaks, the number of clips that splits have in common, flaws, checksums.

    Raises:
        AgmError: when a file that it reads is damaged.
    """
    sheet, pairs_file = job.outputs
    graph = Graph(params)
    shards = Shards.open(graph.data)
    ingest, shard = graph.job("ingest"), graph.job("shard")
    manifest = read_index(ingest.index, ingest.command, "manifest.parquet")
    read_index(shard.index, shard.command)
    clips = _used(graph)
    chosen = choose(clips)
    signers = {}
    for name, feature in shards.features.items():
        signers[name] = Signer(feature, _texts(params, clips, name))
    seen = _pass(shards, signers, set(chosen["clip_id"]))
    signatures = {name: signer.signatures() for name, signer in signers.items()}
    pairs = duplicates(seen.clip_ids, seen.splits, signatures)
    write_parquet(pairs_file, pairs)
    texts = _draw(params, shards, chosen, seen, sheet)
    leaks = [*manifest["leaks"], *findings(pairs)]
    blank = _blank(params, signatures)
    _say_findings(len(clips), leaks, blank)
    return {
        "clips": {split: _balance(clips.filter(split=split), shards.classes) for split in SPLITS},
        "durations": durations(clips),
        "leaks": leaks,
        "texts": texts,
        "duplicates": summary(pairs, list(shards.features)),
        "flaws": manifest["flaws"],
        "blank": blank,
        "sha256": checksums(graph.data, [sheet.name, pairs_file.name]),
    }


def _blank(params: Params, signatures: Mapping[str, Signatures]) -> dict[str, int]:
    """How many tensors of each modality show nothing; short texts are common and do not count."""
    counts = {}
    for name, of_modality in signatures.items():
        if not _is_text(params, name):
            counts[name] = int(of_modality.blank.sum())
    return counts


def _say_findings(clips: int, leaks: list[str], blank: dict[str, int]) -> None:
    for leak in leaks:
        say(leak)
    for name, number in blank.items():
        if number:
            say(f"{name}: the tensors of {number} clips show nothing")
    say(f"inspect: {clips} clips, {len(leaks)} leaks found")


def _used(graph: Graph) -> pl.DataFrame:
    """The manifest's clips that are in the shards, in its order."""
    quarantined = pl.read_parquet(graph.data / "quarantine.parquet", columns=["clip_id"])
    manifest = pl.read_parquet(graph.data / "manifest.parquet")
    return manifest.join(quarantined, on="clip_id", how="anti", maintain_order="left")


def _is_text(params: Params, modality: str) -> bool:
    return params.dataset.modalities[modality].kind == "text"


def _texts(params: Params, clips: pl.DataFrame, modality: str) -> dict[str, str] | None:
    """Clip id → checksum of its text; None where the modality is no text."""
    if not _is_text(params, modality):
        return None
    return dict(clips.select("clip_id", pl.col("texts").struct[modality]).iter_rows())


def choose(clips: pl.DataFrame) -> pl.DataFrame:
    """The clips for the sheet: with few classes two clips of each, with many one clip of each of the first classes."""
    classes = clips["label"].n_unique()
    per_class = 2 if 2 * classes <= MOST else 1
    first = clips.filter(pl.int_range(pl.len()).over("label") < per_class)
    return first.sort("label", maintain_order=True).head(MOST)


def _pass(shards: Shards, signers: Mapping[str, Signer], chosen: set[str]) -> Seen:
    """Read every shard once, a row group at a time."""
    seen = Seen()
    for split, batch in track(_batches(shards), _batch_count(shards), "inspect"):
        seen.clip_ids += batch.clip_ids
        seen.splits += [split] * len(batch)
        for name, signer in signers.items():
            signer.add(batch.clip_ids, batch.inputs[name])
        for place, clip_id in enumerate(batch.clip_ids):
            if clip_id in chosen:
                # Copied, so that the batch itself can be freed.
                seen.tensors[clip_id] = {name: tensor[place].numpy().copy() for name, tensor in batch.inputs.items()}
    return seen


def _batches(shards: Shards) -> Iterator[tuple[str, StoredBatch]]:
    for split in SPLITS:
        for batch in shards.batches(split, BATCH):
            yield split, batch


def _batch_count(shards: Shards) -> int:
    return sum(math.ceil(shards.rows(split) / BATCH) for split in SPLITS)


def _draw(params: Params, shards: Shards, chosen: pl.DataFrame, seen: Seen, target: Path) -> list[dict[str, Any]]:
    """Draw the chosen clips, and return their texts: the page shows them too, and a browser has more fonts."""
    from agm.pipeline.steps.inspect import sheet  # here, because matplotlib takes long to import

    drawn, texts = [], []
    for clip in chosen.iter_rows(named=True):
        clip_id = clip["clip_id"]
        tensors = seen.tensors[clip_id]
        by_modality = transcripts(params, clip, tensors, shards.features)
        drawn.append(sheet.Shown(clip_id, clip["split"], clip["label_name"], clip["duration"], tensors, by_modality))
        for name, text in by_modality.items():
            texts.append({"clip_id": clip_id, "modality": name, "person": text.person, "network": text.network})
    sheet.draw(drawn, shards.features, target)
    return texts


def _balance(clips: pl.DataFrame, classes: list[str]) -> dict[str, int]:
    """The number of clips of each class."""
    counts = dict(clips.group_by("label_name").len().iter_rows())
    return {name: counts.get(name, 0) for name in classes}


def durations(clips: pl.DataFrame) -> dict[str, Any] | None:
    """A histogram of the clips' seconds for each split, over the same bins; None where no clip has a duration."""
    known = clips.drop_nulls("duration")
    if not len(known):
        return None
    edges = np.histogram_bin_edges(known["duration"], BINS)
    counts = {}
    for split in SPLITS:
        of_split, _ = np.histogram(known.filter(split=split)["duration"], edges)
        counts[split] = of_split.tolist()
    return {"edges": edges.round(4).tolist(), "splits": counts}
