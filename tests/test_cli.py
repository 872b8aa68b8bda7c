"""The command line itself: help for everything, and nothing imported that a command does not need."""

import importlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from agm.pipeline import cli
from agm.pipeline.commands import COMMANDS, GROUPS
from agm.pipeline.config.compose import compose
from clone import ROOT

HEAVY = ("torch", "polars", "pyarrow", "numpy", "pydantic", "yaml", "rich", "hydra", "omegaconf", "dvc", "snakemake")
COMPOSING = ("hydra", "omegaconf", "antlr4")
REPORT = """\
import json, sys
from agm.pipeline import cli
statuses = []
for command in json.loads(sys.argv[1]):
    try:
        statuses.append(cli.main(command))
    except SystemExit as ended:
        statuses.append(ended.code)
print("\\n" + json.dumps([statuses, sorted(sys.modules)]))
"""


def imported(folder: Path, *commands: str) -> tuple[list[int], set[str]]:
    """Run commands, one after the other, in a new process; returns their statuses and the libraries it imported."""
    words = json.dumps([command.split() for command in commands])
    done = subprocess.run(
        [sys.executable, "-c", REPORT, words],
        cwd=folder,
        env={**os.environ, "AGM_WORKERS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    statuses, modules = json.loads(done.stdout.splitlines()[-1])
    return statuses, {name.partition(".")[0] for name in modules} | set(modules)


def shown(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What a command that succeeds prints."""
    capsys.readouterr()
    try:
        assert cli.main(list(arguments)) == 0
    except SystemExit as ended:
        assert ended.code == 0
    return capsys.readouterr().out


# --- the overview ---


def test_agm_alone_shows_every_command_in_its_group(capsys: pytest.CaptureFixture[str]) -> None:
    overview = shown(capsys)
    assert overview == shown(capsys, "--help") == shown(capsys, "-h")
    for group, purpose in GROUPS.items():
        block = overview.partition(f"\n{group}: {purpose}\n")[2].partition("\n\n")[0]
        listed = [line.split()[0] for line in block.splitlines()]
        assert listed == [command.name for command in COMMANDS.values() if command.group == group]
        assert listed, "no group is empty"
    assert {command.group for command in COMMANDS.values()} == GROUPS.keys()
    assert all(len(line) <= 100 for line in overview.splitlines())


def test_what_to_type_first_can_be_typed(capsys: pytest.CaptureFixture[str]) -> None:
    first = re.findall(r"^  agm ([a-z]+)", shown(capsys).partition("Start here")[2].partition("\n\n")[0], re.MULTILINE)
    assert first and set(first) <= COMMANDS.keys()


def test_an_unknown_command_is_an_error_with_the_one_that_was_meant(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["trian", "late_concat"]) == 2
    said = capsys.readouterr()
    assert "there is no command 'trian' (did you mean 'train'?)" in said.err and "agm --help" in said.err
    assert said.out == ""


@pytest.mark.parametrize("arguments", [[], ["--version"]])
def test_a_full_disk_is_an_error_in_words(arguments: list[str]) -> None:
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "agm.pipeline.cli", *arguments]
        done = subprocess.run(command, cwd=ROOT, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("error: cannot read or write: No space left on device")


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert shown(capsys, "--version") == f"agm {cli.agm.__version__}\n"


# --- the help of one command ---


@pytest.mark.parametrize("name", COMMANDS)
def test_every_argument_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    command = COMMANDS[name]
    text = " ".join(shown(capsys, name, "--help").split())
    for argument in command.arguments:
        assert argument.settings["help"], argument.names
        assert " ".join(argument.settings["help"].split()) in text


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_is_the_docstring_of_the_module(name: str) -> None:
    assert cli.documentation(COMMANDS[name].about) == importlib.import_module(COMMANDS[name].about).__doc__


def test_help_imports_nothing_heavy(tmp_path: Path) -> None:
    """One process asks for all of it, so one that imported too much would show here."""
    statuses, modules = imported(tmp_path, "--help", "--version", *(f"{name} --help" for name in COMMANDS))
    assert set(statuses) == {0}
    assert not modules & set(HEAVY)
    assert not {name for name in modules if name.startswith(("agm.pipeline.steps.", "agm.methods", "agm.models"))}


# --- what commands import ---


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with parameters of a small demo study, and the groups that they come from."""
    (tmp_path / "params").symlink_to(ROOT / "params")
    compose(["study=demo", "dial.clips=20", "num_parts=1"], tmp_path / "params.yaml", groups=ROOT / "params")
    return tmp_path


def test_only_composing_imports_hydra(project: Path) -> None:
    looking = ["status", "code", "clean", "check", "datasets", "datasets crema_d"]
    # There is nothing to train on yet; but what a step imports before it begins, it has imported then.
    statuses, modules = imported(project, *looking, "train late_concat joint 0")
    assert statuses == [*[0] * len(looking), 1]
    assert "torch" in modules and not modules & set(COMPOSING)
    statuses, modules = imported(project, "compose study=demo")
    assert statuses == [0] and modules >= {"hydra", "omegaconf"}


def test_commands_that_look_import_no_torch(project: Path) -> None:
    statuses, modules = imported(project, "status", "status --json", "code", "clean")
    assert statuses == [0] * 4
    assert not modules & {"torch", "polars", "pyarrow", "numpy", "rich"}


def test_start_up_does_not_parse_the_source(project: Path) -> None:
    """Pydantic would read the source of every block for descriptions that nobody asks for."""
    script = "import inspect\ninspect.getsource = inspect.getsourcelines = None\nfrom agm.pipeline import config"
    subprocess.run([sys.executable, "-c", f"{script}\nconfig.load()"], cwd=project, check=True)
