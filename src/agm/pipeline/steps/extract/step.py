"""Turn one part of one modality into tensors: agm extract MODALITY PART

Reads    data/<data set>/manifest.parquet and, below dataset.root, the files of the part's clips
Writes   data/<data set>/features/<modality>/part-<part>.parquet: clip_id, tensor, where the clip comes from (source),
         and the checksum of that file (content)
         data/<data set>/features/<modality>/part-<part>.json: what the tensors are, and the clips that failed

A part is a contiguous slice of the manifest, so that a cluster can fan out; its order is kept. A clip that cannot be
decoded is quarantined with the reason; only a part of which nothing can be used stops the run. The
vocabulary of a text modality is built on all training clips, whichever part is extracted. Clips of which a result in
the store (`agm.pipeline.dag.store`) has the tensor, of the same content by the same recipe, are not decoded again.
"""

import hashlib
import json
from collections.abc import Iterator
from functools import lru_cache, partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from agm.extras import MissingExtra
from agm.pipeline.config import Params
from agm.pipeline.config.schema import Dataset, Limits
from agm.pipeline.dag import code, store
from agm.pipeline.dag.graph import Graph, Job
from agm.pipeline.errors import AgmError
from agm.pipeline.io import files, limits, packed, tensors
from agm.pipeline.io.media import Unusable, warnings_named
from agm.pipeline.io.source import Source
from agm.pipeline.io.tensors import Feature
from agm.pipeline.runtime.parallel import parallel_map
from agm.pipeline.runtime.progress import say, track
from agm.pipeline.steps.extract import kept
from agm.pipeline.steps.extract.kept import Result
from agm.pipeline.steps.extract.pretrained import Finish
from agm.pipeline.steps.extract.recipe import Load, Recipe, recipe
from agm.pipeline.steps.ingest.raw import ABSENT, ask, identities

ROW_GROUP_BYTES = 16 << 20
MOST_ROWS = 256

# Clips that a network is given at once, as far as they are of one shape.
BATCH = 16
CONSTANT = "all numbers are equal (dataset.quarantine)"

Row = tuple[str, str, str, np.ndarray]
"""What is written of a clip: its id, its source's key, its file's checksum, its tensor."""


