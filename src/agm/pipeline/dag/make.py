"""Make jobs: what `agm train`, `agm extract` and every other step of the command line does.

A job is made only where its result is missing, out of date or damaged, or where the user asks for it with `--force`.
The step writes the job's outputs. What it returns goes into the job's index, which is written last and so marks the
job done; what it returns under `provenance.ABOUT` goes into the job's record.
"""

import importlib
from contextlib import nullcontext
from typing import Any

from agm.pipeline import config
from agm.pipeline.config import Params
from agm.pipeline.dag import code, provenance, store, unfinished
from agm.pipeline.dag.graph import TRAINING, Graph, Job
from agm.pipeline.errors import AgmError
from agm.pipeline.io.files import remove
from agm.pipeline.runtime.lock import alone
from agm.pipeline.runtime.progress import say
from agm.pipeline.steps import MODULES

METHODS_CHECKED = ("generate", "list", "train", "evaluate")
"""Steps before which the parameters of all methods are checked: the first ones of a study, and those that use methods.
The check imports torch, which takes seconds."""


def run(step: str, cell: tuple[str, ...], force: bool) -> None:
    """Make the jobs of `step` whose cells begin with `cell`, one after the other, as far as they need it.

    Args:
        step: a key of `agm.pipeline.steps.MODULES`.
        cell: the arguments of the command; without the last one, every seed or part in turn.
        force: make them also where they are up to date, and take nothing from the store.

    Raises:
        AgmError: when there is no such job, an input is missing or out of date, or the step refuses.
    """
    params = config.load()
    if step in METHODS_CHECKED:
        from agm.pipeline.config import methods

        methods.check(params, config.PARAMS_FILE)
    if step == "list":
        look_at_raw_files(params)
    graph = Graph(params)
    for job in _jobs(graph, step, cell):
        with alone(job.step, *job.cell), store.passed_over() if force else nullcontext():
            _bring_up_to_date(graph, job, force)


def look_at_raw_files(params: Params) -> None:
    """Compare the raw files with their listing, and say what has changed."""
    from agm.pipeline.steps.ingest.raw import check

    for line in check(params):
        say(line)


def _jobs(graph: Graph, step: str, cell: tuple[str, ...]) -> list[Job]:
    """The job at `cell`, or those of which it is the beginning.

    Raises:
        AgmError: when there is none.
    """
    jobs = [job for job in graph.jobs if job.step == step and job.cell[: len(cell)] == cell]
    if jobs:
        return jobs
    known = "\n".join(f"         {' '.join(arguments)}" for arguments in graph.cells(step)) or "         (none)"
    raise AgmError(
        f"The study has no such job: {step} {' '.join(cell)}", where=config.PARAMS_FILE, fix=f"there are:\n{known}"
    )


def _bring_up_to_date(graph: Graph, job: Job, force: bool) -> None:
    checksums: provenance.Checksums = {}
    provenance.check_inputs(job, graph, checksums)
    if force or provenance.outdated(job, graph.params, checksums) or provenance.damaged(job):
        _make(graph.params, job, provenance.expected(job, graph.params, checksums))
    else:
        say(f"{job.command}: up to date")
    if job.step in TRAINING:
        unfinished.remove(graph.params, job)


def _make(params: Params, job: Job, made_from: dict[str, Any]) -> None:
    remove(job.index)
    if store.take(job, made_from):
        return
    step = importlib.import_module(MODULES[job.step])
    summary = step.run(params, job)
    provenance.write(job, made_from, summary)
    store.put(job, made_from)
    _check_unchanged(job, made_from)


def _check_unchanged(job: Job, made_from: dict[str, Any]) -> None:
    """Refuse a result whose parameters, code or inputs changed while it was made: an engine would take it for one of
    the new ones.

    Raises:
        AgmError: with what changed; the result is in the store only.
    """
    code.forget()
    reason = provenance.difference(made_from, provenance.expected(job, config.load()), job.step)
    if reason is not None:
        remove(job.index)
        raise AgmError(
            f"While `{job.command}` ran, {reason}: its result is not recorded",
            where=config.PARAMS_FILE,
            fix="run it again; set back to what it was, the result is taken from the store",
        )
