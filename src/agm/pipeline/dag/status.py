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
        return sum(job_state.state == state and step in (None, job_state.job.step) for job_state in self.jobs)


def status(params: Params, as_json: bool) -> None:
    """Print the state of the study that `params` describe.

    Args:
        as_json: every job, for programs.
    """
    study_status = gather(params)
    if as_json:
        show(json.dumps(_plain(study_status), indent=2))
    else:
        show("\n".join(_text(study_status)))


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
    for file in path.rglob("*") if path.is_dir() else [path]:
        if file.is_file():
            size += file.stat().st_size
        if size > LARGE:
            return True
    return False


def _state(job: Job, wanted: dict[str, Any], above: list[JobState]) -> JobState:
    """The state of a job.

    Args:
        wanted: what it would be made from now.
        above: the states of the jobs whose results it reads.
    """
    job_state = _own_state(job, wanted)
    causes = [cause for cause in above if cause.state in (RUNNING, OUTDATED, MISSING)]
    if job_state.state == FAILED and not causes:
        # A run that reads others fails where one of them failed.
        causes = [cause for cause in above if cause.state == FAILED]
    elif job_state.state in (OUTDATED, MISSING):
        kept = store.has(job, wanted)
        resumes = job.step in TRAINING and unfinished.resumable(job, wanted)
        job_state = replace(job_state, kept=kept, resumes=resumes)
    if causes and _follows(job_state, wanted, causes):
        job_state = _follower(job_state, causes)
    holder = held_by(job.step, *job.cell)
    # A process also takes the lock only to find that the result is up to date.
    if holder is not None and job_state.state in (OUTDATED, MISSING):
        return JobState(job, RUNNING, " ".join(f"now{holder}".split()))
    return job_state


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


def _follows(job_state: JobState, wanted: dict[str, Any], causes: list[JobState]) -> bool:
    """Whether the state of a job comes from the jobs before it, and has no cause of its own."""
    if job_state.state != OUTDATED or job_state.reason in {cause.reason for cause in causes}:
        return True
    record = provenance.recorded(job_state.job)
    if record is None:
        return False
    # With the inputs of then, would it still be out of date?
    as_then = {**wanted, "inputs": record["made_from"].get("inputs")}
    return provenance.difference(record["made_from"], as_then, job_state.job.step) is None


def _follower(job_state: JobState, causes: Iterable[JobState]) -> JobState:
    """The state of a job that waits for others."""
    first: dict[str, None] = {}
    for cause in causes:
        first |= dict.fromkeys(cause.follows or (cause.job.command,))
    # What is there will be looked at again; of a run that failed with another one, nothing will.
    again = job_state.state == DONE or (job_state.state == FAILED and all(cause.state != FAILED for cause in causes))
    state = OUTDATED if again else job_state.state
    return replace(job_state, state=state, reason=_after(list(first)), follows=tuple(first))


def _after(commands: list[str]) -> str:
    more = f" and {len(commands) - 1} more" if len(commands) > 1 else ""
    return f"it follows from `{commands[0]}`{more}"


# --- as text ---


def _text(study_status: Status) -> Iterator[str]:
    """The status for a person, line by line."""
    done, total = study_status.count(DONE), len(study_status.jobs)
    yield f"study {study_status.study}, data set {study_status.dataset}: {done} of {total} jobs are done"
    yield ""
    yield from _table(study_status)
    groups = _groups(study_status)
    if groups:
        yield ""
        yield "needs attention:"
    for (state, reason), several in groups[:LINES]:
        more = f" and {len(several) - 1} more" if len(several) > 1 else ""
        yield f"  {state:11}  `{several[0].job.command}`{more}: {reason}{_followers(study_status, several)}"
    if len(groups) > LINES:
        yield f"  … and {len(groups) - LINES} more lines: see --json"
    yield ""
    yield from study_status.notes
    yield from _advice(study_status)


def _table(study_status: Status) -> Iterator[str]:
    """A row of counts for each step."""
    steps = list(dict.fromkeys(job_state.job.step for job_state in study_status.jobs))
    width = max(map(len, steps))
    yield "  ".join([" " * width, *STATES])
    for step in steps:
        cells = []
        for state in STATES:
            count = study_status.count(state, step)
            cells.append((str(count) if count else "–").rjust(len(state)))
        yield "  ".join([step.replace("_", "-").ljust(width), *cells])


def _groups(study_status: Status) -> list[tuple[tuple[str, str], list[JobState]]]:
    """The jobs whose state has a cause of its own, by that cause."""
    groups: dict[tuple[str, str], list[JobState]] = {}
    for state in ATTENTION:
        for job_state in study_status.jobs:
            if job_state.state == state and not job_state.follows:
                groups.setdefault((state, _reason(job_state)), []).append(job_state)
    return list(groups.items())


def _reason(job_state: JobState) -> str:
    """Why a job is not done, and what spares work when it is made."""
    if job_state.kept:
        return f"{job_state.reason}; the result asked for is in {store.STORE}, and is taken back"
    if job_state.resumes:
        return f"{job_state.reason}; it goes on from its checkpoint"
    return job_state.reason


def _followers(study_status: Status, causes: list[JobState]) -> str:
    """How many jobs follow from `causes`, in words."""
    commands = {cause.job.command for cause in causes}
    count = sum(not commands.isdisjoint(job_state.follows) for job_state in study_status.jobs)
    if not count:
        return ""
    return f" ({count} {'job follows' if count == 1 else 'jobs follow'} from it)"


def _advice(study_status: Status) -> Iterator[str]:
    """What to do next."""
    if study_status.count(RUNNING):
        return
    if study_status.count(OUTDATED) or study_status.count(MISSING):
        yield "`snakemake` or `dvc repro` makes what is out of date or missing"
    else:
        yield "all results are up to date, as far as no raw file has changed (`agm check`): see reports/index.html"
    if study_status.count(FAILED):
        yield "reports/index.html says what to do about failed runs"


# --- for programs ---


def _plain(study_status: Status) -> dict[str, Any]:
    """The status in plain values."""
    counts = Counter(job_state.state for job_state in study_status.jobs)
    jobs = []
    for job_state in study_status.jobs:
        jobs.append(
            {
                "command": job_state.job.command,
                "step": job_state.job.step,
                "cell": list(job_state.job.cell),
                "state": job_state.state,
                "reason": job_state.reason or None,
                "follows": list(job_state.follows),
                "kept": job_state.kept,
                "resumes": job_state.resumes,
            }
        )
    return {
        "study": study_status.study,
        "dataset": study_status.dataset,
        "counts": {state: counts[state] for state in STATES},
        "jobs": jobs,
        "notes": list(study_status.notes),
    }
