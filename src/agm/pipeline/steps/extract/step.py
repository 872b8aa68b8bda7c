"""Turn one part of one modality into tensors: agm extract MODALITY PART

Reads    data/<data set>/manifest.parquet and, below dataset.root, the files of the part's clips
Writes   data/<data set>/features/<modality>/part-<part>.parquet: clip_id, tensor, where the clip comes from (source),
         and the checksum of that file (content)
         data/<data set>/features/<modality>/part-<part>.json: what the tensors are, and the clips that failed

A part is a contiguous slice of the manifest, so that a cluster can extract several at once; its order is kept. A clip
that cannot be decoded is quarantined with the reason; only a part without any usable clip stops the run. The vocabulary
of a text modality is made of all training clips, whichever part is extracted. A clip is not decoded again where the
store (`agm.pipeline.dag.store`) has its tensor, of the same content by the same recipe.
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
from agm.pipeline.steps.ingest.raw import ask, existing_or_absent, identities

ROW_GROUP_BYTES = 16 << 20
MOST_ROWS = 256

# The number of clips that a network gets at once, as far as they have one shape.
BATCH = 16
CONSTANT = "all numbers are equal (dataset.quarantine)"

Row = tuple[str, str, str, np.ndarray]
"""The columns of a clip: its id, its source's key, its file's checksum, its tensor."""


def run(params: Params, job: Job) -> dict[str, Any]:
    """Extract one part.

    Raises:
        AgmError: when the part has clips and none of them can be used.
    """
    modality, part = job.cell[0], int(job.cell[1])
    clips = _clips(job, modality)
    first = len(clips) * part // params.num_parts
    last = len(clips) * (part + 1) // params.num_parts
    chosen = clips[first:last]
    sources = [Source(**fields) for fields in chosen["source"]]
    _check_unchanged(params, sources)
    made_by = _recipe(params, modality, clips, sources)
    pretrained = made_by.pretrained and files.digest(made_by.pretrained)
    identity = _identity(params, modality, made_by, pretrained)
    quarantined: list[dict[str, Any]] = []
    rows = _extract(params, job, made_by, identity, chosen, sources, quarantined)
    if quarantined:
        say(f"extract {modality} {part}: {len(quarantined)} clips quarantined, the first: {quarantined[0]['reason']}")
    feature = made_by.feature
    return {
        "feature": {
            "kind": feature.kind,
            "dtype": feature.dtype,
            "shape": list(feature.shape),
            "vocabulary": feature.vocabulary if made_by.vocabulary is None else made_by.vocabulary,
        },
        "pretrained": pretrained,
        "recipe": identity,
        "rows": rows,
        "quarantined": quarantined,
        "sha256": files.checksums(job.outputs[0].parent, [job.outputs[0].name]),
    }


def _recipe(params: Params, modality: str, clips: pl.DataFrame, chosen: list[Source]) -> Recipe:
    """The recipe of the modality, for the clips `chosen` among all `clips`."""
    root = params.dataset.root
    training = (Source(**fields).below(root) for fields in clips.filter(split="train")["source"])
    below = [source.below(root) for source in chosen]
    # The limits are for the texts of which vocabularies are made.
    with limits.under(params.dataset.limits, memory=False):
        return recipe(params.features[modality], f"features.{modality}", training, below)


def _extract(
    params: Params,
    job: Job,
    made_by: Recipe,
    identity: str,
    clips: pl.DataFrame,
    sources: list[Source],
    quarantined: list[dict[str, Any]],
) -> int:
    """Write the tensors of the part, append the clips that failed to `quarantined`; returns the number of tensors."""
    modality, part = job.cell
    root = Path(params.dataset.root)
    with kept.taken(modality, identity, made_by.feature, [source.key for source in sources]) as before:
        new = [source.below(root) for number, source in enumerate(sources) if number not in before]
        if len(before):
            say(f"{job.command}: {len(before)} of {len(sources)} clips are taken from {store.STORE}")
        extracted = _results(new, made_by, params.dataset, f"extract {modality} {int(part)}")
        results = before.merged(extracted, len(sources))
        with files.replacing(job.outputs[0]) as temporary:
            rows = _write(temporary, _usable(clips, sources, results, modality, quarantined), made_by.feature)
            # Inside the block, so that a part without tensors is not kept.
            if quarantined and not rows:
                raise AgmError(
                    f"Not one of {len(quarantined)} clips can be used; the first because: {quarantined[0]['reason']}",
                    where=root / (quarantined[0]["path"] or ""),
                    fix=f"see dataset.root and dataset.modalities.{modality} in params.yaml",
                )
    return rows


def _identity(params: Params, modality: str, made_by: Recipe, pretrained: str | None) -> str:
    """Checksum of everything that decides the tensor besides the clip's content."""
    ingredients = {
        "kind": params.dataset.modalities[modality].kind,
        "features": params.features[modality].model_dump(mode="json"),
        "limits": params.dataset.limits.model_dump(mode="json"),
        "quarantine": params.dataset.quarantine,
        "feature": made_by.feature.to_json(),
        "vocabulary": made_by.vocabulary,
        "pretrained": pretrained,
        "code": code.fingerprint("extract"),
        "libraries": code.versions("extract"),
    }
    return hashlib.sha256(json.dumps(ingredients, sort_keys=True).encode()).hexdigest()


