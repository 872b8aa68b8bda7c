"""The command line: one subcommand per step of the DAG, and the few that stand beside it.

The only module that knows every step. A step is a module with a function `run(params, job) -> summary`: it writes
the outputs of `job`, and what it returns goes into the job's index, which is written last and so marks the job done;
what is under `provenance.ABOUT` goes into its record. The checkpoints of a run are removed then.
"""

import argparse
import importlib
import locale
import os
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from agm import __version__
from agm.extras import MissingExtra
from agm.pipeline import config
from agm.pipeline.dag import code, provenance, store, unfinished
from agm.pipeline.dag.graph import MANY, Graph, Job
from agm.pipeline.errors import AgmError, Stopped, of_extra, of_system
from agm.pipeline.io.files import remove
from agm.pipeline.runtime import variables
from agm.pipeline.runtime.lock import alone
from agm.pipeline.runtime.progress import say
from agm.pipeline.runtime.terminal import prepare_streams

STEPS = {
    "generate": ("agm.pipeline.steps.generate.step", ["set"], "make a demo data set as raw files"),
    "annotations": ("agm.pipeline.steps.ingest.annotations", ["key"], "put on record which annotations there are"),
    "list": (
        "agm.pipeline.steps.ingest.listing",
        [],
        "read the annotations; list the files they name: paths, sizes, times",
    ),
    "ingest": (
        "agm.pipeline.steps.ingest.step",
        [],
        "probe every file; write the manifest and the clips that cannot be used",
    ),
    "extract": ("agm.pipeline.steps.extract.step", ["modality", "part"], "turn one part of one modality into tensors"),
    "shard": ("agm.pipeline.steps.shard.step", [], "join the modalities by clip into train, val and test shards"),
    "inspect": (
        "agm.pipeline.steps.inspect.step",
        [],
        "see the data: contact sheet, durations, what leaks; or one clip",
    ),
    "train": ("agm.pipeline.steps.train.step", ["fusion", "method", "seed"], "train one run of the study"),
    "concept": (
        "agm.pipeline.steps.train.step",
        ["fusion", "modality", "seed"],
        "train one modality alone (the mono-modal concept)",
    ),
    "evaluate": (
        "agm.pipeline.steps.evaluate.step",
        ["fusion", "method", "seed"],
        "score a run and its competition strength",
    ),
    "evaluate_concept": (
        "agm.pipeline.steps.evaluate.step",
        ["fusion", "modality", "seed"],
        "score a mono-modal concept",
    ),
    "report": ("agm.pipeline.steps.report.step", [], "aggregate the study into one page and its tables"),
}

# Before the first files are read, and where methods are used; importing them (and torch) takes seconds.
TRAINING = ("train", "concept")
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
    if arguments is None:
        arguments = sys.argv[1:]
        prepare_streams()
        _restart_where_needed(arguments)
    options = _parser(asked_for=arguments[0] if arguments else "").parse_args(arguments)
    try:
        variables.check()
        options.run(options)
    except AgmError as error:
        say(f"error: {error}")
        return 1
    except OSError as error:
        say(f"error: {of_system(error)}")
        return 1
    except MissingExtra as error:
        say(f"error: {of_extra(error)}")
        return 1
    except Stopped as stopped:
        say(str(stopped))
        return 128 + stopped.signal
    except KeyboardInterrupt:
        say("interrupted")
        return 130
    return 0


def _restart_where_needed(arguments: list[str]) -> None:
    """Go on in another Python where this one would use other source, or other names of files, than the folder has.

    In a folder that has the source, that one is run: an environment may belong to another folder, of which this one is
    a clone, a worktree or a task of DVC's queue. DVC compares the source of the folder. Names of files are UTF-8 here,
    whatever the locale says.
    """
    # What lies in the folder, yaml.py say, is not imported in the place of a library: not here, by -P, and not by the
    # processes that this one starts.
    os.environ["PYTHONSAFEPATH"] = "1"
    own = Path("src/agm/pipeline/cli.py").absolute()
    other_source = own.is_file() and not own.samefile(__file__)
    other_names = sys.getfilesystemencoding() != "utf-8"
    if other_source:
        paths = [str(own.parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])]
        os.environ["PYTHONPATH"] = os.pathsep.join(paths)
    if other_names:
        os.environ["PYTHONUTF8"] = "1"
        # What is printed stays in the encoding of the terminal.
        os.environ.setdefault("PYTHONIOENCODING", f"{locale.getencoding()}:backslashreplace")
    if other_source or other_names:
        os.execv(sys.executable, [sys.executable, "-X", "utf8", "-P", "-m", "agm.pipeline.cli", *arguments])


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
        for argument in cell[:-1] if step in MANY else cell:
            command.add_argument(argument)
        if step in MANY:
            command.add_argument(cell[-1], nargs="?", help=f"by default each {cell[-1]} of the study in turn")
        command.add_argument("--force", action="store_true", help="make it anew, from nothing")
        command.set_defaults(run=_step, step=step, cell=cell)
        if step == "inspect":
            command.add_argument("clip", nargs="?", help="the id of one clip; by default the whole data set")
            command.set_defaults(run=_inspect)
    datasets = add(
        "datasets",
        "agm.pipeline.steps.ingest.datasets",
        "the published data sets: what they are, what of one is in a folder",
    )
    datasets.add_argument("name", nargs="?", help="a file of params/dataset/, or a data set of the list")
    datasets.add_argument("overrides", nargs="*", help="Hydra overrides, such as dataset.root=/its/folder")
    datasets.set_defaults(run=_datasets)
    compose = add("compose", "agm.pipeline.config.compose", "write params.yaml from the groups in params/")
    compose.add_argument("overrides", nargs="*", help="Hydra overrides, such as study=demo methods.agm.alpha=2")
    compose.set_defaults(run=_compose)
    add(
        "check", "agm.pipeline.steps.ingest.raw", "see whether raw files or the source have changed, for `dvc repro`"
    ).set_defaults(run=_check)
    add(
        "code",
        "agm.pipeline.dag.fingerprints",
        "write the fingerprints of the source, which DVC compares in place of the source",
    ).set_defaults(run=_code)
    record = add(
        "record", "agm.pipeline.dag.engines.record", "after Snakemake: commit the results to DVC, save the experiment"
    )
    record.add_argument("-n", "--name", help="name of the experiment; by default the study's and a checksum")
    record.set_defaults(run=_record)
    sync = add(
        "sync",
        "agm.pipeline.dag.engines.sync",
        "after a DVC checkout, pull or apply: tell Snakemake what is up to date",
    )
    sync.set_defaults(run=_sync)
    clean = add("clean", "agm.pipeline.dag.clean", "list the checkpoints of runs that are not finished, or delete some")
    clean.add_argument("names", nargs="*", metavar="NAME", help="the beginning of a name that is listed")
    clean.add_argument("--delete", action="store_true", help="delete those of no use any more, or the ones named")
    clean.add_argument("--all", action="store_true", help="with --delete: also those that can be resumed")
    clean.set_defaults(run=_clean)
    return parser


