"""List the raw files that the annotations name: path, size and modification time of each.

    data/<dataset>/listing.parquet   path (relative to dataset.root), size (bytes), mtime_ns

The listing is what `agm ingest` depends on in place of the files themselves, which may be terabytes on read-only
storage: they are never hashed, copied or written to. When files change, run this step again. For a demo set, mtime_ns
is null: a checkout gives its files new times, and they are the same data.
"""

import functools
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from agm.config import Params
from agm.config.schema import Dataset
from agm.files import checksums, replacing
from agm.graph import Job
from agm.ingest.adapters import ADAPTERS, read
from agm.ingest.adapters.table import FIX
from agm.ingest.clip import Clip, refuse
from agm.progress import track

SCHEMA = {"path": pl.String, "size": pl.Int64, "mtime_ns": pl.Int64}
# Shared storage answers slowly but many at a time.
THREADS = 16
BATCH = 128


class Seen(NamedTuple):
    """What the file system says of one file."""

    size: int
    mtime_ns: int | None


def run(params: Params, job: Job) -> dict[str, Any]:
    """Write the listing.

    Returns:
        The number of files, their bytes and the listing's checksum.
    """
    [target] = job.outputs
    files = look(params.dataset, read(params.dataset))
    with replacing(target) as temporary:
        table = pl.DataFrame([(path, *seen) for path, seen in files.items()], schema=SCHEMA, orient="row")
        table.write_parquet(temporary)
    return {
        "files": len(files),
        "bytes": sum(seen.size for seen in files.values()),
        "sha256": checksums(target.parent, [target.name]),
    }


def look(dataset: Dataset, clips: Sequence[Clip]) -> dict[str, Seen]:
    """Ask the file system for every file that the clips name, in the order of the paths.

    Raises:
        AgmError: with the row numbers of files that are not there or lie outside the root folder.
    """
    named: dict[str, tuple[int, str]] = {}
    for clip in clips:
        for modality, path in clip.files.items():
            named.setdefault(path, (clip.row, modality))
    paths = sorted(named)
    with ThreadPoolExecutor(THREADS) as pool:
        batches = [paths[start : start + BATCH] for start in range(0, len(paths), BATCH)]
        ask = functools.partial(_look, os.path.realpath(dataset.root))
        found = dict(
            zip(paths, track(chain.from_iterable(pool.map(ask, batches)), len(paths), "look at files"), strict=True)
        )
    wrong = sorted((*named[path], seen, path) for path, seen in found.items() if isinstance(seen, str))
    refuse([f"row {row}: {modality}: {why}: {path}" for row, modality, why, path in wrong], dataset.annotations, FIX)
    if ADAPTERS[dataset.adapter].made_by:
        return {path: seen._replace(mtime_ns=None) for path, seen in found.items()}
    return found


def _look(root: str, paths: Iterable[str]) -> list[Seen | str]:
    """The size and time of each file, or what is wrong with it."""
    real_folder = functools.cache(os.path.realpath)  # a few folders hold all the files
    return list(_look_at(root, paths, real_folder))


def _look_at(root: str, paths: Iterable[str], real_folder: Any) -> Iterator[Seen | str]:
    for path in paths:
        folder, name = os.path.split(os.path.join(root, path))
        real = os.path.join(real_folder(folder), name)
        try:
            found = os.lstat(real)
            if stat.S_ISLNK(found.st_mode):
                real = os.path.realpath(real)
                found = os.stat(real)
        except OSError as error:
            missing = isinstance(error, FileNotFoundError | NotADirectoryError)
            yield "file not found" if missing else f"file cannot be reached ({error.strerror})"
            continue
        if not Path(real).is_relative_to(root):
            yield "the path is a link that leaves the root folder"
        elif not stat.S_ISREG(found.st_mode):
            yield "not a file"
        else:
            yield Seen(found.st_size, found.st_mtime_ns)
