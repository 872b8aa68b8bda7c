"""One clip: what it looks like to the networks, where it comes from, and what became of it."""

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
from agm.pipeline.steps.inspect.transcript import transcripts

FOLDER = Path("inspected")
SCALE = 2.0


def inspect(params: Params, clip_id: str) -> None:
    """Print what is known of a clip and write its picture, if any of its modalities could be extracted.

    Raises:
        AgmError: when the data set has no such clip, its shards are not made yet, or something read is damaged.
    """
    graph = Graph(params)
    shard = graph.job("shard")
    for step in ("list", "ingest", *(["inspect"] if graph.job("inspect").index.exists() else [])):
        job = graph.job(step)
        read_index(job.index, job.command)
    described = read_index(shard.index, shard.command)["features"]
    clip = _known(graph, clip_id)
    for name, value in facts(graph, clip):
        show(f"{name:<12}{value}")
    features = {name: Feature.from_json(each) for name, each in described.items()}
    found = _tensors(params, clip_id, features)
    if not found:
        show(f"{'picture':<12}none: nothing of the clip was extracted")
        return
    from agm.pipeline.steps.inspect import sheet

    texts = transcripts(params, clip, found, features)
    target = FOLDER / f"{clip_id}.png"
    shown = sheet.Shown(clip_id, clip["split"] or "", clip["label"], clip["duration"], found, texts)
    sheet.draw([shown], features, target, SCALE)
    show(f"{'picture':<12}{target}")


def _known(graph: Graph, clip_id: str) -> dict[str, Any]:
    """What the annotations say of the clip; where it was used, the manifest's split, duration and flaws."""
    path = graph.data / "clips.parquet"
    named = pl.read_parquet(path).filter(clip_id=clip_id)
    if not len(named):
        some = ", ".join(pl.read_parquet(path, columns=["clip_id"], n_rows=3)["clip_id"])
        raise AgmError(
            f"The data set {graph.params.dataset.name} has no clip {clip_id!r}",
            where=path,
            fix=f"its clips are called {some}, …; for another data set: `agm compose`",
        )
    used = pl.read_parquet(graph.data / "manifest.parquet").filter(clip_id=clip_id).to_dicts()
    more = {key: used[0][key] for key in ("split", "duration", "flaws")} if used else {"duration": None, "flaws": {}}
    return named.to_dicts()[0] | more


def facts(graph: Graph, clip: dict[str, Any]) -> list[tuple[str, str]]:
    """What is known of the clip, by name."""
    clip_id = clip["clip_id"]
    quarantined = pl.read_parquet(graph.data / "quarantine.parquet").filter(clip_id=clip_id).to_dicts()
    split = clip["split"] or next((each["split"] for each in quarantined), None)
    found = [("clip", clip_id), ("label", clip["label"]), ("split", split)]
    found += [("group", clip["group"]), ("seconds", None if clip["duration"] is None else f"{clip['duration']:.2f}")]
    found += [(name, _place(clip[name])) for name in graph.params.dataset.modalities]
    found += [("shows", f"{name}: {flaw}") for name, flaw in clip["flaws"].items() if flaw]
    for each in quarantined:
        found.append(("quarantined", f"by {each['step']}, {each['modality'] or 'clip'}: {each['reason']}"))
    found += [("looks like", each) for each in _alike(graph.data / "duplicates.parquet", clip_id)]
    return [(name, value) for name, value in found if value is not None]


def _place(source: dict[str, Any] | None) -> str:
    """Where a modality lies, in words."""
    if source is None:
        return "the clip has none"
    where = Source(**source)
    if where.text is not None:
        return repr(where.text)
    seconds = f"{where.start or 0:g} s to {'the end' if where.end is None else f'{where.end:g} s'}"
    parts = [where.member, seconds if where.start is not None or where.end is not None else None]
    parts += [f"{where.half} half" if where.half else None]
    more = ", ".join(filter(None, parts))
    return f"{where.path} ({more})" if more else str(where.path)


def _alike(path: Path, clip_id: str) -> list[str]:
    """The clips of other splits that look the same, where `agm inspect` has looked for them."""
    if not path.exists():
        return []
    pairs = pl.read_parquet(path)
    there = pairs.filter(clip_id=clip_id).select("like", "like_split", "modality", "similarity")
    back = pairs.filter(like=clip_id).select("clip_id", "split", "modality", "similarity")
    return [
        f"{other} of {split} in {modality}{' modality' if modality == 'every' else ''} ({similarity:.4f})"
        for other, split, modality, similarity in (*there.iter_rows(), *back.iter_rows())
    ]


def _tensors(params: Params, clip_id: str, features: dict[str, Feature]) -> dict[str, np.ndarray]:
    """The clip's tensor of each modality that was extracted from it: also of clips that lack another one."""
    graph = Graph(params)
    found = {}
    for name, part in product(features, range(params.num_parts)):
        job = graph.job("extract", name, part)
        path = job.outputs[0]
        if path.exists() and (tensor := _tensor(path, clip_id, features[name])) is not None:
            # Only now: to read all parts whole for one clip would take too long.
            read_index(job.index, job.command)
            found[name] = tensor
    return found


def _tensor(path: Path, clip_id: str, feature: Feature) -> np.ndarray | None:
    """The clip's tensor in one part of the features, or None where it is not there."""
    with pq.ParquetFile(path, memory_map=True) as file:
        for group in range(file.num_row_groups):
            names = file.read_row_group(group, ["clip_id"])["clip_id"].to_pylist()
            if clip_id in names:
                table = file.read_row_group(group, ["tensor"], use_threads=False)
                return tensors.decode(table["tensor"], feature)[names.index(clip_id)]
    return None
