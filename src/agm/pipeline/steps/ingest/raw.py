"""Whether the raw files still are those on record: `agm check`.

Raw files are never hashed as a whole, copied or written to: they may be terabytes on read-only storage. What tells the
content of one from any other is its size and the time of its last change when it was first listed, its identity. A
file that only has another time now (copied to another place, touched) keeps its identity where its content is the one
that `agm extract` read, whose checksum lies beside the features. For a demo set, which is small, the identity is a
checksum of the content.

    data/<dataset>/raw.json        on which `agm list` depends: rewritten when a listed file has changed or is gone, and
                                   as it was before once the files are
    .cache/raw/<dataset>.parquet   the sizes and times of this machine, and the identities that they stand for

Snakemake looks before it plans; before `dvc repro`, run this command. On storage that answers slowly, set
AGM_TRUST_RAW=1: then the raw files are taken for unchanged.
"""

import functools
import hashlib
import json
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import polars as pl
import pyarrow.parquet as pq

from agm.pipeline.config import Params
from agm.pipeline.config.schema import Dataset
from agm.pipeline.dag import provenance
from agm.pipeline.dag.graph import Graph
from agm.pipeline.errors import AgmError
from agm.pipeline.io.files import read_index, read_json, sha256, write_json, write_parquet
from agm.pipeline.io.source import outside
from agm.pipeline.runtime import variables
from agm.pipeline.runtime.progress import track

KNOWN = Path(".cache/raw")
KNOWN_SCHEMA = {"path": pl.String, "size": pl.Int64, "mtime_ns": pl.Int64, "identity": pl.String}
MISSING = "file not found"
# Shared storage answers slowly but many at a time.
THREADS = 16
BATCH = 128
SHOWN = 10_000
"""Of more files it is shown how far the work is."""


class Seen(NamedTuple):
    """What the file system says of one file; None and None of one that is not there."""

    size: int | None
    mtime_ns: int | None


ABSENT = Seen(None, None)


def check(params: Params) -> Iterator[str]:
    """Compare the files of the listing with those on the disk, and put on record which have changed.

    Yields:
        What was found, in words; nothing when all is as it was.
    """
    graph, dataset = Graph(params), params.dataset
    listed = _listed(graph)
    if not graph.raw.exists():
        write_json(graph.raw, {"changed": None})
    if not listed:
        return
    if variables.trusts_raw():
        yield f"raw files are not looked at: {variables.TRUST_RAW} is set"
        return
    found = {path: ABSENT if isinstance(seen, str) else seen for path, seen in ask(dataset, sorted(listed)).items()}
    there = [path for path, identity in listed.items() if identity is not None]
    if there and all(found[path] == ABSENT for path in there):
        yield f"raw files are not looked at: not one of {len(there)} lies below {dataset.root}"
        return
    now = identities(graph, dataset, found)
    changed = [path for path in listed if now[path] != listed[path]]
    if changed:
        state = json.dumps([[path, *found[path]] for path in changed])
        write_json(graph.raw, {"changed": hashlib.sha256(state.encode()).hexdigest()})
        gone = sum(found[path] == ABSENT for path in changed)
        yield f"{len(changed)} raw files have changed since they were listed, {gone} of them gone; first: {changed[0]}"
    else:
        _put_back(graph)


def _put_back(graph: Graph) -> None:
    """Write what the listing was made with, where the files are those of the listing again."""
    record = provenance.recorded(graph.job("list")) or {}
    try:
        there = read_json(graph.raw)
    except AgmError:
        there = None  # cut short by a full disk
    if "raw" in record and there != record["raw"]:
        write_json(graph.raw, record["raw"])


def _listed(graph: Graph) -> dict[str, str | None]:
    """The identities on record; empty where there is no listing, or none that is whole."""
    try:
        read_index(graph.data / "listing.json", "agm list", "listing.parquet")
        table = pl.read_parquet(graph.data / "listing.parquet")
        return dict(table.select("path", "identity").iter_rows())
    except (AgmError, OSError, pl.exceptions.PolarsError):
        return {}


def ask(dataset: Dataset, paths: Sequence[str]) -> dict[str, Seen | str]:
    """What the file system says of each file below `dataset.root`, or what is wrong with it."""
    allowed = [os.path.realpath(each) for each in (dataset.root, *dataset.links)]
    batches = [paths[start : start + BATCH] for start in range(0, len(paths), BATCH)]
    look = functools.partial(_look, dataset.root, allowed)
    with ThreadPoolExecutor(THREADS) as pool:
        found = chain.from_iterable(pool.map(look, batches))
        shown = track(found, len(paths), "look at files") if len(paths) > SHOWN else found
        return dict(zip(paths, shown, strict=True))


