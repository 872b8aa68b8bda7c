"""Check whether the raw files are still the listed ones: `agm check`.

Raw files are never hashed as a whole, copied or written to: they may be terabytes on read-only storage. The identity of
a file's content is its size and the time of its last change when it was first listed. A file that only has another time
now (it was copied or touched) keeps its identity if it has the content that `agm extract` read, whose checksum lies
beside the features. For a demo set, which is small, the identity is a checksum of the content.

    data/<dataset>/raw.json        input of `agm list`: rewritten when a listed file has changed or is missing, and
                                   restored when the files are as they were
    .cache/raw/<dataset>.parquet   the sizes and times on this machine, and the identities that they stand for

Snakemake runs this check before it plans; before `dvc repro`, run this command. On storage that answers slowly, set
AGM_TRUST_RAW=1: then the raw files count as unchanged.
"""

import functools
import hashlib
import json
import os
import stat
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from agm.pipeline.config import Params
from agm.pipeline.config.schema import Dataset
from agm.pipeline.dag import provenance
from agm.pipeline.dag.graph import Graph
from agm.pipeline.errors import AgmError
from agm.pipeline.io.files import read_index, read_json_or_none, sha256, write_json, write_parquet
from agm.pipeline.io.source import outside
from agm.pipeline.runtime import variables
from agm.pipeline.runtime.progress import track

KNOWN = Path(".cache/raw")
KNOWN_SCHEMA = {"path": pl.String, "size": pl.Int64, "mtime_ns": pl.Int64, "identity": pl.String}
MISSING = "file not found"
# Shared storage answers slowly, but many questions at a time.
THREADS = 16
BATCH = 128
SHOWN = 10_000
"""The number of files above which the progress is shown."""


class Seen(NamedTuple):
    """The file system's answer for one file; None and None for a file that does not exist."""

    size: int | None
    mtime_ns: int | None


ABSENT = Seen(None, None)


def check(params: Params) -> Iterator[str]:
    """Compare the files of the listing with those on the disk, and record the changes.

    Yields:
        Messages about changes; nothing when there are none.
    """
    graph, dataset = Graph(params), params.dataset
    listed = _listed(graph)
    # A first listing has nothing to compare with.
    if not graph.raw.exists():
        write_json(graph.raw, {"changed": None})
    if not listed:
        return
    if variables.trusts_raw():
        yield f"raw files are not checked: {variables.TRUST_RAW} is set"
        return
    files = existing_or_absent(ask(dataset, sorted(listed)))
    expected = [path for path, identity in listed.items() if identity is not None]
    # Storage that is not mounted is no reason to make everything anew.
    if expected and all(files[path] == ABSENT for path in expected):
        yield f"raw files are not checked: not one of {len(expected)} lies below {dataset.root}"
        return
    now = identities(graph, dataset, files)
    changed = [path for path in listed if now[path] != listed[path]]
    if changed:
        state = json.dumps([[path, *files[path]] for path in changed])
        write_json(graph.raw, {"changed": hashlib.sha256(state.encode()).hexdigest()})
        gone = [path for path in changed if files[path] == ABSENT]
        yield (
            f"{len(changed)} raw files have changed since they were listed, {len(gone)} of them gone; "
            f"first: {changed[0]}"
        )
    else:
        _restore(graph)


def _restore(graph: Graph) -> None:
    """Write the state with which the listing was made, after the files have become those of the listing again."""
    record = provenance.recorded(graph.job("list")) or {}
    # A file that a full disk cut short is written again too.
    if "raw" in record and read_json_or_none(graph.raw) != record["raw"]:
        write_json(graph.raw, record["raw"])


def existing_or_absent(answers: Mapping[str, Seen | str]) -> dict[str, Seen]:
    """The answers of `ask`, where a file that cannot be used counts as absent."""
    return {path: ABSENT if isinstance(seen, str) else seen for path, seen in answers.items()}


def _listed(graph: Graph) -> dict[str, str | None]:
    """The identities of the listing; empty where the listing is missing or damaged."""
    try:
        read_index(graph.data / "listing.json", "agm list", "listing.parquet")
        table = pl.read_parquet(graph.data / "listing.parquet")
        return dict(table.select("path", "identity").iter_rows())
    except (AgmError, OSError, pl.exceptions.PolarsError):
        return {}


def ask(dataset: Dataset, paths: Sequence[str]) -> dict[str, Seen | str]:
    """The file system's answer for each file below `dataset.root`, or the reason why the file cannot be used."""
    allowed = [os.path.realpath(folder) for folder in (dataset.root, *dataset.links)]
    batches = [paths[start : start + BATCH] for start in range(0, len(paths), BATCH)]
    look = functools.partial(_look, dataset.root, allowed)
    with ThreadPoolExecutor(THREADS) as pool:
        answers = chain.from_iterable(pool.map(look, batches))
        if len(paths) > SHOWN:
            answers = track(answers, len(paths), "look at files")
        return dict(zip(paths, answers, strict=True))


