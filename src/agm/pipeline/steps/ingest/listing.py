"""Read the annotations, and list the raw files that they name: path, size and identity of each.

    data/<dataset>/clips.parquet     a row per clip of the annotations: clip_id, split, label, group, row, left_out,
                                     and for each modality where it lies (`agm.pipeline.io.source`)
    data/<dataset>/listing.parquet   path (relative to dataset.root), size (bytes), identity
                                     (`agm.pipeline.steps.ingest.raw`); nulls where a file of a published data set is
                                     not there

The listing is what `agm ingest` depends on in place of the files themselves, which may be terabytes on read-only
storage: they are never copied or written to. `agm check` sees when files change.
"""

from collections.abc import Iterator, Sequence
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
        The number of files, how many of them are not there, their bytes, notes on the annotations, and checksums.
    """
    dataset = params.dataset
    _check_annotations(dataset, job)
    clips, files, notes = locate(dataset, read(dataset))
    identity = identities(Graph(params), dataset, files)
    rows = [(path, seen.size, identity[path]) for path, seen in files.items()]
    listing = pl.DataFrame(rows, schema=SCHEMA, orient="row")
    for target, table in zip(job.outputs, (_table(clips, dataset), listing), strict=True):
        write_parquet(target, table)
    missing = listing["size"].null_count()
    notes += [*differences(dataset, clips), *spellings(dataset, clips)]
    for line in (
        *_texts_in_cells(clips, dataset),
        *notes,
        f"list: {len(clips)} clips, {len(files)} files, {missing} of them not there",
    ):
        say(line)
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
    """Which columns of one's own data were taken for texts."""
    for name, modality in dataset.modalities.items() if find(dataset.adapter).card is None else ():
        if any(name in clip.sources and clip.sources[name].text is not None for clip in clips):
            yield f"list: the cells of the column {modality.column!r} are the texts of {name}, not names of files"


def _check_annotations(dataset: Dataset, job: Job) -> None:
    """Refuse annotations that are not those on record."""
    # Behind the annotations' indexes there is that of the raw files.
    for index, (key, path) in zip(job.inputs[:-1], dataset.annotations.items(), strict=True):
        again = f"agm annotations {key}"
        if digest(Path(path)) != read_json(index, again)["sha256"]:
            raise AgmError("Annotations have changed since they were recorded", where=path, fix=f"run `{again}`")


def _table(clips: Sequence[Clip], dataset: Dataset) -> pl.DataFrame:
    schema = {"clip_id": pl.String, "split": pl.String, "label": pl.String, "group": pl.String}
    schema |= {"row": pl.Int64, "left_out": pl.String} | dict.fromkeys(dataset.modalities, STRUCT)
    rows = []
    for clip in clips:
        found = [clip.sources.get(name) for name in dataset.modalities]
        sources = [source and asdict(source) for source in found]
        rows.append([clip.clip_id, clip.split, clip.label, clip.group, clip.row, clip.left_out, *sources])
    return pl.DataFrame(rows, schema=schema, orient="row")


def stored(path: Path, dataset: Dataset) -> list[Clip]:
    """The clips that `run` stored, as the adapter read them."""
    return [
        Clip(
            *(row[key] for key in ("clip_id", "split", "label", "group")),
            sources={name: Source(**row[name]) for name in dataset.modalities if row[name] is not None},
            row=row["row"],
            left_out=row["left_out"],
        )
        for row in pl.read_parquet(path).iter_rows(named=True)
    ]


def locate(dataset: Dataset, clips: Sequence[Clip]) -> tuple[list[Clip], dict[str, Seen], list[str]]:
    """The clips with the places where their files lie, what the file system says of each file, and notes on both.

    Raises:
        AgmError: as `look` does.
    """
    official = files = look(dataset, clips)
    missing = [path for path, seen in official.items() if seen.size is None]
    adapter = find(dataset.adapter)
    clips, notes = elsewhere(dataset.root, clips, missing, adapter.unique, adapter.stem)
    if notes:
        files = look(dataset, clips)
        missing = [path for path, seen in files.items() if seen.size is None]
    if hint := surroundings(dataset.root, list(official), missing):
        notes.append(f"{len(missing):,} of {len(files):,} files are not there, the first: {missing[0]}. {hint}")
    return clips, files, notes


def look(dataset: Dataset, clips: Sequence[Clip]) -> dict[str, Seen]:
    """Ask the file system for every file that the clips name, in the order of the paths.

    Raises:
        AgmError: with the row numbers of files that are not there or lie outside the root folder.
    """
    adapter = find(dataset.adapter)
    named: dict[str, tuple[int, str]] = {}
    for clip in clips:
        for modality, source in clip.sources.items():
            if source.path is not None:
                named.setdefault(source.path, (clip.row, modality))
    found = ask(dataset, sorted(named))
    if adapter.card is not None:
        found = {path: ABSENT if seen == MISSING else seen for path, seen in found.items()}
    wrong = sorted((*named[path], seen, path) for path, seen in found.items() if isinstance(seen, str))
    where = ", ".join(dataset.annotations.values())
    texts = any(dataset.modalities[modality].kind == "text" for _, modality, _, _ in wrong)
    fix = f"{FIX}; if the cells are texts and no paths: agm compose … dataset.texts=cells" if texts else FIX
    refuse([f"row {row}: {modality}: {why}: {path}" for row, modality, why, path in wrong], where, fix)
    return found
