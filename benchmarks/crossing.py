"""What the crossings between the engines cost in a large study: seconds of `dvc status`, `agm record` and `agm sync`.

    python benchmarks/crossing.py --runs 50 250 1000

In a new clone, with files of a few bytes in the place of results: what is measured depends on the number of runs and
stages alone. Each command runs as a person runs it; the first `agm record` has everything to record, the second one the
results of one method of one fusion, which were made anew.
"""

import argparse
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).parent.parent
FUSIONS = 2
MAKE = """\
import sys
from agm.pipeline import config
from agm.pipeline.dag import provenance
from agm.pipeline.io.files import replacing
from agm.pipeline.dag.graph import Graph
from agm.pipeline.steps.ingest import raw

params = config.load()
list(raw.check(params))
for job in Graph(params).jobs:
    if not provenance.outdated(job, params):
        continue
    for output in job.outputs:
        with replacing(output) as temporary:
            temporary.write_text(f"{job.command} {sys.argv[1]}") if output.suffix else temporary.mkdir()
    provenance.write(job, provenance.expected(job, params), {"made": sys.argv[1]})
"""


def main() -> None:
    """Print a table with a row per number of runs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, nargs="+", default=[50, 250], help="runs of methods, multiples of 50")
    print("  runs  stages  dvc status  agm record  again, one method  agm sync  snakemake -n")
    for runs in parser.parse_args().runs:
        with TemporaryDirectory() as folder:
            print(_row(Path(folder, "clone"), runs), flush=True)


def _row(folder: Path, runs: int) -> str:
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(folder)], check=True)
    shutil.copytree(ROOT / "src", folder / "src", dirs_exist_ok=True)
    seeds = list(range(runs // (25 * FUSIONS)))
    _run(folder, "agm", "compose", "study=table", "fusion=[late_concat,late_sum]", f"study.seeds={seeds}")
    raw = folder / "data/raw/dial"
    raw.mkdir(parents=True)
    (raw / "labels.csv").write_text("clip_id\n")
    _make(folder, "first")
    record = _run(folder, "agm", "record")
    stages = len(_run_for_text(folder, "dvc", "stage", "list", "--name-only").split())
    status = _run(folder, "dvc", "status")
    sync = _run(folder, "agm", "sync")
    plan = _run(folder, "snakemake", "--dry-run")
    text = (folder / "params.yaml").read_text()
    (folder / "params.yaml").write_text(text.replace("alpha: 1.0", "alpha: 2.0", 1))
    _make(folder, "second")
    again = _run(folder, "agm", "record")
    return f"{runs:6}{stages:8}{status:12.1f}{record:12.1f}{again:19.1f}{sync:10.1f}{plan:14.1f}"


def _make(folder: Path, text: str) -> None:
    environment = _environment(folder)
    subprocess.run([sys.executable, "-c", MAKE, text], cwd=folder, env=environment, check=True)


def _run(folder: Path, *command: str) -> float:
    start = time.monotonic()
    _run_for_text(folder, *command)
    return time.monotonic() - start


def _run_for_text(folder: Path, *command: str) -> str:
    done = subprocess.run(command, cwd=folder, env=_environment(folder), capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")
    return done.stdout


def _environment(folder: Path) -> dict[str, str]:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    author = {f"GIT_{role}_{what}": "benchmark" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    return {**os.environ, **author, "PATH": path, "PYTHONPATH": str(folder / "src")}


if __name__ == "__main__":
    main()