def _step(options: argparse.Namespace) -> None:
    params = config.load()
    if options.step in METHODS_CHECKED:
        from agm import methods

        methods.check(params, config.PARAMS_FILE)
    if options.step == "list":
        _look_at_raw_files(params)
    cell = tuple(value for name in options.cell if (value := getattr(options, name)) is not None)
    graph = Graph(params)
    for job in _asked_for(graph, options.step, cell):
        with alone(job.step, *job.cell), store.passed_over() if options.force else nullcontext():
            checksums: provenance.Checksums = {}
            provenance.check_inputs(job, graph, checksums)
            if options.force or provenance.outdated(job, params, checksums) or provenance.damaged(job):
                _make(params, job, provenance.expected(job, params, checksums))
            else:
                say(f"{job.command}: up to date")
            if job.step in TRAINING:
                unfinished.remove(params, job)


def _asked_for(graph: Graph, step: str, cell: tuple[str, ...]) -> list[Job]:
    """The job at `cell`, or those of which it is the beginning.

    Raises:
        AgmError: when there is none.
    """
    if jobs := [job for job in graph.jobs if job.step == step and job.cell[: len(cell)] == cell]:
        return jobs
    known = "\n".join(f"         {' '.join(each)}" for each in graph.cells(step)) or "         (none)"
    raise AgmError(
        f"The study has no such job: {step} {' '.join(cell)}", where=config.PARAMS_FILE, fix=f"there are:\n{known}"
    )


def _make(params: config.Params, job: Job, made_from: dict[str, Any]) -> None:
    remove(job.index)
    if store.take(job, made_from):
        return
    step = importlib.import_module(STEPS[job.step][0])
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
    if reason := provenance.difference(made_from, provenance.expected(job, config.load()), job.step):
        remove(job.index)
        raise AgmError(
            f"While `{job.command}` ran, {reason}: its result is not recorded",
            where=config.PARAMS_FILE,
            fix="run it again; set back to what it was, the result is taken from the store",
        )


def _inspect(options: argparse.Namespace) -> None:
    params = config.load()
    if options.clip in (None, params.dataset.name):
        _step(options)
        return
    from agm.pipeline.steps.inspect.clip import inspect

    inspect(params, options.clip)


def _datasets(options: argparse.Namespace) -> None:
    from agm.pipeline.steps.ingest import datasets

    if options.name is None:
        datasets.overview()
    else:
        datasets.describe(options.name, options.overrides)


def _compose(options: argparse.Namespace) -> None:
    from agm.pipeline.config.compose import compose

    compose(options.overrides)


def _code(options: argparse.Namespace) -> None:
    from agm.pipeline.dag.engines.repository import check_links
    from agm.pipeline.dag.fingerprints import write

    params = config.load()
    check_links(Graph(params))
    write(params)


def _check(options: argparse.Namespace) -> None:
    from agm.pipeline.dag.fingerprints import write

    params = config.load()
    write(params)
    _look_at_raw_files(params)


def _look_at_raw_files(params: config.Params) -> None:
    from agm.pipeline.steps.ingest.raw import check

    for line in check(params):
        say(line)


def _record(options: argparse.Namespace) -> None:
    from agm.pipeline.dag.engines.record import record

    record(options.name)


def _sync(options: argparse.Namespace) -> None:
    from agm.pipeline.dag.engines.sync import sync

    sync()


def _clean(options: argparse.Namespace) -> None:
    from agm.pipeline.dag.clean import clean

    clean(config.load(), options.names, options.delete, options.all)


if __name__ == "__main__":
    sys.exit(main())
