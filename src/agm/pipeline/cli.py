"""The command line `agm`: reads the arguments, runs one command and says in words what went wrong.

The commands are in `agm.pipeline.commands`. Help imports nothing that a command needs: it takes a moment.
"""

import argparse
import ast
import locale
import os
import sys
from pathlib import Path

import agm
from agm.extras import MissingExtra
from agm.pipeline.commands import COMMANDS, GROUPS, Command
from agm.pipeline.errors import AgmError, Stopped, meant, of_extra, of_system
from agm.pipeline.runtime import variables
from agm.pipeline.runtime.progress import say, show
from agm.pipeline.runtime.terminal import prepare_streams

HEAD = """\
usage: agm COMMAND …

Which modality is starved in joint training, how badly, and does modulation fix it?
Commands read params.yaml in the current folder.

Start here:
  agm compose study=demo    choose a study: write params.yaml
  snakemake                 make all its results (`dvc repro` does the same)
  agm status                see what is done and what needs attention
  agm COMMAND --help        read about one command"""
OPTIONS = """\
options:
  -h, --help        show this help, or that of a command
  --version         show the version"""
WRONG_USAGE = 2
"""The exit status of argparse for arguments that it does not understand."""


def main(arguments: list[str] | None = None) -> int:
    """Run one command.

    Returns:
        The exit status: 0, 1 for an error that the message explains, 2 for an unknown command, 128 and its number when
        stopped by a signal.
    """
    if arguments is None:
        arguments = sys.argv[1:]
        prepare_streams()
        _restart_where_needed(arguments)
    try:
        return _dispatch(arguments)
    except AgmError as error:
        say(f"error: {error}")
        return 1
    except OSError as error:
        say(f"error: {of_system(error)}")
        return 1
    except MissingExtra as error:
        say(f"error: {of_extra(error)}")
        return 1
    except ModuleNotFoundError as error:
        package = (error.name or "agm").partition(".")[0]
        if package == "agm":
            raise
        # Whatever the runner needs beyond torch and numpy comes with one extra.
        say(f"error: {of_extra(MissingExtra(package, 'pipeline'))}")
        return 1
    except Stopped as stopped:
        say(str(stopped))
        return 128 + stopped.signal
    except KeyboardInterrupt:
        say("interrupted")
        return 130


def _dispatch(arguments: list[str]) -> int:
    """Show the overview or the version, or run the command that is named first; returns the exit status."""
    name = arguments[0] if arguments else "--help"
    if name in ("-h", "--help"):
        show(_overview())
        return 0
    if name == "--version":
        show(f"agm {agm.__version__}")
        return 0
    if name not in COMMANDS:
        say(f"error: there is no command {name!r}{meant(name, COMMANDS)}\n  fix:   `agm --help` lists the commands")
        return WRONG_USAGE
    command = COMMANDS[name]
    options = _parser(command, arguments[1:]).parse_args(arguments[1:])
    variables.check()
    command.run(options)
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


# --- help ---


def _parser(command: Command, arguments: list[str]) -> argparse.ArgumentParser:
    """The parser of one command; it reads the help text only where that is asked for."""
    asked = "-h" in arguments or "--help" in arguments
    parser = argparse.ArgumentParser(
        prog=f"agm {command.name}",
        description=documentation(command.about) if asked else command.purpose,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    for argument in command.arguments:
        parser.add_argument(*argument.names, **argument.settings)
    return parser


def documentation(module: str) -> str:
    """The docstring of a module of this package, which is read from its file: importing it may take seconds.

    Args:
        module: its full name, such as agm.pipeline.steps.train.step.
    """
    package, *names = module.split(".")
    assert package == agm.__name__, module
    path = Path(agm.__file__).parent.joinpath(*names).with_suffix(".py")
    return ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")), clean=False) or ""


def _overview() -> str:
    """The commands in their groups, a line each."""
    blocks = [HEAD]
    width = max(map(len, COMMANDS))
    for group, purpose in GROUPS.items():
        lines = [f"{group}: {purpose}"]
        for command in COMMANDS.values():
            if command.group == group:
                lines.append(f"  {command.name:{width}}  {command.purpose}")
        blocks.append("\n".join(lines))
    blocks.append(OPTIONS)
    return "\n\n".join(blocks)


if __name__ == "__main__":
    sys.exit(main())