def identities(graph: Graph, dataset: Dataset, files: Mapping[str, Seen]) -> dict[str, str | None]:
    """What tells the content of each file from any other; None for a file that is not there.

    What is found is remembered for the next time.
    """
    known = _known(dataset)
    found = {path: known.get((path, *seen)) for path, seen in files.items()}
    new = [path for path, seen in files.items() if found[path] is None and seen != ABSENT]
    if new:
        made = bool(dataset.generated)
        before = {} if made else _extracted(graph)
        identify = functools.partial(_identify, dataset.root, files, made, before)
        with ThreadPoolExecutor(THREADS) as pool:
            made_out = pool.map(identify, new)
            shown = track(made_out, len(new), "identify files") if len(new) > SHOWN else made_out
            found |= zip(new, shown, strict=True)
        changed = set(new)
        kept = {key: identity for key, identity in known.items() if key[0] not in changed}
        _remember(dataset, kept | {(path, *files[path]): found[path] for path in new})
    return found


def _identify(
    root: str, files: Mapping[str, Seen], made: bool, before: Mapping[str, Mapping[str, str]], path: str
) -> str:
    """The identity of a file that has not been seen with this size and time."""
    size, mtime_ns = files[path]
    if made:
        return sha256(Path(root, path))
    new = f"{size}-{mtime_ns}"
    alike = {was: content for was, content in before.get(path, {}).items() if was.startswith(f"{size}-")}
    if not alike or new in alike:
        return new
    content = sha256(Path(root, path))
    return next((was for was, had in alike.items() if had == content), new)


def _extracted(graph: Graph) -> dict[str, dict[str, str]]:
    """Of each file the identities under which `agm extract` read it, each with the checksum of its content."""
    found: dict[str, dict[str, str]] = {}
    for path in sorted((graph.data / "features").glob("*/part-*.parquet")):
        try:
            table = pq.read_table(path, columns=["source", "content"])
        except (OSError, ValueError):  # damaged, or of another version
            continue
        for source, content in zip(table["source"].to_pylist(), table["content"].to_pylist(), strict=True):
            about = json.loads(source)
            if content:
                found.setdefault(about["path"], {})[about["identity"]] = content
    return found


def _known(dataset: Dataset) -> dict[tuple[str, int, int], str]:
    try:
        table = pl.read_parquet(_memory(dataset), schema=KNOWN_SCHEMA)
    except (OSError, pl.exceptions.PolarsError):
        return {}
    return {(path, size, mtime_ns): identity for path, size, mtime_ns, identity in table.iter_rows()}


def _remember(dataset: Dataset, known: Mapping[tuple[str, int, int], str]) -> None:
    rows = [(*seen, identity) for seen, identity in known.items()]
    write_parquet(_memory(dataset), pl.DataFrame(rows, schema=KNOWN_SCHEMA, orient="row"))


def _memory(dataset: Dataset) -> Path:
    return KNOWN / f"{dataset.name}.parquet"


def _look(root: str, allowed: Sequence[str], paths: Iterable[str]) -> list[Seen | str]:
    """The size and time of each file, which must lie in one of the folders `allowed`, or what is wrong with it."""
    real_folder = functools.cache(os.path.realpath)  # a few folders hold all the files
    return [_look_at(root, allowed, path, real_folder) for path in paths]


def _look_at(root: str, allowed: Sequence[str], path: str, real_folder: Callable[[str], str]) -> Seen | str:
    if outside(path):
        return "the path leaves the root folder"
    folder, name = os.path.split(os.path.join(root, path))
    real = os.path.join(real_folder(folder), name)
    try:
        found = os.lstat(real)
        if stat.S_ISLNK(found.st_mode):
            real = os.path.realpath(real)
            found = os.stat(real)
    except OSError as error:
        missing = isinstance(error, FileNotFoundError | NotADirectoryError)
        return MISSING if missing else f"file cannot be reached ({error.strerror})"
    if not any(Path(real).is_relative_to(folder) for folder in allowed):
        return "the path is a link that leaves the root folder, to none of dataset.links"
    if not stat.S_ISREG(found.st_mode):
        return "not a file"
    return Seen(found.st_size, found.st_mtime_ns)