def _check_unchanged(params: Params, sources: list[Source]) -> None:
    """Refuse files that have changed since they were listed.

    Raises:
        AgmError: naming the first one.
    """
    listed = {source.path: source.identity for source in sources if source.path is not None}
    present = existing_or_absent(ask(params.dataset, sorted(listed)))
    changed = []
    for path, identity in identities(Graph(params), params.dataset, present).items():
        # A file that is gone or cannot be reached is quarantined later, with its reason.
        if identity is not None and identity != listed[path]:
            changed.append(path)
    if changed:
        raise AgmError(
            f"Raw files have changed since they were listed: {len(changed)}, the first is {changed[0]}",
            where=params.dataset.root,
            fix="run `snakemake`, or `agm check` and `dvc repro`",
        )


def _clips(job: Job, modality: str) -> pl.DataFrame:
    """The manifest's clips with the columns clip_id, split, source."""
    (index,), (manifest,) = job.inputs, job.data
    files.read_index(index, "agm ingest", manifest.name)
    return pl.read_parquet(manifest).select("clip_id", "split", source=modality)


def _results(sources: list[Source], made_by: Recipe, dataset: Dataset, label: str) -> Iterator[Result]:
    """For each clip its tensor, or the reason why it has none, and the checksum of its file."""
    refuse_constant = "constant" in dataset.quarantine
    attempt = partial(_attempt, load=made_by.load, most=dataset.limits, refuse_constant=refuse_constant)
    # A pickle is read whole: in several processes, each would hold all of it.
    if any(map(packed.in_pickle, sources)):
        return track(map(attempt, sources), len(sources), label)
    if made_by.finish is None:
        return parallel_map(attempt, sources, label, died=_fatal)
    # Clips are sent one at a time: the input of a network is often larger than its output, and waits for its turn.
    return _finished(parallel_map(attempt, sources, label, chunk=1, died=_fatal), made_by.finish)


def _finished(results: Iterator[Result], finish: Finish) -> Iterator[Result]:
    """Yield the results with the tensors that `finish` makes of theirs, a batch at a time."""
    while batch := list(islice(results, BATCH)):
        loaded = [tensor for tensor, _ in batch if not isinstance(tensor, str)]
        made = iter(finish(loaded) if loaded else [])
        for result, content in batch:
            # A clip without a tensor keeps its reason.
            if not isinstance(result, str):
                result = next(made)
                if not np.isfinite(result).all():
                    result = "the pretrained network makes of it a number that is not finite"
            yield result, content


def _fatal(source: Source) -> Result:
    return "the decoder crashed on the file, or memory ran out", ""


def _attempt(source: Source, load: Load, most: Limits, refuse_constant: bool = False) -> Result:
    """The tensor of one clip, or the reason why it has none, and the checksum of its file.

    Args:
        refuse_constant: whether constant arrays of files of many clips are quarantined. `agm ingest` checks other
            files only.
    """
    tensor = _tensor(source, load, most, refuse_constant)
    if source.path is None:
        return tensor, ""
    try:
        return tensor, _content(source.path)
    except OSError:
        return tensor, ""  # the file cannot be read, and there is no tensor either


@lru_cache(maxsize=8)  # for files of many clips
def _content(path: str) -> str:
    return files.sha256(Path(path))


def _tensor(source: Source, load: Load, most: Limits, refuse_constant: bool) -> np.ndarray | str:
    try:
        with warnings_named(source.path), limits.under(most, memory=not packed.in_pickle(source)):
            tensor = load(source)
        if refuse_constant and source.member is not None and _constant(tensor):
            return CONSTANT
        return tensor
    except Unusable as error:
        return str(error)
    except OSError as error:
        return f"the file cannot be read: {error.strerror or error}"
    except MissingExtra:
        raise  # without the package, no clip can be read
    except Exception as error:  # a broken file can make a decoder raise anything; only this clip is quarantined
        return f"the file cannot be decoded: {type(error).__name__}: {error}"


def _constant(tensor: np.ndarray) -> bool:
    """Whether all numbers of an array [steps or channels, …] are equal; steps of zeros are padding and do not count."""
    holds_values = tensor.reshape(len(tensor), -1).any(axis=1)
    values = tensor[holds_values]
    return values.size == 0 or values.min() == values.max()


def _usable(
    clips: pl.DataFrame,
    sources: list[Source],
    results: Iterator[Result],
    modality: str,
    quarantined: list[dict[str, Any]],
) -> Iterator[Row]:
    """Yield the rows of the clips that have a tensor; append the others to `quarantined`."""
    rows = zip(clips["clip_id"], clips["split"], sources, results, strict=True)
    for clip_id, split, source, (result, content) in rows:
        if not isinstance(result, str):
            yield clip_id, source.key, content, result
            continue
        quarantined.append(
            {
                "clip_id": clip_id,
                "split": split,
                "modality": modality,
                "step": "extract",
                "reason": result,
                "path": source.path,
            }
        )


def _write(path: Path, rows: Iterator[Row], feature: Feature) -> int:
    """Write rows in row groups of bounded size, and return the number of rows."""
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
