"""When Snakemake runs a job: one small key file per job, written again where the job must run.

Snakemake runs a job when an input is newer than an output. Times mean little here: DVC restores files in any order, and
clocks are set back. So the content decides (`agm.pipeline.dag.provenance`), and the time of a key states the decision:

* Every rule takes the key of its job, `.cache/keys/<step>/<cell>.json`, as an input. All its other inputs are
  `ancient`, so that their times do not matter. Times of results are never set, because DVC uses them.
* Where a job's results are missing or out of date, the key is newer than the results. It also holds a number that it
  never held before, because Snakemake ignores the time of a small input whose content it has seen. Otherwise the key
  has the oldest possible time, which is no reason to run.
* The files that such a job will make are not `ancient` for the jobs after it: Snakemake starts these because of that
  job, and does not look at their keys.

Snakemake starts a job before it is known whether the job's inputs come out the same. Where they do, the job takes its
own old results back (`agm.pipeline.dag.store`).
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
        reasons: the jobs whose results exist and are out of date, with the reason.
        made: the files that will be made: by these jobs, by jobs whose results are missing, and by all jobs after them.
    """

    reasons: dict[Job, str]
    made: set[str]


def refresh(graph: Graph) -> Plan:
    """Bring the keys up to date with the files and the parameters."""
    # Shared by all jobs, so that an input of many jobs is read once.
    checksums: provenance.Checksums = {}
    wanted, existing, reasons = {}, {}, {}
    must_run = set()
    for job in graph.jobs:
        wanted[job] = provenance.expected(job, graph.params, checksums)
        existing[job] = _existing(job)
        reason = provenance.changed(job, wanted[job])
        if reason:
            reasons[job] = reason
        # The record counts too: without it nothing is known about the results.
        is_missing = len(existing[job]) < len(job.results) + 1
        if reason or is_missing:
            must_run.add(job)
    waiting = _with_followers(graph, must_run)
    for job in graph.jobs:
        _write(job, wanted[job], existing[job] if job in waiting else None)
    return Plan(reasons, _files(waiting))


def forced(graph: Graph, names: Collection[str]) -> set[str]:
    """The files that are made when the steps and files `names` are made again, and all that follow from them."""
    named = {job for job in graph.jobs if job.step in names or not _files([job]).isdisjoint(names)}
    return _files(_with_followers(graph, named))


def _with_followers(graph: Graph, jobs: Collection[Job]) -> set[Job]:
    """The jobs, and all jobs that follow from them."""
    waiting: set[Job] = set()
    # In the order of the DAG: the jobs that a job follows from have been looked at before.
    for job in graph.jobs:
        if job in jobs or any(graph.makers.get(path) in waiting for path in job.inputs):
            waiting.add(job)
    return waiting


def _existing(job: Job) -> list[Path]:
    """Those of the job's index, record and outputs that exist; a link counts, wherever it leads."""
    return [path for path in (job.index, job.record, *job.outputs) if os.path.lexists(path)]


def _files(jobs: Collection[Job]) -> set[str]:
    """The index and the outputs of all jobs."""
    files = set()
    for job in jobs:
        files.update(map(str, job.results))
    return files


def explain(reasons: dict[Job, str]) -> list[str]:
    """One line for every step and reason, for the head of Snakemake's plan."""
    groups: dict[tuple[str, str], list[str]] = {}
    for job, reason in reasons.items():
        groups.setdefault((job.step, reason), []).append(job.command)
    lines = []
    for (_, reason), commands in groups.items():
        others = f" and {len(commands) - 1} like it" if len(commands) > 1 else ""
        lines.append(f"out of date: `{commands[0]}`{others}: {reason}")
    return lines


def _write(job: Job, wanted: dict[str, Any], replaced: list[Path] | None) -> None:
    """Write the key of a job: newer than the files `replaced` where it must run; None where it must not run."""
    key = path(job)
    content = {"job": job.command, "parameters": wanted["parameters"], "code": wanted["code"]}
    if replaced is not None:
        content["seen"] = time.time_ns()
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    if not key.exists() or key.read_text(encoding="utf-8") != text:
        _replace(key, text)
    moment = OLDEST
    if replaced is not None:
        # Results may have times in the future, where the clock was set back.
        newer = [path.lstat().st_mtime + 1 for path in replaced]
        moment = max([time.time(), *newer])
    try:
        os.utime(key, (moment, moment))
    except PermissionError:
        # Another user who shares this folder owns the key, and only the owner of a file may set its time.
        _replace(key, text)
        os.utime(key, (moment, moment))


def _replace(key: Path, text: str) -> None:
    with replacing(key) as temporary:
        temporary.write_text(text, encoding="utf-8")