def run(params: Params, job: Job) -> dict[str, Any]:
    """Extract one part.

    Raises:
        AgmError: when the part has clips and none of them can be used.
    """
    modality, part = job.cell[0], int(job.cell[1])
    clips = _clips(job, modality)
    root = Path(params.dataset.root)
    first, last = (len(clips) * number // params.num_parts for number in (part, part + 1))
    chosen = clips[first:last]
    sources = [Source(**each) for each in chosen["source"]]
    _check_unchanged(params, sources)
    training = (Source(**each).below(root) for each in clips.filter(split="train")["source"])
    with limits.under(params.dataset.limits, memory=False):  # the texts that vocabularies are made of
        settings, key = params.features[modality], f"features.{modality}"
        found = recipe(settings, key, training, [each.below(root) for each in sources])
    pretrained = found.pretrained and files.digest(found.pretrained)
    identity = _identity(params, modality, found, pretrained)
    rejected: list[dict[str, Any]] = []
    with kept.taken(modality, identity, found.feature, [each.key for each in sources]) as before:
        new = [each.below(root) for number, each in enumerate(sources) if number not in before]
        if len(before):
            say(f"{job.command}: {len(before)} of {len(sources)} clips are taken from {store.STORE}")
        results = before.merged(_results(new, found, params.dataset, f"extract {modality} {part}"), len(sources))
        with files.replacing(job.outputs[0]) as temporary:
            rows = _write(temporary, _usable(chosen, sources, results, modality, rejected), found.feature)
            if rejected and not rows:
                raise AgmError(
                    f"Not one of {len(rejected)} clips can be used; the first because: {rejected[0]['reason']}",
                    where=root / (rejected[0]["path"] or ""),
                    fix=f"see dataset.root and dataset.modalities.{modality} in params.yaml",
                )
    if rejected:
        say(f"extract {modality} {part}: {len(rejected)} clips quarantined, the first: {rejected[0]['reason']}")
    return {
        "feature": {
            "kind": found.feature.kind,
            "dtype": found.feature.dtype,
            "shape": list(found.feature.shape),
            "vocabulary": found.feature.vocabulary if found.vocabulary is None else found.vocabulary,
        },
        "pretrained": pretrained,
        "recipe": identity,
        "rows": rows,
        "rejected": rejected,
        "sha256": files.checksums(job.outputs[0].parent, [job.outputs[0].name]),
    }


def _identity(params: Params, modality: str, found: Recipe, pretrained: str | None) -> str:
    """Checksum of all that makes a tensor of a clip's content."""
    ingredients = {
        "kind": params.dataset.modalities[modality].kind,
        "features": params.features[modality].model_dump(mode="json"),
        "limits": params.dataset.limits.model_dump(mode="json"),
        "quarantine": params.dataset.quarantine,
        "feature": found.feature.to_json(),
        "vocabulary": found.vocabulary,
        "pretrained": pretrained,
        "code": code.fingerprint("extract"),
        "libraries": code.versions("extract"),
    }
    return hashlib.sha256(json.dumps(ingredients, sort_keys=True).encode()).hexdigest()


def _check_unchanged(params: Params, sources: list[Source]) -> None:
    """Refuse files that are not those on record.

    Raises:
        AgmError: naming the first.
    """
    listed = {each.path: each.identity for each in sources if each.path is not None}
    seen = ask(params.dataset, sorted(listed))
    there = {path: ABSENT if isinstance(each, str) else each for path, each in seen.items()}
    found = identities(Graph(params), params.dataset, there)
    # Why one that is gone or cannot be reached has no tensor, is said clip by clip.
    changed = [path for path, each in found.items() if each is not None and each != listed[path]]
    if changed:
        raise AgmError(
            f"Raw files have changed since they were listed: {len(changed)}, the first is {changed[0]}",
            where=params.dataset.root,
            fix="run `snakemake`, or `agm check` and `dvc repro`",
        )


def _clips(job: Job, modality: str) -> pl.DataFrame:
    """The manifest's clips with columns clip_id, split, source."""
    (index,), (manifest,) = job.inputs, job.data
    files.read_index(index, "agm ingest", manifest.name)
    return pl.read_parquet(manifest).select("clip_id", "split", source=modality)


def _results(sources: list[Source], found: Recipe, dataset: Dataset, label: str) -> Iterator[Result]:
    """For each clip its tensor, or the reason why there is none, and its file's checksum."""
    attempt = partial(_attempt, load=found.load, most=dataset.limits, refuse_constant="constant" in dataset.quarantine)
    if any(map(packed.in_pickle, sources)):
        return track(map(attempt, sources), len(sources), label)
    if found.finish is None:
        return parallel_map(attempt, sources, label, died=_fatal)
    # One at a time: what a network reads is often larger than what is kept, and waits until it is its turn.
    return _finished(parallel_map(attempt, sources, label, chunk=1, died=_fatal), found.finish)


def _finished(results: Iterator[Result], finish: Finish) -> Iterator[Result]:
    """What `finish` makes of the tensors among the results, a batch at a time."""
    while batch := list(islice(results, BATCH)):
        tensors = [tensor for tensor, _ in batch if not isinstance(tensor, str)]
        made = iter(finish(tensors) if tensors else [])
        for tensor, content in batch:
            yield tensor if isinstance(tensor, str) else _finite(next(made)), content


def _finite(tensor: np.ndarray) -> np.ndarray | str:
    return tensor if np.isfinite(tensor).all() else "the pretrained network makes of it a number that is not finite"


def _fatal(source: Source) -> Result:
    return "the decoder crashed on the file, or memory ran out", ""


def _attempt(source: Source, load: Load, most: Limits, refuse_constant: bool = False) -> Result:
    """The tensor of one clip, or the reason why there is none, and the checksum of its file.

    Args:
        refuse_constant: whether constant arrays are quarantined. `agm ingest` has looked at them, but not into files of
            many clips.
    """
    tensor = _tensor(source, load, most, refuse_constant)
    try:
        return tensor, _content(source.path) if source.path is not None else ""
    except OSError:
        return tensor, ""  # there is no tensor either


@lru_cache(maxsize=8)  # of a file of many clips
def _content(path: str) -> str:
    return files.sha256(Path(path))


def _tensor(source: Source, load: Load, most: Limits, refuse_constant: bool) -> np.ndarray | str:
    try:
        with warnings_named(source.path), limits.under(most, memory=not packed.in_pickle(source)):
            tensor = load(source)
        return CONSTANT if refuse_constant and source.member is not None and _constant(tensor) else tensor
    except Unusable as error:
        return str(error)
    except OSError as error:
        return f"the file cannot be read: {error.strerror or error}"
    except MissingExtra:
        raise  # no clip can be read without the package
    # Whatever a decoder does with a broken file quarantines this clip, and does not end the run.
    except Exception as error:
        return f"the file cannot be decoded: {type(error).__name__}: {error}"


def _constant(tensor: np.ndarray) -> bool:
    """Whether all numbers of an array [steps or channels, …] are equal, padding aside."""
    filled = tensor[tensor.reshape(len(tensor), -1).any(axis=1)]
    return filled.size == 0 or filled.min() == filled.max()


def _usable(
    clips: pl.DataFrame,
    sources: list[Source],
    results: Iterator[Result],
    modality: str,
    rejected: list[dict[str, Any]],
) -> Iterator[Row]:
    """Yield the rows of the clips that have a tensor; append the others to `rejected`."""
    names = zip(clips["clip_id"], clips["split"], sources, strict=True)
    for (clip_id, split, source), (result, content) in zip(names, results, strict=True):
        if isinstance(result, str):
            about = {"modality": modality, "step": "extract", "reason": result, "path": source.path}
            rejected.append({"clip_id": clip_id, "split": split, **about})
        else:
            yield clip_id, source.key, content, result


def _write(path: Path, rows: Iterator[Row], feature: Feature) -> int:
    """Write rows in row groups of bounded size, and return how many there were."""
    layout = tensors.schema(dict.fromkeys(kept.COLUMNS, pa.string()), {"tensor": feature})
    most = max(1, min(MOST_ROWS, ROW_GROUP_BYTES // feature.nbytes))
    names: list[tuple[str, str, str]] = []
    held = np.empty((most, *feature.shape), feature.dtype)
    count = 0
    with tensors.writer(path, layout) as file:
        for *name, tensor in rows:
            held[len(names)] = tensor
            names.append(name)
            if len(names) == most:
                count += _flush(file, names, held, feature)
        if names:
            count += _flush(file, names, held, feature)
    return count


def _flush(file: Any, names: list[tuple[str, str, str]], held: np.ndarray, feature: Feature) -> int:
    """Write one row group and empty `names`."""
    count = len(names)
    columns = [pa.array(column, pa.string()) for column in zip(*names, strict=True)]
    file.write_table(pa.table([*columns, tensors.encode(held[:count], feature)], schema=file.schema))
    names.clear()
    return count
