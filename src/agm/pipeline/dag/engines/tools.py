"""The two engines as commands of this Python's environment, and the files that are not part of the study."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from agm.extras import MissingExtra
from agm.pipeline.dag.graph import RECORDS, Graph
from agm.pipeline.errors import AgmError, of_extra, of_system
from agm.pipeline.runtime.terminal import harmless


def call(tool: str, *arguments: str) -> str:
    """Run `tool` (dvc or snakemake) and return what it printed on standard output.

    Raises:
        AgmError: with the end of the tool's messages, when it fails.
    """
    command = [sys.executable, "-P", "-m", tool, *arguments]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace")
    if done.returncode:
        lines = (done.stdout + done.stderr).strip().splitlines()
        messages = "\n".join(lines[-15:])
        raise AgmError(f"`{tool} {arguments[0]}` failed:\n{messages}", where=Path.cwd())
    return done.stdout


@contextmanager
def errors_explained() -> Iterator[None]:
    """End Snakemake with the message of an error instead of a traceback."""
    try:
        yield
    except AgmError as error:
        sys.exit(harmless(f"error: {error}"))
    except OSError as error:
        sys.exit(harmless(f"error: {of_system(error)}"))
    except MissingExtra as error:
        sys.exit(harmless(f"error: {of_extra(error)}"))


def prepare_jobs() -> None:
    """Set the environment of the processes that Snakemake starts for its jobs."""
    # The `agm` of this Python, also where the environment is not activated: in a job on a cluster.
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    # A file of the folder, such as yaml.py, is not imported instead of a library.
    os.environ["PYTHONSAFEPATH"] = "1"


def ignore_times_of_results() -> None:
    """Remove Snakemake's check that no input of a job is newer than its outputs.

    Snakemake checks `ancient` inputs too: where the clock was set back, or files have times in the future, every job
    that reads them would fail.
    """
    from snakemake.dag import DAG

    async def accept(dag: DAG, job: object, outputs: object) -> None: ...

    DAG.check_output_mtime = accept


def leftovers(graph: Graph) -> list[Path]:
    """Folders and files beside the study's results that no job of the study makes: those of an earlier study.

    They do not change results, but DVC compares the inputs of the report as whole folders.
    """
    made = set()
    for job in graph.jobs:
        made.update((*job.results, job.record))
    folders = set()
    for path in made:
        folders.update(path.parents)
    roots = [graph.data / "features", graph.runs, graph.evaluations]
    roots += [RECORDS / root for root in roots]
    unknown = []
    for root in roots:
        unknown += _unknown(root, made, folders)
    return unknown


def _unknown(folder: Path, made: set[Path], folders: set[Path]) -> Iterator[Path]:
    """What lies below `folder` and is neither among the `made` files nor one of the `folders` that hold them."""
    if not folder.is_dir():
        return
    for path in sorted(folder.iterdir()):
        if path in folders:
            yield from _unknown(path, made, folders)
        elif path not in made:
            yield path
