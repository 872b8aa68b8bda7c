"""Whether two versions of the source give the same results: one epoch of every method, byte for byte.

    python benchmarks/same_results.py OLD NEW [--fusions late_concat film] [--folder FOLDER]

Each version (a commit) makes the demo data and a run of two epochs of every method in a worktree of its own, from raw
files to predictions. Files are compared byte for byte. Where bytes differ, tensors and columns are compared, so that
other names of the same values are told apart from other values. With --folder the results of a commit are kept there,
and a later comparison does not make them again.
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import polars as pl
from safetensors.numpy import load_file

ROOT = Path(__file__).parent.parent
STUDY = ["study=table", "dial.clips=120", "study.seeds=[0]", "trainer.epochs=2"]
# Two epochs, because some methods act between epochs, and one compares the losses of the first and the last.
# A fusion that is not additive refuses these.
ADDITIVE_ONLY = ("amco", "greedy", "mla", "mmcosine", "reconboost")
# Every job of the study in one process, because importing torch takes most of the time of each.
DRIVER = """\
import sys
try:
    from agm.pipeline import cli, config
    from agm.pipeline.dag.graph import Graph
except ImportError:
    from agm import cli, config
    from agm.graph import Graph
for job in Graph(config.load()).jobs:
    if job.step not in ("inspect", "report") and cli.main(job.command.split()[1:]):
        sys.exit(f"{job.command} failed")
"""
COMPARED = (".safetensors", ".parquet")


def main() -> int:
    """Make both, compare, and print a line for each file that differs; the exit status says whether any does."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("commits", nargs=2, metavar="COMMIT")
    parser.add_argument("--fusions", nargs="+", default=["late_concat", "film"])
    parser.add_argument("--folder", type=Path, help="where results are kept, by commit and fusion")
    options = parser.parse_args()
    with TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        different = sum(compare_fusion(folder.absolute(), options.commits, fusion) for fusion in options.fusions)
    return int(different > 0)


def compare_fusion(folder: Path, commits: list[str], fusion: str) -> int:
    """Compare every file of one fusion; returns how many differ."""
    old, new = (results(folder / f"{resolve(commit)}-{fusion}", commit, fusion) for commit in commits)
    different = 0
    for name in sorted(old.keys() | new.keys()):
        difference = compare(old.get(name), new.get(name))
        if difference:
            print(f"{fusion}: {name}: {difference}")
            different += 1
    print(f"{fusion}: {len(old)} and {len(new)} files, {different} different", flush=True)
    return different


def resolve(commit: str) -> str:
    """The checksum of a commit."""
    command = ["git", "rev-parse", "--short", f"{commit}^{{commit}}"]
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()


def results(folder: Path, commit: str, fusion: str) -> dict[str, Path]:
    """The files that a version makes, by their paths below the folders of results."""
    done = folder / "same_results.done"
    if not done.exists():
        make(folder, commit, fusion)
        done.touch()
    files = {}
    for name in ("data", "runs", "evaluations"):
        for path in (folder / name).rglob("*"):
            if path.suffix in COMPARED:
                files[str(path.relative_to(folder))] = path
    return files


def make(folder: Path, commit: str, fusion: str) -> None:
    """Run the study with the source of `commit`; the worktree leaves its results in `folder`."""
    with TemporaryDirectory() as temporary:
        tree = Path(temporary, "tree")
        subprocess.run(["git", "worktree", "add", "--quiet", "--detach", str(tree), commit], cwd=ROOT, check=True)
        try:
            run_study(tree, fusion)
            folder.mkdir(parents=True, exist_ok=True)
            for name in ("data", "runs", "evaluations"):
                subprocess.run(["cp", "-rL", str(tree / name), str(folder)], check=True)
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", str(tree)], cwd=ROOT, check=True)


def run_study(tree: Path, fusion: str) -> None:
    environment = {**os.environ, "PYTHONPATH": str(tree / "src"), "OMP_NUM_THREADS": "1", "AGM_DEVICE": "cpu"}
    new_house = (tree / "src/agm/pipeline").is_dir()
    module = "agm.pipeline.cli" if new_house else "agm.cli"
    # The number of extraction jobs had another name.
    numbered = "num_parts" in (tree / "params/config.yaml").read_text()
    overrides = [*STUDY, "methods.relearning.every=1", f"fusion=[{fusion}]", "num_parts=1" if numbered else "parts=[0]"]
    if fusion not in ("late_concat", "late_sum"):
        overrides.append(f"method=[{','.join(methods_for(tree))}]")
    compose = [sys.executable, "-m", module, "compose", *overrides]
    subprocess.run(compose, cwd=tree, env=environment, check=True)
    log = tree / "jobs.log"
    with log.open("w") as file:
        status = subprocess.run([sys.executable, "-c", DRIVER], cwd=tree, env=environment, stderr=file).returncode
    if status:
        sys.exit(f"a job failed:\n{log.read_text()[-3000:]}")


def methods_for(tree: Path) -> list[str]:
    """The methods that train any fusion."""
    names = sorted(path.stem for path in (tree / "params/method").glob("*.yaml"))
    return [name for name in names if name not in ADDITIVE_ONLY]


def compare(old: Path | None, new: Path | None) -> str:
    """What differs; empty where nothing does."""
    if old is None or new is None:
        return "only in the first" if new is None else "only in the second"
    if old.read_bytes() == new.read_bytes():
        return ""
    first, second = values(old), values(new)
    if first == second:
        return "the same values in other bytes"
    if sorted(first.values()) == sorted(second.values()):
        return f"the same values under other names: {sorted(first.keys() ^ second.keys())[:4]}"
    return f"OTHER VALUES: {[name for name in first if first[name] != second.get(name)][:4]}"


def values(path: Path) -> dict[str, bytes]:
    """The bytes of each tensor or column."""
    if path.suffix == ".safetensors":
        return {name: array.tobytes() for name, array in load_file(path).items()}
    return {column.name: repr(column.to_list()).encode() for column in pl.read_parquet(path)}


if __name__ == "__main__":
    sys.exit(main())
