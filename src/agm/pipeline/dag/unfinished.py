"""The checkpoints of runs that are not finished: where they are stored, and what each was made from.

    .cache/train/<checksum of the command and of what the run is made from>/*.safetensors   checkpoints
    .cache/train/<…>/origin.json                                                            the command and its inputs

The command, the parameters, the code and the inputs of a run name the folder from which it resumes. Any other folder
of the same run is orphaned: comparing its origin with the present shows what has changed. `agm clean` lists them all.
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
from agm.pipeline.io.files import read_json, read_json_or_none, write_json
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
class Checkpoints:
    """A folder of checkpoints.

    Attributes:
        folder: the folder.
        command: the command of the run; None where the folder does not say.
        step: the run's step and cell, for which `agm.pipeline.runtime.lock` has a lock.
        state: one of the states above.
        reason: for an orphaned folder, what has changed since.
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
        """The time of its newest file."""
        return _time(self.folder)


def checkpoint_folder(params: Params, job: Job) -> Path:
    """The folder for a run's checkpoints, named by everything that decides the run.

    It lies outside the outputs of the job, which the engines delete before the job starts.
    """
    return _folder(job, provenance.expected(job, params))


def resumable(job: Job, made_from: dict[str, Any]) -> bool:
    """Whether there is a checkpoint from which a run that is made from `made_from` goes on."""
    return any(_folder(job, made_from).glob("*.safetensors"))


@contextmanager
def begun(params: Params, job: Job) -> Iterator[Path]:
    """Yield the folder for the run's checkpoints, with a file that says what they are made from.

    Tells the user of checkpoints of other versions of the run, from which it cannot resume. Where the run ends by an
    error before its first checkpoint, the folder is removed again.
    """
    made_from = provenance.expected(job, params)
    folder = _folder(job, made_from)
    if not (folder / ORIGIN).exists():
        _name_orphans(job, made_from)
        origin = {
            "command": job.command,
            "step": [job.step, *job.cell],
            "index": str(job.index),
            "made_from": made_from,
        }
        write_json(folder / ORIGIN, origin)
    try:
        yield folder
    except AgmError:
        if not _has_checkpoints(folder):
            shutil.rmtree(folder)
        raise


def remove(params: Params, job: Job) -> None:
    """Remove the checkpoints of a finished run. Those of a run that failed stay: a person may want to examine them."""
    folder = checkpoint_folder(params, job)
    if folder.exists() and not read_json(job.index)["failed"]:
        shutil.rmtree(folder, ignore_errors=True)


def _folder(job: Job, made_from: dict[str, Any]) -> Path:
    identity = json.dumps([job.command, made_from], sort_keys=True)
    return CHECKPOINTS / hashlib.sha256(identity.encode()).hexdigest()[:32]


def _name_orphans(job: Job, made_from: dict[str, Any]) -> None:
    """Tell the user which checkpoints of the run are not used, and why."""
    for folder in _folders():
        origin = _origin(folder)
        if origin is None or origin["index"] != str(job.index) or not _has_checkpoints(folder):
            continue
        if reason := provenance.difference(origin["made_from"], made_from, job.step):
            say(
                f"{job.command}: its checkpoint of {_time(folder)} is not used: {reason}\n"
                f"  where: {folder}\n  what happens: the run starts from the beginning; `agm clean` lists what is left"
            )


def all_checkpoints(params: Params) -> list[Checkpoints]:
    """Every folder of checkpoints, with its state under the parameters `params`."""
    jobs = {str(job.index): job for job in Graph(params).jobs}
    # Shared, so that an input of several runs is read once.
    checksums: provenance.Checksums = {}
    entries = []
    for folder in _folders():
        origin = _origin(folder)
        if origin is None:
            entries.append(Checkpoints(folder, None, (), UNKNOWN))
            continue
        state, reason = _state(folder, origin, jobs.get(origin["index"]), params, checksums)
        entries.append(Checkpoints(folder, origin["command"], tuple(origin["step"]), state, reason))
    return entries


def _state(
    folder: Path, origin: dict[str, Any], job: Job | None, params: Params, checksums: provenance.Checksums
) -> tuple[str, str]:
    """The state of a folder, and the reason where it is orphaned."""
    if taken(*origin["step"]):
        return RUNNING, ""
    if not _has_checkpoints(folder):
        return EMPTY, ""
    if job is None:
        return ELSEWHERE, ""
    wanted = provenance.expected(job, params, checksums)
    # A missing input may have the old content when its job has made it again, so it counts as unchanged.
    missing = [name for name, checksum in wanted["inputs"].items() if checksum is None]
    for name in missing:
        wanted["inputs"][name] = origin["made_from"]["inputs"].get(name)
    if reason := provenance.difference(origin["made_from"], wanted, job.step):
        return ORPHANED, reason
    if missing or provenance.outdated(job, params, checksums):
        return RESUMABLE, ""
    failed = read_json(job.index)["failed"]
    return FAILED if failed else FINISHED, ""


def _has_checkpoints(folder: Path) -> bool:
    return any(folder.glob("*.safetensors"))


def _folders() -> Iterator[Path]:
    for path in sorted(CHECKPOINTS.glob("*")):
        if path.is_dir():
            yield path


def _origin(folder: Path) -> dict[str, Any] | None:
    """What the checkpoints of a folder were made from; None where the folder does not say."""
    origin = read_json_or_none(folder / ORIGIN)
    if not isinstance(origin, dict):
        return None
    is_complete = {"command", "step", "index", "made_from"} <= origin.keys()
    return origin if is_complete else None


def _time(folder: Path) -> str:
    newest = max(path.stat().st_mtime for path in (folder, *folder.iterdir()))
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(newest))
