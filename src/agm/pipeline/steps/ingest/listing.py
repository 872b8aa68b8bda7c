"""Read the annotations, and list path, size and identity of the raw files that they name.

    data/<dataset>/clips.parquet     a row per clip of the annotations: clip_id, split, label, group, row, left_out,
                                     and for each modality where it lies (`agm.pipeline.io.source`)
    data/<dataset>/listing.parquet   path (relative to dataset.root), size (bytes), identity
                                     (`agm.pipeline.steps.ingest.raw`); nulls where a file of a published data set is
                                     not there

`agm ingest` depends on the listing and not on the files, which may be terabytes on read-only storage: they are never
copied or written to. `agm check` finds files that have changed.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import polars as pl

from agm.pipeline.config import Params
from agm.pipeline.config.schema import Dataset
from agm.pipeline.dag import provenance
from agm.pipeline.dag.graph import Graph, Job
from agm.pipeline.errors import AgmError
from agm.pipeline.io.files import checksums, digest, read_json, write_parquet
from agm.pipeline.io.source import STRUCT, Source
from agm.pipeline.runtime.progress import say
from agm.pipeline.steps.ingest.adapters import differences, find, read, spellings
from agm.pipeline.steps.ingest.clip import Clip, refuse
from agm.pipeline.steps.ingest.locate import elsewhere, surroundings
from agm.pipeline.steps.ingest.raw import ABSENT, MISSING, Seen, ask, identities
from agm.pipeline.steps.ingest.table import FIX

SCHEMA = {"path": pl.String, "size": pl.Int64, "identity": pl.String}


def run(params: Params, job: Job) -> dict[str, Any]:
    """Write the clips and the listing.

    Returns:
        The number of files, how many of them are missing, their bytes, notes on the annotations, and checksums.
    """
    dataset = params.dataset
    _check_annotations(dataset, job)
    clips, files, notes = locate(dataset, read(dataset))
    identity = identities(Graph(params), dataset, files)
    rows = [(path, seen.size, identity[path]) for path, seen in files.items()]
    listing = pl.DataFrame(rows, schema=SCHEMA, orient="row")
    clips_target, listing_target = job.outputs
    write_parquet(clips_target, _table(clips, dataset))
    write_parquet(listing_target, listing)
    missing = listing["size"].null_count()
    notes += differences(dataset, clips)
    notes += spellings(dataset, clips)
    for line in (*_texts_in_cells(clips, dataset), *notes):
        say(line)
    say(f"list: {len(clips)} clips, {len(files)} files, {missing} of them not there")
    return {
        "clips": len(clips),
        "files": len(files),
        "missing": missing,
        "bytes": listing["size"].sum(),
        "notes": notes,
        "sha256": checksums(job.index.parent, [target.name for target in job.outputs]),
        provenance.ABOUT: {"raw": read_json(job.inputs[-1])},
    }


def _texts_in_cells(clips: Sequence[Clip], dataset: Dataset) -> Iterator[str]:
    """Say which columns of a user's own data are read as texts."""
    if find(dataset.adapter).card is not None:
        return
    for name, modality in dataset.modalities.items():
        sources = [clip.sources[name] for clip in clips if name in clip.sources]
        if any(source.text is not None for source in sources):
            yield f"list: the cells of the column {modality.column!r} are the texts of {name}, not names of files"


def _check_annotations(dataset: Dataset, job: Job) -> None:
    """Refuse annotations that have changed since `agm annotations` recorded their checksums."""
    # The last input is the record of the raw files.
    for index, (key, path) in zip(job.inputs[:-1], dataset.annotations.items(), strict=True):
        again = f"agm annotations {key}"
        if digest(Path(path)) != read_json(index, again)["sha256"]:
            raise AgmError("Annotations have changed since they were recorded", where=path, fix=f"run `{again}`")


def _table(clips: Sequence[Clip], dataset: Dataset) -> pl.DataFrame:
    schema = {"clip_id": pl.String, "split": pl.String, "label": pl.String, "group": pl.String}
    schema |= {"row": pl.Int64, "left_out": pl.String} | dict.fromkeys(dataset.modalities, STRUCT)
    rows = []
    for clip in clips:
        row = [clip.clip_id, clip.split, clip.label, clip.group, clip.row, clip.left_out]
        for name in dataset.modalities:
            source = clip.sources.get(name)
            row.append(source and asdict(source))
        rows.append(row)
    return pl.DataFrame(rows, schema=schema, orient="row")


def stored(path: Path, dataset: Dataset) -> list[Clip]:
    """The clips that `run` stored, as the adapter read them."""
    clips = []
    for row in pl.read_parquet(path).iter_rows(named=True):
        sources = {name: Source(**row[name]) for name in dataset.modalities if row[name] is not None}
        clip = Clip(
            clip_id=row["clip_id"],
            split=row["split"],
            label=row["label"],
            group=row["group"],
            sources=sources,
            row=row["row"],
            left_out=row["left_out"],
        )
        clips.append(clip)
    return clips


def locate(dataset: Dataset, clips: Sequence[Clip]) -> tuple[list[Clip], dict[str, Seen], list[str]]:
    """The clips with the real paths of their files, the file system's answer for each file, and notes on both.

    Raises:
        AgmError: as `look` does.
    """
    official = files = look(dataset, clips)
    missing = absent(official)
    adapter = find(dataset.adapter)
    clips, notes = elsewhere(dataset.root, clips, missing, adapter.unique, adapter.stem)
    # Notes mean that some clips have other paths now.
    if notes:
        files = look(dataset, clips)
        missing = absent(files)
    hint = surroundings(dataset.root, list(official), missing)
    if hint:
        notes.append(f"{len(missing):,} of {len(files):,} files are not there, the first: {missing[0]}. {hint}")
    return clips, files, notes


def absent(files: Mapping[str, Seen]) -> list[str]:
    """The files that do not exist."""
    return [path for path, seen in files.items() if seen.size is None]


def look(dataset: Dataset, clips: Sequence[Clip]) -> dict[str, Seen]:
    """Ask the file system for every file that the clips name, in the order of the paths.

    Raises:
        AgmError: with the row numbers of files that are not there or lie outside the root folder.
    """
    published = find(dataset.adapter).card is not None
    # The first row and modality that name a file, for messages.
    named: dict[str, tuple[int, str]] = {}
    for clip in clips:
        for modality, source in clip.sources.items():
            if source.path is not None:
                named.setdefault(source.path, (clip.row, modality))
    files: dict[str, Seen] = {}
    wrong: list[tuple[int, str, str, str]] = []
    for path, seen in ask(dataset, sorted(named)).items():
        if not isinstance(seen, str):
            files[path] = seen
        elif published and seen == MISSING:
            # Downloads are never complete.
            files[path] = ABSENT
        else:
            wrong.append((*named[path], seen, path))
    fix = FIX
    if any(dataset.modalities[modality].kind == "text" for _, modality, _, _ in wrong):
        fix = f"{FIX}; if the cells are texts and no paths: agm compose … dataset.texts=cells"
    # In the order of the annotations.
    problems = [f"row {row}: {modality}: {why}: {path}" for row, modality, why, path in sorted(wrong)]
    refuse(problems, ", ".join(dataset.annotations.values()), fix)
    return files
