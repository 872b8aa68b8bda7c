"""Results that were made before, by what they were made from: a job whose result is here takes it back.

Snakemake starts what follows from a job before it knows whether that came out the same, and deletes what it will make
before it starts it. So what a job made is kept here too, outside the outputs that the engines know: as hard links,
which take no room while the outputs are there. Taking back is checked against checksums, and costs no decoding, no
training step and no forward pass.

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
from agm.pipeline.errors import AgmError
from agm.pipeline.io.files import read_json, replacing, sha256, write_json
from agm.pipeline.runtime import variables
from agm.pipeline.runtime.progress import say

STORE = Path(".cache/store")
CONTENT = "result.json"
_passed_over = False


@contextmanager
def passed_over() -> Iterator[None]:
    """Take nothing from the store while the context lasts."""
    global _passed_over
    _passed_over = True
    try:
        yield
    finally:
        _passed_over = False


def put(job: Job, made_from: dict[str, Any]) -> None:
    """Keep the result of a job that has just been made, and drop the oldest results where there are too many."""
    if variables.store_bytes() == 0:
        return
    with _not_needed(job.command), replacing(_entry(job, made_from)) as entry:
        entry.mkdir()
        files = [{"path": str(path), "sha256": checksum} for path, checksum in _files(job).items()]
        for number, each in enumerate(files):
            _link(Path(each["path"]), entry / str(number))
        write_json(entry / CONTENT, {"step": job.step, "cell": job.cell, "files": files})
    _prune()


def has(job: Job, made_from: dict[str, Any]) -> bool:
    """Whether a result of `job` from `made_from` is kept. Its checksums are not compared; `take` does that."""
    return bool(_read(_entry(job, made_from) / CONTENT).get("files"))


def take(job: Job, made_from: dict[str, Any]) -> bool:
    """Put the kept result of a job in its place; whether there was a whole one."""
    entry = _entry(job, made_from)
    files = _read(entry / CONTENT).get("files")
    if _passed_over or not files:
        return False
    try:
        whole = all(sha256(entry / str(number)) == each["sha256"] for number, each in enumerate(files))
    except (OSError, KeyError, TypeError):
        whole = False
    if not whole:
        shutil.rmtree(entry, ignore_errors=True)
        return False
    kept = {Path(each["path"]): entry / str(number) for number, each in enumerate(files)}
    # The index last: it marks the job done.
    for output in (*job.outputs, job.record, job.index):
        with replacing(output) as temporary:
            if output in kept:
                _link(kept[output], temporary)
                continue
            for path in [each for each in kept if each.is_relative_to(output)]:
                target = temporary / path.relative_to(output)
                target.parent.mkdir(parents=True, exist_ok=True)
                _link(kept[path], target)
    _mark_used(entry)
    say(f"{job.command}: taken back from {STORE}: it was made from the same before")
    return True


def remembered(kind: str, made_from: Any, make: Callable[[], bytes]) -> bytes:
    """What `make` made before from the same, or makes now: a piece of a result that other results share."""
    if variables.store_bytes() == 0:
        return make()
    entry = _place([kind, made_from])
    files = _read(entry / CONTENT).get("files")
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
    """Where the files of each kept result of a step lie, by their paths; the result that was used last comes first.

    Their checksums are not compared.

    Args:
        cell: the beginning of the jobs' cells.
    """
    for path in _entries() if not _passed_over else ():
        content = _read(path)
        if content and [content["step"], *content["cell"]][: 1 + len(cell)] == [step, *cell]:
            yield {Path(each["path"]): path.parent / str(number) for number, each in enumerate(content["files"])}


@contextmanager
def _not_needed(what: str) -> Iterator[None]:
    """Say what could not be kept: the result itself is there."""
    try:
        yield
    except OSError as error:
        say(f"{what}: not kept in {STORE}: {error.strerror or error}")


def _mark_used(entry: Path) -> None:
    """Results are dropped in the order in which they were last used."""
    with suppress(PermissionError):  # another user's, who shares this folder
        os.utime(entry / CONTENT)


def _entry(job: Job, made_from: dict[str, Any]) -> Path:
    return _place([job.step, job.cell, made_from])


def _place(identity: Any) -> Path:
    return STORE / hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:32]


def _files(job: Job) -> dict[str, str]:
    """Checksums of the files of a job that has just been made."""
    written = read_json(job.record)["files"]
    return written | {str(path): sha256(path) for path in (job.record, job.index)}


def _link(source: Path, target: Path) -> None:
    """A hard link, or a copy where the file system has none, or where `source` is a link of DVC's."""
    try:
        if source.is_symlink():
            raise OSError
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _prune() -> None:
    """Drop the results that were not used for longest, until what the others take is within the limit."""
    total, most = 0, variables.store_bytes()
    for place, path in enumerate(_entries()):
        total += sum(_taken(path.parent / str(number)) for number in range(len(_read(path).get("files", []))))
        if total > most and place:
            shutil.rmtree(path.parent, ignore_errors=True)


def _taken(path: Path) -> int:
    """Bytes that are free again without a file: none while it is an output, or in DVC's cache, too."""
    try:
        found = path.stat()
    except OSError:
        return 0
    return found.st_size if found.st_nlink == 1 else 0


def _entries() -> list[Path]:
    """What describes each kept result; the one that was used last comes first."""
    times = []
    for path in STORE.glob(f"*/{CONTENT}"):
        with suppress(FileNotFoundError):  # dropped by another process
            times.append((path.stat().st_mtime_ns, path))
    return [path for _, path in sorted(times, reverse=True)]


def _read(path: Path) -> dict[str, Any]:
    """The description of a kept result; empty where there is none that can be read."""
    try:
        content = read_json(path)
    except (AgmError, OSError):
        return {}
    return content if isinstance(content, dict) and {"step", "cell", "files"} <= content.keys() else {}
