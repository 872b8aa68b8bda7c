"""Show what of the study is done, and what needs attention: `agm status`

Every job of the study is in one of these states:

  done          its result is there, and is what params.yaml and the source code ask for
  running       a process makes it now
  out of date   its result was made from other parameters, code or inputs, or its record is damaged
  failed        its training diverged: what is known of that is in its run.json
  missing       its result, or a part of it, is not there

A table counts the jobs of each step. Below it stand the jobs that need attention, with the reason. Where many jobs
follow from one that must be made again, only that one is named, with the number of those that follow. Results that are
made again and come out the same wake nobody: then what follows is made in a moment.

Nothing is written, and only small files are read: neither raw files nor the content of large results. `agm check` looks
at raw files; every command compares the checksums of what it reads. With --json, every job is printed, for programs.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from agm.pipeline.config import Params
from agm.pipeline.dag import provenance, store, unfinished
from agm.pipeline.dag.engines.exclusive import snakemake_runs
from agm.pipeline.dag.graph import TRAINING, Graph, Job
from agm.pipeline.io.files import read_json
from agm.pipeline.runtime.lock import held_by
from agm.pipeline.runtime.progress import show

DONE, RUNNING, OUTDATED, FAILED, MISSING = "done", "running", "out of date", "failed", "missing"
STATES = (DONE, RUNNING, OUTDATED, FAILED, MISSING)
ATTENTION = (RUNNING, FAILED, OUTDATED, MISSING)
"""The order in which jobs are named."""
NOT_MADE = "not made yet"
LINES = 20
"""Most lines on jobs that need attention; --json has all."""
LARGE = 16_000_000
"""Bytes of an annotation file, or of a folder of them, beyond which it is not read."""


@dataclass(frozen=True)
class JobState:
    """What is known of one job.

    Attributes:
        job: the job.
        state: one of `STATES`.
        reason: why it is not done, in words; empty where it is.
        follows: commands of the first jobs in the chain because of which this one is not done; empty where the cause is
            its own.
        kept: whether the result that is asked for is in the store, so that it is taken back and not made.
        resumes: whether a run goes on from a checkpoint.
    """

    job: Job
    state: str
    reason: str = ""
    follows: tuple[str, ...] = ()
    kept: bool = False
    resumes: bool = False


@dataclass(frozen=True)
class Status:
    """What is known of a study.

    Attributes:
        study: its name.
        dataset: the name of its data set.
        jobs: the state of every job, in the order of the DAG.
        notes: what else the user should know, a line each.
    """

    study: str
    dataset: str
    jobs: tuple[JobState, ...]
    notes: tuple[str, ...]

    def count(self, state: str, step: str | None = None) -> int:
        """How many jobs, of one step or of all, are in a state."""
        return sum(each.state == state and step in (None, each.job.step) for each in self.jobs)


def status(params: Params, as_json: bool) -> None:
    """Print the state of the study that `params` describe.

    Args:
        as_json: every job, for programs.
    """
    found = gather(params)
    if as_json:
        show(json.dumps(_plain(found), indent=2))
    else:
        show("\n".join(_text(found)))


# --- what is known ---


def gather(params: Params) -> Status:
    """The state of every job."""
    graph = Graph(params)
    checksums, notes = _large_annotations(graph)
    states: dict[Job, JobState] = {}
    for job in graph.jobs:  # what a job reads is made by jobs before it
        makers = {graph.makers[path]: None for path in (*job.inputs, *job.data) if path in graph.makers}
        above = [states[maker] for maker in makers]
        states[job] = _state(job, provenance.expected(job, params, checksums), above)
    if engine := snakemake_runs():
        notes.append(f"{engine} runs here")
    return Status(params.study.name, params.dataset.name, tuple(states.values()), tuple(notes))


def _large_annotations(graph: Graph) -> tuple[provenance.Checksums, list[str]]:
    """The annotations that are too large to read here, with the checksums on record, and a note for each."""
    checksums: provenance.Checksums = {}
    notes = []
    for key, name in graph.params.dataset.annotations.items():
        path = Path(name)
        if not _is_large(path):
            continue
        job = graph.job("annotations", key)
        record = provenance.recorded(job) or {"made_from": {}}
        checksums[path] = record["made_from"].get("inputs", {}).get(key)
        notes.append(f"not compared, because it is large: {path} (`{job.command}` compares it)")
    return checksums, notes


def _is_large(path: Path) -> bool:
    size = 0
    for each in path.rglob("*") if path.is_dir() else [path]:
        if each.is_file():
            size += each.stat().st_size
        if size > LARGE:
            return True
    return False


def _state(job: Job, wanted: dict[str, Any], above: list[JobState]) -> JobState:
    """The state of a job.

    Args:
        wanted: what it would be made from now.
        above: the states of the jobs whose results it reads.
    """
    found = _own_state(job, wanted)
    causes = [each for each in above if each.state in (RUNNING, OUTDATED, MISSING)]
    if found.state == FAILED and not causes:
        # A run that reads others fails where one of them failed.
        causes = [each for each in above if each.state == FAILED]
    elif found.state in (OUTDATED, MISSING):
        kept = store.has(job, wanted)
        resumes = job.step in TRAINING and unfinished.resumable(job, wanted)
        found = replace(found, kept=kept, resumes=resumes)
    if causes and _follows(found, wanted, causes):
        found = _follower(found, causes)
    holder = held_by(job.step, *job.cell)
    # A process also takes the lock only to find that the result is up to date.
    if holder is not None and found.state in (OUTDATED, MISSING):
        return JobState(job, RUNNING, " ".join(f"now{holder}".split()))
    return found


def _own_state(job: Job, wanted: dict[str, Any]) -> JobState:
    """The state of a job as its own files tell it."""
    there = [path for path in (job.index, *job.outputs) if path.exists()]
    if not there:
        return JobState(job, MISSING, NOT_MADE)
    for path in (job.index, *job.outputs):
        if path not in there:
            return JobState(job, MISSING, f"{path} does not exist")
    if reason := provenance.changed(job, wanted):
        return JobState(job, OUTDATED, reason)
    if job.step in TRAINING and (failed := read_json(job.index)["failed"]):
        epoch = "" if failed["epoch"] is None else f" in epoch {failed['epoch']}"
        return JobState(job, FAILED, f"{failed['what']}{epoch}; {job.index} says more")
    return JobState(job, DONE)


def _follows(found: JobState, wanted: dict[str, Any], causes: list[JobState]) -> bool:
    """Whether the state of a job comes from the jobs before it, and has no cause of its own."""
    if found.state != OUTDATED or found.reason in {each.reason for each in causes}:
        return True
    record = provenance.recorded(found.job)
    if record is None:
        return False
    # With the inputs of then, would it still be out of date?
    as_then = {**wanted, "inputs": record["made_from"].get("inputs")}
    return provenance.difference(record["made_from"], as_then, found.job.step) is None


def _follower(found: JobState, causes: Iterable[JobState]) -> JobState:
    """The state of a job that waits for others."""
    first: dict[str, None] = {}
    for each in causes:
        first |= dict.fromkeys(each.follows or (each.job.command,))
    # What is there will be looked at again; of a run that failed with another one, nothing will.
    again = found.state == DONE or (found.state == FAILED and all(each.state != FAILED for each in causes))
    state = OUTDATED if again else found.state
    return replace(found, state=state, reason=_after(list(first)), follows=tuple(first))


def _after(commands: list[str]) -> str:
    more = f" and {len(commands) - 1} more" if len(commands) > 1 else ""
    return f"it follows from `{commands[0]}`{more}"


# --- as text ---


def _text(found: Status) -> Iterator[str]:
    """The status for a person, line by line."""
    yield f"study {found.study}, data set {found.dataset}: {found.count(DONE)} of {len(found.jobs)} jobs are done"
    yield ""
    yield from _table(found)
    groups = _groups(found)
    if groups:
        yield ""
        yield "needs attention:"
    for (state, reason), several in groups[:LINES]:
        more = f" and {len(several) - 1} more" if len(several) > 1 else ""
        yield f"  {state:11}  `{several[0].job.command}`{more}: {reason}{_followers(found, several)}"
    if len(groups) > LINES:
        yield f"  … and {len(groups) - LINES} more lines: see --json"
    yield ""
    yield from found.notes
    yield from _advice(found)


def _table(found: Status) -> Iterator[str]:
    """A row of counts for each step."""
    steps = list(dict.fromkeys(each.job.step for each in found.jobs))
    width = max(map(len, steps))
    yield "  ".join([" " * width, *STATES])
    for step in steps:
        cells = []
        for state in STATES:
            count = found.count(state, step)
            cells.append((str(count) if count else "–").rjust(len(state)))
        yield "  ".join([step.replace("_", "-").ljust(width), *cells])


def _groups(found: Status) -> list[tuple[tuple[str, str], list[JobState]]]:
    """The jobs whose state has a cause of its own, by that cause."""
    groups: dict[tuple[str, str], list[JobState]] = {}
    for state in ATTENTION:
        for each in found.jobs:
            if each.state == state and not each.follows:
                groups.setdefault((state, _reason(each)), []).append(each)
    return list(groups.items())


def _reason(each: JobState) -> str:
    """Why a job is not done, and what spares work when it is made."""
    if each.kept:
        return f"{each.reason}; the result asked for is in {store.STORE}, and is taken back"
    if each.resumes:
        return f"{each.reason}; it goes on from its checkpoint"
    return each.reason


def _followers(found: Status, causes: list[JobState]) -> str:
    """How many jobs follow from `causes`, in words."""
    commands = {each.job.command for each in causes}
    count = sum(not commands.isdisjoint(each.follows) for each in found.jobs)
    if not count:
        return ""
    return f" ({count} {'job follows' if count == 1 else 'jobs follow'} from it)"


def _advice(found: Status) -> Iterator[str]:
    """What to do next."""
    if found.count(RUNNING):
        return
    if found.count(OUTDATED) or found.count(MISSING):
        yield "`snakemake` or `dvc repro` makes what is out of date or missing"
    else:
        yield "all results are up to date, as far as no raw file has changed (`agm check`): see reports/index.html"
    if found.count(FAILED):
        yield "reports/index.html says what to do about failed runs"


# --- for programs ---


def _plain(found: Status) -> dict[str, Any]:
    """The status in plain values."""
    counts = Counter(each.state for each in found.jobs)
    jobs = []
    for each in found.jobs:
        jobs.append(
            {
                "command": each.job.command,
                "step": each.job.step,
                "cell": list(each.job.cell),
                "state": each.state,
                "reason": each.reason or None,
                "follows": list(each.follows),
                "kept": each.kept,
                "resumes": each.resumes,
            }
        )
    return {
        "study": found.study,
        "dataset": found.dataset,
        "counts": {state: counts[state] for state in STATES},
        "jobs": jobs,
        "notes": list(found.notes),
    }
