"""The checkpoints of runs that are not finished: where they lie, and what each was made from.

    .cache/train/<checksum of the command and of what the run is made from>/*.safetensors   checkpoints
    .cache/train/<…>/origin.json                                                            that command, and what it is

A run goes on from the folder that its name, parameters, code and inputs lead to. Any other folder of the same run is
orphaned: what has changed since is found by comparing its origin with the present. `agm clean` lists them all.
"""

import hashlib
import json
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agm.pipeline.config import Params
from agm.pipeline.dag import provenance
from agm.pipeline.dag.graph import Graph, Job
from agm.pipeline.errors import AgmError
from agm.pipeline.io.files import read_json, write_json
from agm.pipeline.runtime.lock import taken
from agm.pipeline.runtime.progress import say

CHECKPOINTS = Path(".cache/train")
ORIGIN = "origin.json"

RUNNING = "its run is under way"
RESUMABLE = "can be resumed"
ORPHANED = "orphaned"
FAILED = "its run failed: kept to be looked into"
FINISHED = "its run is finished"
ELSEWHERE = "its run is of another study"
EMPTY = "holds no checkpoint"
UNKNOWN = "unknown: it does not say of which run it is"


@dataclass(frozen=True)
class Kept:
    """A folder of checkpoints.

    Attributes:
        folder: where they lie.
        command: the command of the run; None where the folder does not say.
        step: its step and cell, of which `agm.pipeline.runtime.lock` has a lock.
        state: one of those above.
        reason: of an orphaned one, what has changed since.
    """

    folder: Path
    command: str | None
    step: tuple[str, ...]
    state: str
    reason: str = ""

    @property
    def size(self) -> int:
        """Bytes of its files."""
        return sum(path.stat().st_size for path in self.folder.rglob("*") if path.is_file())

    @property
    def written(self) -> str:
        """When it was written to for the last time."""
        return _time(self.folder)


def checkpoint_folder(params: Params, job: Job) -> Path:
    """Outside the declared outputs, which the engines delete first; named by all that decides the run."""
    return _folder(job, provenance.expected(job, params))


def resumable(job: Job, made_from: dict[str, Any]) -> bool:
    """Whether there is a checkpoint from which a run that is made from `made_from` goes on."""
    return any(_folder(job, made_from).glob("*.safetensors"))


@contextmanager
def begun(params: Params, job: Job) -> Iterator[Path]:
    """Name the checkpoints of other versions of the run, which it cannot go on from, and say what its own are made
    from; yields the folder of its own, which is gone again where nothing was kept in it."""
    made_from = provenance.expected(job, params)
    folder = _folder(job, made_from)
    if not (folder / ORIGIN).exists():
        _name_orphans(job, made_from)
        origin = {"command": job.command, "step": [job.step, *job.cell], "index": str(job.index)}
        write_json(folder / ORIGIN, {**origin, "made_from": made_from})
    try:
        yield folder
    except AgmError:
        if not any(folder.glob("*.safetensors")):
            shutil.rmtree(folder)
        raise


def remove(params: Params, job: Job) -> None:
    """Remove the checkpoints of a run that is on record; a person may want to look into those of one that failed."""
    folder = checkpoint_folder(params, job)
    if folder.exists() and not read_json(job.index)["failed"]:
        shutil.rmtree(folder, ignore_errors=True)


def _folder(job: Job, made_from: dict[str, Any]) -> Path:
    identity = json.dumps([job.command, made_from], sort_keys=True)
    return CHECKPOINTS / hashlib.sha256(identity.encode()).hexdigest()[:32]


def _name_orphans(job: Job, made_from: dict[str, Any]) -> None:
    for folder in _folders():
        origin = _origin(folder)
        if origin is None or origin["index"] != str(job.index) or not any(folder.glob("*.safetensors")):
            continue
        if reason := provenance.difference(origin["made_from"], made_from, job.step):
            say(
                f"{job.command}: its checkpoint of {_time(folder)} is not used: {reason}\n"
                f"  where: {folder}\n  what happens: the run starts from the beginning; `agm clean` lists what is left"
            )


def found(params: Params) -> list[Kept]:
    """Every folder of checkpoints, with its state under the parameters `params`."""
    jobs = {str(job.index): job for job in Graph(params).jobs}
    checksums: provenance.Checksums = {}
    return [_kept(folder, jobs, params, checksums) for folder in _folders()]


def _kept(folder: Path, jobs: dict[str, Job], params: Params, checksums: provenance.Checksums) -> Kept:
    origin = _origin(folder)
    if origin is None:
        return Kept(folder, None, (), UNKNOWN)
    state, reason = _state(folder, origin, jobs.get(origin["index"]), params, checksums)
    return Kept(folder, origin["command"], tuple(origin["step"]), state, reason)


def _state(
    folder: Path, origin: dict[str, Any], job: Job | None, params: Params, checksums: provenance.Checksums
) -> tuple[str, str]:
    """The state of a folder, and the reason where it is orphaned."""
    if taken(*origin["step"]):
        return RUNNING, ""
    if not any(folder.glob("*.safetensors")):
        return EMPTY, ""
    if job is None:
        return ELSEWHERE, ""
    wanted = provenance.expected(job, params, checksums)
    # An input that is not there now may come out as it was.
    missing = [name for name, checksum in wanted["inputs"].items() if checksum is None]
    wanted["inputs"] |= {name: origin["made_from"]["inputs"].get(name) for name in missing}
    if reason := provenance.difference(origin["made_from"], wanted, job.step):
        return ORPHANED, reason
    if missing or provenance.outdated(job, params, checksums):
        return RESUMABLE, ""
    return (FAILED if read_json(job.index)["failed"] else FINISHED), ""


def _folders() -> Iterator[Path]:
    for path in sorted(CHECKPOINTS.glob("*")):
        if path.is_dir():
            yield path


def _origin(folder: Path) -> dict[str, Any] | None:
    """What the checkpoints of a folder were made from; None where it does not say."""
    try:
        origin = read_json(folder / ORIGIN)
        known = {"command", "step", "index", "made_from"} <= origin.keys()
        return origin if known else None
    except (AgmError, AttributeError):
        return None


def _time(folder: Path) -> str:
    newest = max(path.stat().st_mtime for path in (folder, *folder.iterdir()))
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(newest))
