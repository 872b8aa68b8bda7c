"""One clip: what the networks see of it, where it comes from, and whether it is in quarantine."""

from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow.parquet as pq

from agm.pipeline.config import Params
from agm.pipeline.dag.graph import Graph
from agm.pipeline.errors import AgmError
from agm.pipeline.io import tensors
from agm.pipeline.io.files import read_index
from agm.pipeline.io.source import Source
from agm.pipeline.io.tensors import Feature
from agm.pipeline.runtime.progress import show
from agm.pipeline.steps.inspect.duplicates import EVERY
from agm.pipeline.steps.inspect.transcript import transcripts

FOLDER = Path("inspected")
SCALE = 2.0


def inspect(params: Params, clip_id: str) -> None:
    """Print what is known about a clip, and draw it, if any of its modalities could be extracted.

    Raises:
        AgmError: when the data set has no such clip, its shards are not made yet, or a file is damaged.
    """
    graph = Graph(params)
    _check_tables(graph)
    shard = graph.job("shard")
    shards = read_index(shard.index, shard.command)
    clip = _annotated(graph, clip_id)
    for name, value in facts(graph, clip):
        show(f"{name:<12}{value}")
    features = {name: Feature.from_json(feature) for name, feature in shards["features"].items()}
    tensors_of_clip = _tensors(params, clip_id, features)
    if not tensors_of_clip:
        show(f"{'picture':<12}none: nothing of the clip was extracted")
        return
    # Here, because matplotlib takes long to import and nothing above needs it.
    from agm.pipeline.steps.inspect import sheet

    texts = transcripts(params, clip, tensors_of_clip, features)
    target = FOLDER / f"{clip_id}.png"
    drawn = sheet.Shown(clip_id, clip["split"] or "", clip["label"], clip["duration"], tensors_of_clip, texts)
    sheet.draw([drawn], features, target, SCALE)
    show(f"{'picture':<12}{target}")


def _check_tables(graph: Graph) -> None:
    """Check the tables that the facts come from; the table of duplicates only where `agm inspect` has run."""
    steps = ["list", "ingest"]
    if graph.job("inspect").index.exists():
        steps.append("inspect")
    for step in steps:
        job = graph.job(step)
        read_index(job.index, job.command)


def _annotated(graph: Graph, clip_id: str) -> dict[str, Any]:
    """The annotations of a clip; for a clip that is used, also its split, duration and flaws from the manifest."""
    path = graph.data / "clips.parquet"
    annotations = pl.read_parquet(path).filter(clip_id=clip_id).to_dicts()
    if not annotations:
        examples = ", ".join(pl.read_parquet(path, columns=["clip_id"], n_rows=3)["clip_id"])
        raise AgmError(
            f"The data set {graph.params.dataset.name} has no clip {clip_id!r}",
            where=path,
            fix=f"its clips are called {examples}, …; for another data set: `agm compose`",
        )
    clip = annotations[0]
    used = pl.read_parquet(graph.data / "manifest.parquet").filter(clip_id=clip_id).to_dicts()
    if not used:
        return clip | {"duration": None, "flaws": {}}
    return clip | {key: used[0][key] for key in ("split", "duration", "flaws")}


def facts(graph: Graph, clip: dict[str, Any]) -> list[tuple[str, str]]:
    """What is known about the clip: pairs of a name and a value."""
    clip_id = clip["clip_id"]
    quarantined = pl.read_parquet(graph.data / "quarantine.parquet").filter(clip_id=clip_id).to_dicts()
    split = clip["split"] or None
    if split is None and quarantined:
        split = quarantined[0]["split"]
    rows = [("clip", clip_id), ("label", clip["label"]), ("split", split), ("group", clip["group"])]
    if clip["duration"] is not None:
        rows.append(("seconds", f"{clip['duration']:.2f}"))
    for name in graph.params.dataset.modalities:
        rows.append((name, _place(clip[name])))
    for name, flaw in clip["flaws"].items():
        if flaw:
            rows.append(("shows", f"{name}: {flaw}"))
    for entry in quarantined:
        rows.append(("quarantined", f"by {entry['step']}, {entry['modality'] or 'clip'}: {entry['reason']}"))
    for other in _duplicates(graph.data / "duplicates.parquet", clip_id):
        rows.append(("looks like", other))
    return [(name, value) for name, value in rows if value is not None]


def _place(source: dict[str, Any] | None) -> str:
    """Where a modality is stored, in words."""
    if source is None:
        return "the clip has none"
    where = Source(**source)
    if where.text is not None:
        return repr(where.text)
    details = []
    if where.member:
        details.append(where.member)
    if where.start is not None or where.end is not None:
        end = "the end" if where.end is None else f"{where.end:g} s"
        details.append(f"{where.start or 0:g} s to {end}")
    if where.half:
        details.append(f"{where.half} half")
    return f"{where.path} ({', '.join(details)})" if details else str(where.path)


def _duplicates(path: Path, clip_id: str) -> list[str]:
    """The clips of other splits that look the same; empty where `agm inspect` has not looked for them yet."""
    if not path.exists():
        return []
    pairs = pl.read_parquet(path)
    # The table has each pair once: the clip stands on either side of it.
    left = pairs.filter(clip_id=clip_id).select("like", "like_split", "modality", "similarity")
    right = pairs.filter(like=clip_id).select("clip_id", "split", "modality", "similarity")
    lines = []
    for other, split, modality, similarity in (*left.iter_rows(), *right.iter_rows()):
        where = "every modality" if modality == EVERY else modality
        lines.append(f"{other} of {split} in {where} ({similarity:.4f})")
    return lines


def _tensors(params: Params, clip_id: str, features: dict[str, Feature]) -> dict[str, np.ndarray]:
    """The clip's tensor of each modality that was extracted, also where another modality is missing."""
    graph = Graph(params)
    by_modality = {}
    for name, part in product(features, range(params.num_parts)):
        job = graph.job("extract", name, part)
        path = job.outputs[0]
        if not path.exists():
            continue
        tensor = _tensor(path, clip_id, features[name])
        if tensor is not None:
            # Only this part is checked: to read all parts whole for one clip would take too long.
            read_index(job.index, job.command)
            by_modality[name] = tensor
    return by_modality


def _tensor(path: Path, clip_id: str, feature: Feature) -> np.ndarray | None:
    """The clip's tensor in one part of the features; None where the part does not have the clip."""
    with pq.ParquetFile(path, memory_map=True) as file:
        for group in range(file.num_row_groups):
            clip_ids = file.read_row_group(group, ["clip_id"])["clip_id"].to_pylist()
            if clip_id in clip_ids:
                table = file.read_row_group(group, ["tensor"], use_threads=False)
                return tensors.decode(table["tensor"], feature)[clip_ids.index(clip_id)]
    return None
