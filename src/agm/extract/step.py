"""Turn one part of one modality into tensors: agm extract MODALITY PART

Reads    data/<data set>/manifest.parquet and, below dataset.root, the files of the part's clips
Writes   data/<data set>/features/<modality>/part-<part>.parquet: clip_id, tensor
         data/<data set>/features/<modality>/part-<part>.json: what the tensors are, and the clips that failed

A part is a contiguous slice of the manifest, so that a cluster can fan out; its order is kept. A clip that cannot be
decoded is listed with the reason and left out; only a part of which nothing can be used stops the run. The
vocabulary of a text modality is built on all training clips, whichever part is extracted.
"""

from collections.abc import Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from agm import files, limits, packed, tensors
from agm.config import Params
from agm.config.schema import Dataset, Limits
from agm.errors import AgmError
from agm.extract.pretrained import Finish
from agm.extract.recipe import Load, Recipe, recipe
from agm.graph import Job
from agm.media import Unusable, warnings_named
from agm.parallel import parallel_map
from agm.progress import say, track
from agm.source import Source
from agm.tensors import Feature

ROW_GROUP_BYTES = 16 << 20
MOST_ROWS = 256

# Clips that a network is given at once, as far as they are of one shape.
BATCH = 16
CONSTANT = "all numbers are equal (dataset.skip)"