def identities(graph: Graph, dataset: Dataset, files: Mapping[str, Seen]) -> dict[str, str | None]:
    """The identity of each file's content; None for a file that does not exist.

    New identities are stored for the next time.
    """
    known = _known(dataset)
    identity_of = {path: known.get((path, *seen)) for path, seen in files.items()}
    new = [path for path, seen in files.items() if identity_of[path] is None and seen != ABSENT]
    if not new:
        return identity_of
    generated = bool(dataset.generated)
    before = {} if generated else _extracted(graph)
    identify = functools.partial(_identify, dataset.root, files, generated, before)
    with ThreadPoolExecutor(THREADS) as pool:
        identified = pool.map(identify, new)
        if len(new) > SHOWN:
            identified = track(identified, len(new), "identify files")
        identity_of |= zip(new, identified, strict=True)
    # What is known of earlier sizes and times of a changed file is of no use any more.
    changed = set(new)
    rows = [(*key, identity) for key, identity in known.items() if key[0] not in changed]
    rows += [(path, *files[path], identity_of[path]) for path in new]
    write_parquet(_memory(dataset), pl.DataFrame(rows, schema=KNOWN_SCHEMA, orient="row"))
    return identity_of


def _identify(
    root: str, files: Mapping[str, Seen], generated: bool, before: Mapping[str, Mapping[str, str]], path: str
) -> str:
    """The identity of a file that was never listed with this size and time.

    Args:
        before: the result of `_extracted`.
    """
    size, mtime_ns = files[path]
    if generated:
        return sha256(Path(root, path))
    new = f"{size}-{mtime_ns}"
    earlier = before.get(path, {})
    if new in earlier:
        return new
    now = None
    for identity, content in earlier.items():
        # Only a file of the same size can have the same content; others need not be read.
        if not identity.startswith(f"{size}-"):
            continue
        if now is None:
            now = sha256(Path(root, path))
        if content == now:
            return identity
    return new


def _extracted(graph: Graph) -> dict[str, dict[str, str]]:
    """For each file: identity under which `agm extract` read it → checksum of its content."""
    contents: dict[str, dict[str, str]] = defaultdict(dict)
    for path in sorted((graph.data / "features").glob("*/part-*.parquet")):
        try:
            table = pq.read_table(path, columns=["source", "content"])
        except (OSError, ValueError, pa.ArrowException):  # damaged, or of another version
            continue
        for key, content in zip(table["source"].to_pylist(), table["content"].to_pylist(), strict=True):
            source = json.loads(key)
            if content:
                contents[source["path"]][source["identity"]] = content
    return contents


def _known(dataset: Dataset) -> dict[tuple[str, int, int], str]:
    """Path, size and time → identity, as stored on this machine."""
    try:
        table = pl.read_parquet(_memory(dataset), schema=KNOWN_SCHEMA)
    except (OSError, pl.exceptions.PolarsError):
        return {}
    return {(path, size, mtime_ns): identity for path, size, mtime_ns, identity in table.iter_rows()}


def _memory(dataset: Dataset) -> Path:
    return KNOWN / f"{dataset.name}.parquet"


def _look(root: str, allowed: Sequence[str], paths: Iterable[str]) -> list[Seen | str]:
    """The size and time of each file, or the reason why it cannot be used.

    Args:
        allowed: the folders in which a file may lie.
    """
    real_folder = functools.cache(os.path.realpath)  # a few folders hold all the files
    return [_look_at(root, allowed, path, real_folder) for path in paths]


def _look_at(root: str, allowed: Sequence[str], path: str, real_folder: Callable[[str], str]) -> Seen | str:
    if outside(path):
        return "the path leaves the root folder"
    folder, name = os.path.split(os.path.join(root, path))
    real = os.path.join(real_folder(folder), name)
    try:
        # One question for each file; only a link, which is rare, needs its real path.
        status = os.lstat(real)
        if stat.S_ISLNK(status.st_mode):
            real = os.path.realpath(real)
            status = os.stat(real)
    except (FileNotFoundError, NotADirectoryError):
        return MISSING
    except OSError as error:
        return f"file cannot be reached ({error.strerror})"
    if not any(Path(real).is_relative_to(folder) for folder in allowed):
        return "the path is a link that leaves the root folder, to none of dataset.links"
    if not stat.S_ISREG(status.st_mode):
        return "not a file"
    return Seen(status.st_size, status.st_mtime_ns)
