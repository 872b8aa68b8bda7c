"""When Snakemake runs a job: one small key file per job, made new where the job must run.

Snakemake runs a job when an input is newer than an output. Times mean little here: DVC restores files in any order, and
clocks are set back. So content decides (`agm.pipeline.dag.provenance`), and the time of a key says what it decided:

* Every rule takes its job's key, `.cache/keys/<step>/<cell>.json`, as an input; all its other inputs are `ancient`, so
  that their times do not matter. Times of results are never set: DVC goes by them.
* Where a job's results are missing or out of date, the key is newer than the results, and holds a number that was never
  there before, because Snakemake ignores the time of a small input whose content it has seen. Else it has the oldest of
  times, which is no reason to run.
* What such a job will make is not `ancient` for those that follow: Snakemake looks at their keys no more, and starts
  them because of that one.

A job that follows is started before anybody knows whether what it reads comes out the same. Then it takes its own old
results back (`agm.pipeline.dag.store`).
"""

import json
import os
import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agm.pipeline.dag import provenance
from agm.pipeline.dag.graph import Graph, Job
from agm.pipeline.io.files import replacing

KEYS = Path(".cache/keys")
# Seconds since 1970. Not 0, which Snakemake takes for a missing time.
OLDEST = 1


def path(job: Job) -> Path:
    """The key of `job`."""
    return KEYS.joinpath(job.step, *job.cell).with_name(f"{(job.step, *job.cell)[-1]}.json")


@dataclass(frozen=True)
class Plan:
    """What must run.

    Attributes:
        reasons: the jobs whose results are there and out of date, with the reason.
        made: the files that are made: by these, by jobs whose results are missing, and by all that follow from both.
    """

    reasons: dict[Job, str]
    made: set[str]


def refresh(graph: Graph) -> Plan:
    """Bring the keys up to date with the files and the parameters."""
    checksums: dict[Path, str | None] = {}
    wanted = {job: provenance.expected(job, graph.params, checksums) for job in graph.jobs}
    there = {job: _there(job) for job in graph.jobs}
    reasons = {job: reason for job in graph.jobs if (reason := provenance.changed(job, wanted[job]))}
    missing = {job for job in graph.jobs if len(there[job]) < 2 + len(job.outputs)}
    waiting = _with_followers(graph, missing | reasons.keys())
    for job in graph.jobs:
        _write(job, wanted[job], there[job] if job in waiting else None)
    return Plan(reasons, _files(waiting))


def forced(graph: Graph, names: Collection[str]) -> set[str]:
    """The files that are made when the steps and files `names` are made anew, and all that follows from them."""
    named = {job for job in graph.jobs if job.step in names or not _files([job]).isdisjoint(names)}
    return _files(_with_followers(graph, named))


def _with_followers(graph: Graph, jobs: Collection[Job]) -> set[Job]:
    """The jobs, and all that follow from them."""
    waiting: set[Job] = set()
    for job in graph.jobs:  # in the order of the DAG
        if job in jobs or any(graph.makers.get(each) in waiting for each in job.inputs):
            waiting.add(job)
    return waiting


def _there(job: Job) -> list[Path]:
    """What there is of the job's index, record and outputs."""
    return [path for path in (job.index, job.record, *job.outputs) if os.path.lexists(path)]


def _files(jobs: Collection[Job]) -> set[str]:
    return {str(path) for job in jobs for path in (job.index, *job.outputs)}


def explain(reasons: dict[Job, str]) -> list[str]:
    """One line for every step and reason, for the head of Snakemake's plan."""
    groups: dict[tuple[str, str], list[str]] = {}
    for job, reason in reasons.items():
        groups.setdefault((job.step, reason), []).append(job.command)
    return [
        f"out of date: `{commands[0]}`{f' and {len(commands) - 1} like it' if commands[1:] else ''}: {reason}"
        for (_, reason), commands in groups.items()
    ]


def _write(job: Job, wanted: dict[str, Any], replaced: list[Path] | None) -> None:
    """Write the key of a job that must run, newer than the files `replaced`; None: it must not run."""
    key = path(job)
    content = {"job": job.command, "parameters": wanted["parameters"], "code": wanted["code"]}
    if replaced is not None:
        content["seen"] = time.time_ns()
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    if not key.exists() or key.read_text(encoding="utf-8") != text:
        _replace(key, text)
    moment = OLDEST
    if replaced is not None:
        # Whatever a clock that was set back made of the times of results.
        moment = max([time.time(), *(each.lstat().st_mtime + 1 for each in replaced)])
    try:
        os.utime(key, (moment, moment))
    except PermissionError:
        # Another user's, who shares this folder: only the owner of a file may set its time.
        _replace(key, text)
        os.utime(key, (moment, moment))


def _replace(key: Path, text: str) -> None:
    with replacing(key) as temporary:
        temporary.write_text(text, encoding="utf-8")
