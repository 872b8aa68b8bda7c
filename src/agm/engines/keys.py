"""When Snakemake re-runs a job: one small key file per job, made new where the job's results are out of date.

Snakemake re-runs a job when an input is newer than an output. Times mean little here: DVC restores files in any order,
and of what DVC made Snakemake has no record. So content decides (`agm.provenance`), and times are made to say the same:

* Every rule takes its job's key, `.cache/keys/<step>/<cell>.json`, as an input. Where the results are out of date, the
  key has the time of now, and holds a number that was never there before, because Snakemake ignores the time of a
  small input whose content it has seen. Else it has the oldest of times, which is no reason to run.
* Indexes are inputs too, so that Snakemake runs what follows from a job that runs. An index that is up to date gets
  the oldest of times as well. Bulky inputs are `ancient` in the rules: their indexes vouch for them.
"""

import json
import os
import time
from pathlib import Path
from typing import Any

from agm import provenance
from agm.files import replacing
from agm.graph import Graph, Job

KEYS = Path(".cache/keys")
# Seconds since 1970. Not 0, which Snakemake takes for a missing time.
OLDEST = 1


def path(job: Job) -> Path:
    """The key of `job`."""
    return KEYS.joinpath(job.step, *job.cell).with_name(f"{(job.step, *job.cell)[-1]}.json")


def refresh(graph: Graph, content: dict[str, Any]) -> dict[Job, str]:
    """Bring the keys and times up to date with the files and with raw parameters `content`.

    Returns:
        The jobs whose results are out of date, with the reason; not those that only follow from them.
    """
    checksums: dict[Path, str | None] = {}
    read = {used for job in graph.jobs for used in job.inputs}
    reasons = {}
    for job in graph.jobs:
        record = provenance.expected(job, content, checksums)
        reason = provenance.changed(job, record)
        _write(job, record, reason)
        if reason:
            reasons[job] = reason
        else:
            for made in (job.index, *job.outputs):
                if made in read and made.exists():
                    _make_old(made)
    return reasons


def explain(reasons: dict[Job, str]) -> list[str]:
    """One line for every step and reason, for the head of Snakemake's plan."""
    groups: dict[tuple[str, str], list[str]] = {}
    for job, reason in reasons.items():
        groups.setdefault((job.step, reason), []).append(job.command)
    return [
        f"out of date: `{commands[0]}`{f' and {len(commands) - 1} like it' if commands[1:] else ''}: {reason}"
        for (_, reason), commands in groups.items()
    ]


def _write(job: Job, record: dict[str, Any], reason: str | None) -> None:
    key = path(job)
    content = {"job": job.command, "parameters": record["parameters"], "code": record["code"]}
    if reason:
        content |= {"out of date": reason, "seen": time.time_ns()}
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    if not key.exists() or key.read_text(encoding="utf-8") != text:
        with replacing(key) as temporary:
            temporary.write_text(text, encoding="utf-8")
    if not reason:
        _make_old(key)


def _make_old(file: Path) -> None:
    # Not through a link: DVC may have linked the file to its cache.
    os.utime(file, (OLDEST, OLDEST), follow_symlinks=False)