def run(params: Params, job: Job) -> dict[str, Any]:
    """Extract one part.

    Raises:
        AgmError: when the part has clips and none of them can be used.
    """
    modality, part = job.cell[0], int(job.cell[1])
    clips = _clips(job, modality)
    root = Path(params.dataset.root)
    chosen = clips[len(clips) * part // len(params.parts) : len(clips) * (part + 1) // len(params.parts)]
    sources = list(_sources(chosen, root))
    training = _sources(clips.filter(split="train"), root)
    with limits.under(params.dataset.limits, memory=False):  # the texts that vocabularies are made of
        found = recipe(params.features[modality], f"features.{modality}", training, sources)
    rejected: list[dict[str, Any]] = []
    with files.replacing(job.outputs[0]) as temporary:
        results = _results(sources, found, params.dataset, f"extract {modality} {part}")
        rows = _write(temporary, _usable(chosen, results, modality, rejected), found.feature)
        if rejected and not rows:
            raise AgmError(
                f"Not one of {len(rejected)} clips can be used; the first because: {rejected[0]['reason']}",
                where=root / (rejected[0]["path"] or ""),
                fix=f"see dataset.root and dataset.modalities.{modality} in params.yaml",
            )
    if rejected:
        say(f"extract {modality} {part}: {len(rejected)} clips left out, the first: {rejected[0]['reason']}")
    return {
        "feature": {
            "kind": found.feature.kind,
            "dtype": found.feature.dtype,
            "shape": list(found.feature.shape),
            "vocabulary": found.feature.vocabulary if found.vocabulary is None else found.vocabulary,
        },
        "pretrained": found.pretrained and files.digest(found.pretrained),
        "rows": rows,
        "rejected": rejected,
        "sha256": files.checksums(job.outputs[0].parent, [job.outputs[0].name]),
    }


def _clips(job: Job, modality: str) -> pl.DataFrame:
    """The manifest's clips with columns clip_id, split, source."""
    (index,), (manifest,) = job.inputs, job.data
    files.read_index(index, "agm ingest", manifest.name)
    return pl.read_parquet(manifest).select("clip_id", "split", source=modality)


def _sources(clips: pl.DataFrame, root: Path) -> Iterator[Source]:
    """Made one by one: all training clips are looked at for a vocabulary only."""
    return (Source(**each).below(root) for each in clips["source"])


def _results(sources: list[Source], found: Recipe, dataset: Dataset, label: str) -> Iterator[np.ndarray | str]:
    """For each clip its tensor, or the reason why there is none."""
    attempt = partial(_attempt, load=found.load, most=dataset.limits, skip="constant" in dataset.skip)
    if any(map(packed.in_pickle, sources)):
        return track(map(attempt, sources), len(sources), label)
    if found.finish is None:
        return parallel_map(attempt, sources, label, died=_fatal)
    # One at a time: what a network reads is often larger than what is kept, and waits until it is its turn.
    return _finished(parallel_map(attempt, sources, label, chunk=1, died=_fatal), found.finish)


def _finished(results: Iterator[np.ndarray | str], finish: Finish) -> Iterator[np.ndarray | str]:
    """What `finish` makes of the tensors among the results, a batch at a time."""
    while batch := list(islice(results, BATCH)):
        tensors = [each for each in batch if not isinstance(each, str)]
        made = iter(finish(tensors) if tensors else [])
        yield from (each if isinstance(each, str) else _finite(next(made)) for each in batch)


def _finite(tensor: np.ndarray) -> np.ndarray | str:
    return tensor if np.isfinite(tensor).all() else "the pretrained network makes of it a number that is not finite"


def _fatal(source: Source) -> str:
    return "the decoder crashed on the file, or memory ran out"


def _attempt(source: Source, load: Load, most: Limits, skip: bool = False) -> np.ndarray | str:
    """The tensor of one clip, or the reason why there is none.

    Args:
        skip: whether constant arrays are skipped. `agm ingest` has looked at them, but not into files of many clips.
    """
    try:
        with warnings_named(source.path), limits.under(most, memory=not packed.in_pickle(source)):
            tensor = load(source)
        return CONSTANT if skip and source.member is not None and _constant(tensor) else tensor
    except Unusable as error:
        return str(error)
    except OSError as error:
        return f"the file cannot be read: {error.strerror or error}"
    except Exception as error:  # whatever a broken file makes of a decoder costs this clip, not the run
        return f"the file cannot be decoded: {type(error).__name__}: {error}"


def _constant(tensor: np.ndarray) -> bool:
    """Whether all numbers of an array [steps or channels, …] are equal, padding aside."""
    filled = tensor[tensor.reshape(len(tensor), -1).any(axis=1)]
    return filled.size == 0 or filled.min() == filled.max()


def _usable(
    clips: pl.DataFrame, results: Iterator[np.ndarray | str], modality: str, rejected: list[dict[str, Any]]
) -> Iterator[tuple[str, np.ndarray]]:
    """Yield (clip id, tensor) of the clips that have one; append the others to `rejected`."""
    for clip, result in zip(clips.iter_rows(named=True), results, strict=True):
        if isinstance(result, str):
            about = {"modality": modality, "step": "extract", "reason": result, "path": clip["source"]["path"]}
            rejected.append({"clip_id": clip["clip_id"], "split": clip["split"], **about})
        else:
            yield clip["clip_id"], result


def _write(path: Path, rows: Iterator[tuple[str, np.ndarray]], feature: Feature) -> int:
    """Write (clip id, tensor) in row groups of bounded size, and return how many there were."""
    layout = tensors.schema({"clip_id": pa.string()}, {"tensor": feature})
    most = max(1, min(MOST_ROWS, ROW_GROUP_BYTES // feature.nbytes))
    names: list[str] = []
    held = np.empty((most, *feature.shape), feature.dtype)
    count = 0
    with tensors.writer(path, layout) as file:
        for name, tensor in rows:
            held[len(names)] = tensor
            names.append(name)
            if len(names) == most:
                count += _flush(file, names, held, feature)
        if names:
            count += _flush(file, names, held, feature)
    return count


def _flush(file: Any, names: list[str], held: np.ndarray, feature: Feature) -> int:
    """Write one row group and empty `names`."""
    count = len(names)
    file.write_table(pa.table([pa.array(names), tensors.encode(held[:count], feature)], schema=file.schema))
    names.clear()
    return count
