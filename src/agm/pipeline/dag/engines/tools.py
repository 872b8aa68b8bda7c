"""The two engines as commands, always those of this Python's environment; and what both crossings ask of the files."""

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
        AgmError: with the end of what the tool said, when it fails.
    """
    command = [sys.executable, "-P", "-m", tool, *arguments]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace")
    if done.returncode:
        said = "\n".join((done.stdout + done.stderr).strip().splitlines()[-15:])
        raise AgmError(f"`{tool} {arguments[0]}` failed:\n{said}", where=Path.cwd())
    return done.stdout


@contextmanager
def errors_explained() -> Iterator[None]:
    """End Snakemake with an error's words in the place of a traceback."""
    try:
        yield
    except AgmError as error:
        sys.exit(harmless(f"error: {error}"))
    except OSError as error:
        sys.exit(harmless(f"error: {of_system(error)}"))
    except MissingExtra as error:
        sys.exit(harmless(f"error: {of_extra(error)}"))


def prepare_jobs() -> None:
    """Set what the processes need that Snakemake starts for its jobs."""
    # The `agm` beside this Python, also where nobody has activated the environment: in a job on a cluster.
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    # What lies in the folder, yaml.py say, is not imported in the place of a library.
    os.environ["PYTHONSAFEPATH"] = "1"


def ignore_times_of_results() -> None:
    """Take from Snakemake the check that no input of a job is newer than what the job has made.

    It asks that of `ancient` inputs too: where the clock was set back, or files came with times ahead of it, every job
    that reads them would fail.
    """
    from snakemake.dag import DAG

    async def accept(dag: DAG, job: object, outputs: object) -> None: ...

    DAG.check_output_mtime = accept


def leftovers(graph: Graph) -> list[Path]:
    """Folders and files beside the study's results that no job of it makes: what an earlier study left.

    They do no harm to results, but DVC knows the inputs of the report as whole folders.
    """
    made = {path for job in graph.jobs for path in (job.index, job.record, *job.outputs)}
    within = {parent for path in made for parent in path.parents}
    roots = (graph.data / "features", graph.runs, graph.evaluations)
    roots += tuple(RECORDS / root for root in roots)
    return [path for root in roots for path in _unknown(root, made, within)]


def _unknown(folder: Path, made: set[Path], within: set[Path]) -> Iterator[Path]:
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        if path in within:
            yield from _unknown(path, made, within)
        elif path not in made:
            yield path
