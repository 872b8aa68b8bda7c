"""See the data: agm inspect, or agm inspect CLIP for one clip

Reads    data/<data set>/manifest.*, shards.json, shards and, for the words of texts, the features' indexes
Writes   data/<data set>/contact_sheet.png: the first clips of each class, as the networks see them
         data/<data set>/duplicates.parquet: clips of one split that look the same as a clip of an earlier one, in one
         modality or in every one: modality, clip_id, split, like, like_split, similarity (1: equal tensors
         or texts)
         data/<data set>/inspection.json: clips per split and class, a histogram of durations, what leaks between the
         splits (shared groups, and clips that two splits have in every modality), the flaws that `agm ingest` found,
         of each modality how many tensors are blank: those show nothing to a network, and the texts of the contact
         sheet

With the id of a clip, writes inspected/<clip>.png instead, and prints where the clip comes from, its label and split,
which clips look the same, and whether it was quarantined, and why. The name of the data set stands for all of it.

Equal sounds or texts alone are common and harmless: a finding is what agrees in every modality. A clip that begins
elsewhere in the same recording, or that shows another part of the picture, is not found.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl

from agm.pipeline.config import Params
from agm.pipeline.dag.graph import Graph, Job
from agm.pipeline.io.files import checksums, read_index, write_parquet
from agm.pipeline.io.tables import SPLITS
from agm.pipeline.runtime.progress import say, track
from agm.pipeline.steps.inspect.duplicates import duplicates, findings, summary
from agm.pipeline.steps.inspect.signature import Signer
from agm.pipeline.steps.inspect.transcript import transcripts
from agm.pipeline.steps.shard.stream import Shards

BATCH = 16
MOST = 12
"""Clips on the contact sheet."""
BINS = 24


@dataclass
class Seen:
    """What one pass through the shards gathers: of every clip a little, of the chosen ones the tensors."""

    clip_ids: list[str] = field(default_factory=list)
    splits: list[str] = field(default_factory=list)
    tensors: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)


def run(params: Params, job: Job) -> dict[str, Any]:
    """Write the outputs of `job`.

    Returns:
        Clips per split and class, durations, leaks, how many clips splits have in common, flaws, and checksums.

    Raises:
        AgmError: when something that it reads is damaged.
    """
    sheet, pairs = job.outputs
    graph = Graph(params)
    shards = Shards.open(graph.data)
    ingest, shard = graph.job("ingest"), graph.job("shard")
    manifest = read_index(ingest.index, ingest.command, "manifest.parquet")
    read_index(shard.index, shard.command)
    clips = _used(graph)
    chosen = choose(clips)
    signers = {name: Signer(each, _texts(params, clips, name)) for name, each in shards.features.items()}
    seen = _pass(shards, signers, set(chosen["clip_id"]))
    signatures = {name: each.signatures() for name, each in signers.items()}
    found = duplicates(seen.clip_ids, seen.splits, signatures)
    write_parquet(pairs, found)
    texts = _draw(params, shards, chosen, seen, sheet)
    leaks = [*manifest["leaks"], *findings(found)]
    blank = {name: int(each.blank.sum()) for name, each in signatures.items() if not _is_text(params, name)}
    shown = [f"{name}: the tensors of {number} clips show nothing" for name, number in blank.items() if number]
    for line in (*leaks, *shown, f"inspect: {len(clips)} clips, {len(leaks)} leaks found"):
        say(line)
    return {
        "clips": {split: _balance(clips.filter(split=split), shards.classes) for split in SPLITS},
        "durations": durations(clips),
        "leaks": leaks,
        "texts": texts,
        "duplicates": summary(found, list(shards.features)),
        "flaws": manifest["flaws"],
        "blank": blank,
        "sha256": checksums(graph.data, [sheet.name, pairs.name]),
    }


def _used(graph: Graph) -> pl.DataFrame:
    """The manifest's clips that are in the shards, in its order."""
    quarantined = pl.read_parquet(graph.data / "quarantine.parquet", columns=["clip_id"])
    return pl.read_parquet(graph.data / "manifest.parquet").join(
        quarantined, on="clip_id", how="anti", maintain_order="left"
    )


def _is_text(params: Params, modality: str) -> bool:
    return params.dataset.modalities[modality].kind == "text"


def _texts(params: Params, clips: pl.DataFrame, modality: str) -> dict[str, str] | None:
    """Clip id → what is equal for equal texts; None where the modality is no text."""
    if not _is_text(params, modality):
        return None
    return dict(clips.select("clip_id", pl.col("texts").struct[modality]).iter_rows())


def choose(clips: pl.DataFrame) -> pl.DataFrame:
    """The clips for the sheet: of few classes the first two of each, of many the first one of the first classes."""
    classes = clips["label"].n_unique()
    each = 2 if 2 * classes <= MOST else 1
    first = clips.filter(pl.int_range(pl.len()).over("label") < each)
    return first.sort("label", maintain_order=True).head(MOST)


def _pass(shards: Shards, signers: Mapping[str, Signer], chosen: set[str]) -> Seen:
    """Read every shard once, a row group at a time."""
    seen = Seen()
    batches = ((split, batch) for split in SPLITS for batch in shards.batches(split, BATCH))
    for split, batch in track(batches, sum(-(-shards.rows(split) // BATCH) for split in SPLITS), "inspect"):
        seen.clip_ids += batch.clip_ids
        seen.splits += [split] * len(batch)
        for name, signer in signers.items():
            signer.add(batch.clip_ids, batch.inputs[name])
        for place, clip_id in enumerate(batch.clip_ids):
            if clip_id in chosen:
                seen.tensors[clip_id] = {name: each[place].numpy().copy() for name, each in batch.inputs.items()}
    return seen


def _draw(params: Params, shards: Shards, chosen: pl.DataFrame, seen: Seen, target: Any) -> list[dict[str, Any]]:
    """Draw the chosen clips, and return their texts, which a browser has more fonts for."""
    from agm.pipeline.steps.inspect import sheet  # matplotlib: not for the help

    shown = []
    for clip in chosen.iter_rows(named=True):
        tensors = seen.tensors[clip["clip_id"]]
        texts = transcripts(params, clip, tensors, shards.features)
        about = (clip[key] for key in ("clip_id", "split", "label_name", "duration"))
        shown.append(sheet.Shown(*about, tensors, texts))
    sheet.draw(shown, shards.features, target)
    return [
        {"clip_id": clip.clip_id, "modality": name, "person": text.person, "network": text.network}
        for clip in shown
        for name, text in clip.texts.items()
    ]


def _balance(clips: pl.DataFrame, classes: list[str]) -> dict[str, int]:
    found = dict(clips.group_by("label_name").len().iter_rows())
    return {name: found.get(name, 0) for name in classes}


def durations(clips: pl.DataFrame) -> dict[str, Any] | None:
    """A histogram of the clips' seconds for each split, over the same bins; None where no clip has any."""
    known = clips.drop_nulls("duration")
    if not len(known):
        return None
    edges = np.histogram_bin_edges(known["duration"], BINS)
    counts = {split: np.histogram(known.filter(split=split)["duration"], edges)[0].tolist() for split in SPLITS}
    return {"edges": edges.round(4).tolist(), "splits": counts}
