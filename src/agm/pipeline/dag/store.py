"""Earlier results, stored by what they were made from: a job whose result is here takes it back.

Snakemake starts the jobs after a job before it knows whether the result of that job changed, and deletes the outputs of
a job before it starts it. So every result is also kept here, outside the outputs that the engines know: as hard links,
which take no space while the outputs exist. A result is taken back after its checksums are compared, without any
decoding, training step or forward pass.

    .cache/store/<checksum of step, cell and what it was made from>/<number>    a file of the result
    .cache/store/<…>/result.json                                                their paths and checksums
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from agm.pipeline.dag.graph import Job
from agm.pipeline.io.files import read_json, read_json_or_none, replacing, sha256, write_json
from agm.pipeline.runtime import variables
from agm.pipeline.runtime.progress import say

STORE = Path(".cache/store")
CONTENT = "result.json"
_passed_over = False


@contextmanager
def passed_over() -> Iterator[None]:
    """Take nothing from the store within the context."""
    global _passed_over
    _passed_over = True
    try:
        yield
    finally:
        _passed_over = False


def put(job: Job, made_from: dict[str, Any]) -> None:
    """Keep the result of a job that has just been made, and drop the oldest results where they take too much space."""
    if variables.store_bytes() == 0:
        return
    with _not_needed(job.command), replacing(_entry(job, made_from)) as entry:
        entry.mkdir()
        files = []
        for number, (path, checksum) in enumerate(_files(job).items()):
            files.append({"path": path, "sha256": checksum})
            _link(Path(path), entry / str(number))
        write_json(entry / CONTENT, {"step": job.step, "cell": job.cell, "files": files})
    _prune()


def has(job: Job, made_from: dict[str, Any]) -> bool:
    """Whether a result of `job` from `made_from` is kept. Its checksums are not compared; `take` does that."""
    return bool(_read(_entry(job, made_from) / CONTENT).get("files"))


def take(job: Job, made_from: dict[str, Any]) -> bool:
    """Put the kept result of a job in its place; returns whether there was a complete one."""
    entry = _entry(job, made_from)
    files = _read(entry / CONTENT).get("files")
    if _passed_over or not files:
        return False
    if not _is_whole(entry, files):
        shutil.rmtree(entry, ignore_errors=True)
        return False
    kept = _by_path(entry, files)
    # The index last: it marks the job done.
    for output in (*job.outputs, job.record, job.index):
        with replacing(output) as temporary:
            if output in kept:
                _link(kept[output], temporary)
            else:
                _link_folder(kept, output, temporary)
    _mark_used(entry)
    say(f"{job.command}: taken back from {STORE}: it was made from the same before")
    return True


def _is_whole(entry: Path, files: list[dict[str, str]]) -> bool:
    """Whether all files of an entry have their checksums."""
    try:
        for number, file in enumerate(files):
            if sha256(entry / str(number)) != file["sha256"]:
                return False
    except (OSError, KeyError, TypeError):
        return False
    return True


def _by_path(entry: Path, files: list[dict[str, str]]) -> dict[Path, Path]:
    """The files of an entry, by the paths that they have as outputs."""
    return {Path(file["path"]): entry / str(number) for number, file in enumerate(files)}


def _link_folder(kept: dict[Path, Path], folder: Path, target: Path) -> None:
    """Build at `target` the output `folder` from the kept files that belong below it."""
    for path, source in kept.items():
        if path.is_relative_to(folder):
            place = target / path.relative_to(folder)
            place.parent.mkdir(parents=True, exist_ok=True)
            _link(source, place)


def remembered(kind: str, made_from: Any, make: Callable[[], bytes]) -> bytes:
    """The bytes that `make` made from the same before, or makes now: a part of a result that other results share."""
    if variables.store_bytes() == 0:
        return make()
    entry = _place([kind, made_from])
    files = _read(entry / CONTENT).get("files")
    # An entry that another process drops at this moment is made again.
    with suppress(OSError, KeyError, TypeError):
        if files and not _passed_over and sha256(entry / "0") == files[0]["sha256"]:
            _mark_used(entry)
            say(f"the {kind} of before is taken from {STORE}")
            return (entry / "0").read_bytes()
    content = make()
    with _not_needed(kind), replacing(entry) as temporary:
        temporary.mkdir()
        (temporary / "0").write_bytes(content)
        files = [{"path": kind, "sha256": hashlib.sha256(content).hexdigest()}]
        write_json(temporary / CONTENT, {"step": kind, "cell": [], "files": files})
    _prune()
    return content


def results(step: str, *cell: str) -> Iterator[dict[Path, Path]]:
    """The files of each kept result of a step, by their paths as outputs; the result that was used last comes first.

    Their checksums are not compared.

    Args:
        step: the step.
        cell: the beginning of the jobs' cells.
    """
    if _passed_over:
        return
    for path in _entries():
        content = _read(path)
        if content and content["step"] == step and content["cell"][: len(cell)] == list(cell):
            yield _by_path(path.parent, content["files"])


@contextmanager
def _not_needed(what: str) -> Iterator[None]:
    """Only tell the user when something could not be kept: the result itself is there."""
    try:
        yield
    except OSError as error:
        say(f"{what}: not kept in {STORE}: {error.strerror or error}")


def _mark_used(entry: Path) -> None:
    """Give an entry the present time: results are dropped in the order in which they were last used."""
    # An entry may be another user's, who shares this folder: only its owner may set the time.
    with suppress(PermissionError):
        os.utime(entry / CONTENT)


def _entry(job: Job, made_from: dict[str, Any]) -> Path:
    return _place([job.step, job.cell, made_from])


def _place(identity: Any) -> Path:
    """The folder of the entry for what a result was made from."""
    return STORE / hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:32]


def _files(job: Job) -> dict[str, str]:
    """Checksums of the files of a job that has just been made."""
    checksums = read_json(job.record)["files"]
    for path in (job.record, job.index):
        checksums[str(path)] = sha256(path)
    return checksums


def _link(source: Path, target: Path) -> None:
    """Make a hard link; a copy where the file system has no hard links, or where `source` is a link of DVC."""
    try:
        if source.is_symlink():
            raise OSError
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _prune() -> None:
    """Drop the results that were not used for the longest time, until the others are within the limit."""
    total, limit = 0, variables.store_bytes()
    for place, path in enumerate(_entries()):
        for number in range(len(_read(path).get("files", []))):
            total += _taken(path.parent / str(number))
        # The first entry is the one that was just made: it stays, however large it is.
        if total > limit and place > 0:
            shutil.rmtree(path.parent, ignore_errors=True)


def _taken(path: Path) -> int:
    """Bytes that deleting a file frees: none while the same file is also an output, or in DVC's cache."""
    try:
        status = path.stat()
    except OSError:
        return 0
    return status.st_size if status.st_nlink == 1 else 0


def _entries() -> list[Path]:
    """The descriptions of all kept results; the one that was used last comes first."""
    times = []
    for path in STORE.glob(f"*/{CONTENT}"):
        # Another process may drop the entry at this moment.
        with suppress(FileNotFoundError):
            times.append((path.stat().st_mtime_ns, path))
    return [path for _, path in sorted(times, reverse=True)]


def _read(path: Path) -> dict[str, Any]:
    """The description of a kept result; empty where there is none that can be read."""
    content = read_json_or_none(path)
    if isinstance(content, dict) and {"step", "cell", "files"} <= content.keys():
        return content
    return {}
