"""The commands of `agm`: what each is for, who uses it, its arguments and the function that runs it.

`COMMANDS` is the whole table; `agm.pipeline.cli` reads the command line with it. Nothing that takes time is imported
here: a function imports what its command needs, and the help of a command is the docstring of a module that is named
and not imported.
"""

from argparse import Namespace
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from agm.pipeline.steps import MODULES

GROUPS = {
    "study": "choose a study, follow it and keep its results",
    "look": "see the data and the results",
    "steps": "make one kind of result; Snakemake and DVC call these in order",
    "engines": "for DVC and Snakemake only",
}
"""The groups of commands, by who uses them, and what each group is for."""


class Argument:
    """One argument of a command, as `argparse.ArgumentParser.add_argument` takes it; it always has a help text.

    Args:
        names: the name of a positional argument, or the spellings of an option.
        help: one sentence for the user.
        settings: the other settings of `add_argument`.
    """

    def __init__(self, *names: str, help: str, **settings: Any) -> None:
        self.names = names
        self.settings = {"help": help, **settings}


@dataclass(frozen=True)
class Command:
    """One command.

    Attributes:
        name: what the user types behind `agm`.
        group: a key of `GROUPS`.
        purpose: one line for the overview.
        about: the module whose docstring is the command's help.
        run: runs the command; it gets the arguments.
        arguments: its arguments, in order.
    """

    name: str
    group: str
    purpose: str
    about: str
    run: Callable[[Namespace], None]
    arguments: tuple[Argument, ...] = ()


# --- what runs each command ---


def _compose(options: Namespace) -> None:
    if options.migrate:
        from agm.pipeline.config.migrate import migrate

        migrate(options.migrate, options.overrides)
        return
    from agm.pipeline.config.compose import compose

    compose(options.overrides)


def _datasets(options: Namespace) -> None:
    from agm.pipeline.steps.ingest import datasets

    if options.name is None:
        datasets.overview()
    else:
        datasets.describe(options.name, options.overrides)


def _methods(options: Namespace) -> None:
    from agm.pipeline.config import method_help

    if options.name is None:
        method_help.overview()
    else:
        method_help.describe(options.name)


def _status(options: Namespace) -> None:
    from agm.pipeline import config
    from agm.pipeline.dag.status import status

    status(config.load(), options.json)


def _check(options: Namespace) -> None:
    from agm.pipeline import config
    from agm.pipeline.dag import fingerprints, make

    params = config.load()
    fingerprints.write(params)
    make.look_at_raw_files(params)


def _record(options: Namespace) -> None:
    from agm.pipeline.dag.engines.record import record

    record(options.name)


def _sync(options: Namespace) -> None:
    from agm.pipeline.dag.engines.sync import sync

    sync()


def _clean(options: Namespace) -> None:
    from agm.pipeline import config
    from agm.pipeline.dag.clean import clean

    clean(config.load(), options.names, options.delete, options.all)


def _code(options: Namespace) -> None:
    from agm.pipeline import config
    from agm.pipeline.dag import fingerprints
    from agm.pipeline.dag.engines.repository import check_links
    from agm.pipeline.dag.graph import Graph

    params = config.load()
    check_links(Graph(params))
    fingerprints.write(params)


def _inspect(options: Namespace) -> None:
    from agm.pipeline import config
    from agm.pipeline.dag import make

    params = config.load()
    # The name of the data set stands for all of it.
    if options.clip in (None, params.dataset.name):
        make.run("inspect", (), options.force)
        return
    from agm.pipeline.steps.inspect.clip import inspect

    inspect(params, options.clip)


# --- the steps ---

FORCE = Argument(
    "--force", action="store_true", help="make the result again, even if it is up to date or kept in .cache/store"
)
SET = Argument("set", help="name of the demo data set: dial")
KEY = Argument("key", help="which annotations: a key of dataset.annotations")
FUSION = Argument("fusion", help="a fusion of the study, such as late_concat")
METHOD = Argument("method", help="a method of the study, such as joint")
MODALITY = Argument("modality", help="a modality of the study, such as audio")
PART = Argument("part", nargs="?", help="number of the part; without it, every part in turn")
SEED = Argument("seed", nargs="?", help="a seed of the study; without it, every seed in turn")


