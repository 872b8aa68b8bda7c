"""The two engines as commands, always those of this Python's environment; and what both crossings ask of the files."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from agm.errors import AgmError
from agm.graph import Graph


def call(tool: str, *arguments: str) -> str:
    """Run `tool` (dvc or snakemake) and return what it printed on standard output.

    Raises:
        AgmError: with the end of what the tool said, when it fails.
    """
    done = subprocess.run([sys.executable, "-m", tool, *arguments], capture_output=True, text=True)
    if done.returncode:
        said = "\n".join((done.stdout + done.stderr).strip().splitlines()[-15:])
        raise AgmError(f"`{tool} {arguments[0]}` failed:\n{said}", where=Path.cwd())
    return done.stdout


def leftovers(graph: Graph) -> list[Path]:
    """Folders and files beside the study's results that no job of it makes: what an earlier study left.

    They do no harm to results, but DVC knows the inputs of the report as whole folders.
    """
    made = {path for job in graph.jobs for path in (job.index, *job.outputs)}
    within = {parent for path in made for parent in path.parents}
    roots = (graph.data / "features", graph.runs, graph.evaluations)
    return [path for root in roots for path in _unknown(root, made, within)]


def _unknown(folder: Path, made: set[Path], within: set[Path]) -> Iterator[Path]:
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        if path in within:
            yield from _unknown(path, made, within)
        elif path not in made:
            yield path
