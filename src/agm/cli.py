"""The command line: one subcommand per step of the DAG, and the few that stand beside it.

The only module that knows every step. A step is a module with a function `run(params, job) -> summary`: it writes
the outputs of `job`, and what it returns goes into the job's index, which is written last and so marks the job done.
What it kept for a restart until then, `finished(job, summary)` removes.
"""

import argparse
import importlib
import sys
from pathlib import Path
from typing import Any

from agm import __version__, config, provenance
from agm.errors import AgmError, Stopped
from agm.files import remove, write_index
from agm.graph import Graph, Job
from agm.lock import alone
from agm.progress import say

STEPS = {
    "generate": ("agm.generate.step", ["set"], "make a demo data set as raw files"),
    "annotations": ("agm.ingest.annotations", ["key"], "put on record which annotations there are"),
    "list": ("agm.ingest.listing", [], "read the annotations; list the files they name: paths, sizes, times"),
    "ingest": (
        "agm.ingest.step",
        [],
        "probe every file; write the manifest and the clips that cannot be used",
    ),
    "extract": ("agm.extract.step", ["modality", "part"], "turn one part of one modality into tensors"),
    "shard": ("agm.shard.step", [], "join the modalities by clip into train, val and test shards"),
    "inspect": ("agm.inspect.step", [], "see the data: contact sheet, durations, what leaks; or one clip"),
    "train": ("agm.train.step", ["fusion", "method", "seed"], "train one run of the study"),
    "concept": (
        "agm.train.step",
        ["fusion", "modality", "seed"],
        "train one modality alone (the mono-modal concept)",
    ),
    "evaluate": (
        "agm.evaluate.step",
        ["fusion", "method", "seed"],
        "score a run and its competition strength",
    ),
    "evaluate_concept": ("agm.evaluate.step", ["fusion", "modality", "seed"], "score a mono-modal concept"),
    "report": ("agm.report.step", [], "aggregate the study into one page and its tables"),
}

# Before the first files are read, and where methods are used; importing them (and torch) takes seconds.
METHODS_CHECKED = ("generate", "list", "train", "evaluate")

ABOUT = """\
Which modality is starved in joint training, how badly, and does modulation fix it?

Run the whole study with `snakemake` or `dvc repro`; each of the steps below is one job of it, and reads
params.yaml in the current folder. `agm compose` writes that file from the groups in params/."""


def main(arguments: list[str] | None = None) -> int:
    """Run one command.

    Returns:
        The exit status: 0, 1 for an error that the message explains, 128 and its number when stopped by a signal.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    options = _parser(asked_for=arguments[0] if arguments else "").parse_args(arguments)
    try:
        options.run(options)
    except AgmError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(
            f"error: cannot read or write: {error.strerror or error}\n  where: {error.filename or Path.cwd()}",
            file=sys.stderr,
        )
        return 1
    except Stopped as stopped:
        print(stopped, file=sys.stderr)
        return 128 + stopped.signal
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    return 0


def _parser(asked_for: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="agm", description=ABOUT, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--version", action="version", version=f"agm {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def add(name: str, module: str, purpose: str) -> argparse.ArgumentParser:
        # A module's docstring is its command's documentation; importing them all would take seconds.
        about = importlib.import_module(module).__doc__ if name == asked_for else purpose
        return commands.add_parser(
            name, help=purpose, description=about, formatter_class=argparse.RawDescriptionHelpFormatter
        )

    for step, (module, cell, purpose) in STEPS.items():
        command = add(step.replace("_", "-"), module, purpose)
        for argument in cell:
            command.add_argument(argument)
        command.set_defaults(run=_step, step=step, cell=cell)
        if step == "inspect":
            command.add_argument("clip", nargs="?", help="the id of one clip; by default the whole data set")
            command.set_defaults(run=_inspect)
    datasets = add("datasets", "agm.datasets", "the published data sets: what they are, what of one is in a folder")
    datasets.add_argument("name", nargs="?", help="a file of params/dataset/, or a data set of the list")
    datasets.add_argument("overrides", nargs="*", help="Hydra overrides, such as dataset.root=/its/folder")
    datasets.set_defaults(run=_datasets)
    compose = add("compose", "agm.compose", "write params.yaml from the groups in params/")
    compose.add_argument("overrides", nargs="*", help="Hydra overrides, such as study=demo methods.agm.alpha=2")
    compose.set_defaults(run=_compose)
    record = add("record", "agm.engines.record", "after Snakemake: commit the results to DVC, save the experiment")
    record.add_argument("-n", "--name", help="name of the experiment; by default the study's and a checksum")
    record.set_defaults(run=_record)
    sync = add("sync", "agm.engines.sync", "after a DVC checkout, pull or apply: tell Snakemake what is up to date")
    sync.set_defaults(run=_sync)
    return parser


def _step(options: argparse.Namespace) -> None:
    content = config.read()
    params = config.check(content, config.PARAMS_FILE)
    if options.step in METHODS_CHECKED:
        from agm import methods

        methods.check(params, config.PARAMS_FILE)
    graph = Graph(params)
    cell = tuple(getattr(options, name) for name in options.cell)
    try:
        job = graph.job(options.step, *cell)
    except KeyError:
        known = "\n".join(f"         {' '.join(each)}" for each in graph.cells(options.step)) or "         (none)"
        raise AgmError(
            f"The study has no such job: {options.step} {' '.join(cell)}",
            where=config.PARAMS_FILE,
            fix=f"there are:\n{known}",
        ) from None
    with alone(job.step, *job.cell) as waited:
        if waited and provenance.outdated(job, content) is None:
            say(f"that process has made it: nothing is left to do for `{job.command}`")
        else:
            _make(params, job, content)


def _make(params: config.Params, job: Job, content: dict[str, Any]) -> None:
    provenance.check_inputs(job)
    record = provenance.expected(job, content)
    remove(job.index)
    step = importlib.import_module(STEPS[job.step][0])
    summary = step.run(params, job)
    write_index(job.index, {provenance.RECORD: record, **summary})
    if hasattr(step, "finished"):
        step.finished(job, summary)


def _inspect(options: argparse.Namespace) -> None:
    params = config.load()
    if options.clip in (None, params.dataset.name):
        _step(options)
        return
    from agm.inspect.clip import inspect

    inspect(params, options.clip)


def _datasets(options: argparse.Namespace) -> None:
    from agm import datasets

    if options.name is None:
        datasets.overview()
    else:
        datasets.describe(options.name, options.overrides)


def _compose(options: argparse.Namespace) -> None:
    from agm.compose import compose

    compose(options.overrides)


def _record(options: argparse.Namespace) -> None:
    from agm.engines.record import record

    record(options.name)


def _sync(options: argparse.Namespace) -> None:
    from agm.engines.sync import sync

    sync()


if __name__ == "__main__":
    sys.exit(main())