def _step(
    step: str,
    purpose: str,
    *cell: Argument,
    group: str = "steps",
    more: tuple[Argument, ...] = (),
    run: Callable[[Namespace], None] | None = None,
) -> Command:
    """The command of a step of the DAG.

    Args:
        cell: the arguments that say which of the step's jobs to make.
        more: other arguments.
        run: runs the command, where it does more than to make these jobs.
    """

    def make_jobs(options: Namespace) -> None:
        from agm.pipeline.dag import make

        words = [getattr(options, argument.names[0]) for argument in cell]
        make.run(step, tuple(word for word in words if word is not None), options.force)

    name = step.replace("_", "-")
    return Command(name, group, purpose, MODULES[step], run or make_jobs, (*cell, *more, FORCE))


# --- the table ---

_ALL = (
    Command(
        "datasets",
        "study",
        "list the published data sets, or describe one of them",
        "agm.pipeline.steps.ingest.datasets",
        _datasets,
        (
            Argument("name", nargs="?", help="a file of params/dataset/, or a name of the list; without it, the list"),
            Argument("overrides", nargs="*", help="Hydra overrides, such as dataset.root=/its/folder"),
        ),
    ),
    Command(
        "compose",
        "study",
        "write params.yaml from the groups in params/",
        "agm.pipeline.config.compose",
        _compose,
        (
            Argument("overrides", nargs="*", help="Hydra overrides, such as study=demo methods.agm.alpha=2"),
            Argument("--migrate", nargs="+", metavar="FILE", help="rewrite the old names of keys in these files"),
        ),
    ),
    Command(
        "methods",
        "study",
        "list the methods, or show what one does and its parameters",
        "agm.pipeline.config.method_help",
        _methods,
        (Argument("name", nargs="?", help="a method, such as agm; without it, the list"),),
    ),
    Command(
        "status",
        "study",
        "show what is done, running, out of date (and why), failed or missing",
        "agm.pipeline.dag.status",
        _status,
        (Argument("--json", action="store_true", help="print every job as JSON, for programs"),),
    ),
    Command(
        "check",
        "study",
        "look for changed raw files and source code, before `dvc repro`",
        "agm.pipeline.steps.ingest.raw",
        _check,
    ),
    Command(
        "record",
        "study",
        "after Snakemake: commit the results to DVC and save the experiment",
        "agm.pipeline.dag.engines.record",
        _record,
        (Argument("-n", "--name", help="name of the experiment; without it, the study's name and a checksum"),),
    ),
    Command(
        "sync",
        "study",
        "after a DVC checkout, pull or apply: tell Snakemake what is up to date",
        "agm.pipeline.dag.engines.sync",
        _sync,
    ),
    Command(
        "clean",
        "study",
        "list the checkpoints of unfinished runs, or delete some of them",
        "agm.pipeline.dag.clean",
        _clean,
        (
            Argument("names", nargs="*", metavar="NAME", help="first letters of the name of a listed folder"),
            Argument("--delete", action="store_true", help="delete the folders named, or else those of no more use"),
            Argument("--all", action="store_true", help="with --delete: also those from which a run can go on"),
        ),
    ),
    _step(
        "inspect",
        "draw a contact sheet, find leaks between splits; or show one clip",
        group="look",
        more=(Argument("clip", nargs="?", help="id of one clip; without it, the whole data set"),),
        run=_inspect,
    ),
    _step("report", "write the page and the tables of the study", group="look"),
    _step("generate", "make a demo data set as raw files", SET),
    _step("annotations", "record checksums of the annotation files", KEY),
    _step("list", "read the annotations and list the files that they name"),
    _step("ingest", "probe every file; write the manifest and the list of unusable clips"),
    _step("extract", "turn the files of one modality into tensors", MODALITY, PART),
    _step("shard", "join the modalities by clip into training, validation and test shards"),
    _step("train", "train a model on all modalities, by one method", FUSION, METHOD, SEED),
    _step("concept", "train a model on one modality alone (its mono-modal concept)", FUSION, MODALITY, SEED),
    _step("evaluate", "score a trained model; measure its competition strength", FUSION, METHOD, SEED),
    _step("evaluate_concept", "score a model of one modality alone", FUSION, MODALITY, SEED),
    Command(
        "code",
        "engines",
        "write the fingerprints of the source code, which DVC compares",
        "agm.pipeline.dag.fingerprints",
        _code,
    ),
)
COMMANDS: dict[str, Command] = {command.name: command for command in _ALL}
"""Every command, by its name, in the order of the overview."""
