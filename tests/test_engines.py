"""Snakemake and DVC continue each other's work, on a tiny study of real clips, in both directions and in any order."""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from clone import Clone
from forked import Forked
from record import check_record

pytestmark = pytest.mark.heavy

TINY = [
    "method=[joint,agm,umt]",
    "~dataset.modalities.text",
    "~features.text",
    "~encoders.text",
    "dial.clips=60",
    "dial.noise.audio=0.5",
    "methods.agm.alpha=1.0",
    "num_parts=1",
    "study.seeds=[0]",
    "trainer.epochs=1",
    "features.video.frames=1",
]
AGM = {"agm train late_concat agm 0", "agm evaluate late_concat agm 0", "agm report"}
EVALUATIONS = {
    "agm evaluate late_concat agm 0",
    "agm evaluate late_concat joint 0",
    "agm evaluate late_concat umt 0",
    "agm evaluate-concept late_concat audio 0",
    "agm evaluate-concept late_concat video 0",
}
JOBS = 19
MADE = ("data", "runs", "evaluations", "reports", "records")


@pytest.fixture(scope="module")
def by_snakemake(forked: Forked, tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """A study that Snakemake finished and `agm record` told DVC of."""
    clone = Clone.make(tmp_path_factory.mktemp("by_snakemake"), *TINY, forked=forked)
    clone.snakemake()
    said = clone.agm("record", "--name", "first")
    assert f"recorded {JOBS} of {JOBS} jobs" in said and "saved the experiment first" in said
    clone.commit()
    return clone


@pytest.fixture(scope="module")
def by_dvc(forked: Forked, tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """The same study, by `dvc repro`."""
    clone = Clone.make(tmp_path_factory.mktemp("by_dvc"), *TINY, forked=forked)
    clone.dvc("repro")
    clone.commit()
    return clone


def alpha(clone: Clone, before: float, after: float) -> None:
    clone.edit("params.yaml", f"    alpha: {before}\n", f"    alpha: {after}\n")


def stages_run(output: str) -> set[str]:
    """The commands of the stages that `dvc repro` ran."""
    return set(re.findall(r"^> (agm .*)$", output, re.MULTILINE))


def stages(commands: set[str]) -> set[str]:
    """The commands of the stages of jobs with one seed and one part, which DVC does without."""
    return {re.sub(r" 0$", "", each) for each in commands}


def test_snakemake_then_dvc(by_snakemake: Clone, tmp_path: Path) -> None:
    clone = by_snakemake.copy(tmp_path)
    assert not clone.changed() and not clone.planned()

    alpha(clone, 1.0, 2.0)
    assert clone.planned() == AGM
    assert clone.changed() == {"train@late_concat-agm"}, "DVC shows what follows from it once it has run"
    assert stages_run(clone.dvc("repro")) == stages(AGM)
    assert not clone.changed() and not clone.planned()

    # What Snakemake remembers is of alpha = 1, and that is asked for again; the results are of alpha = 2.
    alpha(clone, 2.0, 1.0)
    assert clone.planned() == AGM
    clone.snakemake()
    assert not clone.planned()
    clone.agm("record")
    assert not clone.changed()


def test_dvc_then_snakemake(by_dvc: Clone, tmp_path: Path) -> None:
    clone = by_dvc.copy(tmp_path)
    assert not clone.planned() and not clone.changed()

    # Snakemake remembers nothing of these results: left to itself it would say that there is nothing to do.
    alpha(clone, 1.0, 2.0)
    assert clone.planned() == AGM
    clone.snakemake()
    assert not clone.planned()


def test_both_engines_make_the_same_bytes(by_snakemake: Clone, by_dvc: Clone) -> None:
    def contents(clone: Clone) -> dict[str, bytes]:
        files = [
            file for name in ("runs", "evaluations") for file in (clone.folder / name).rglob("*.*") if file.is_file()
        ]
        return {str(file.relative_to(clone.folder)): file.read_bytes() for file in files if file.suffix != ".json"}

    assert contents(by_snakemake) and contents(by_snakemake) == contents(by_dvc)


def test_results_of_another_commit(by_snakemake: Clone, tmp_path: Path) -> None:
    clone = by_snakemake.copy(tmp_path)
    clone.edit("params.yaml", "  name: demo\n", "  name: second\n")
    clone.snakemake()
    clone.agm("record")
    clone.commit()

    clone.run("git", "checkout", "--quiet", "HEAD~1")
    assert clone.planned() == {"agm report"}, "the parameters of the first commit, the results of the second"
    assert "DVC has changes in: report\n" in clone.agm("sync", fails=True)

    clone.dvc("checkout")
    assert clone.agm("sync") == f"{JOBS} jobs are up to date for both engines\n"
    assert not clone.planned() and not clone.changed()

    # The dry run just now saw good results. Those of the second commit come in their place, at times that say nothing.
    clone.run("git", "checkout", "--quiet", "-", "--", "dvc.lock")
    clone.dvc("checkout")
    assert clone.planned() == {"agm report"}
    assert "DVC has changes in: report\n" in clone.agm("sync", fails=True)


def test_results_restored_in_a_fresh_clone(by_snakemake: Clone, tmp_path: Path) -> None:
    clone = by_snakemake.copy(tmp_path)
    for name in ("data", "runs", "evaluations", "reports", "records", ".snakemake", ".cache/keys"):
        shutil.rmtree(clone.folder / name)
    clone.dvc("checkout")
    assert not clone.planned()
    clone.agm("sync")
    assert not clone.planned()


def test_source(by_snakemake: Clone, tmp_path: Path) -> None:
    clone = by_snakemake.copy(tmp_path)
    for file in [
        *clone.folder.glob("src/**/*.py"),
        *clone.folder.glob("runs/**/*.*"),
        *clone.folder.glob("data/**/*.*"),
    ]:
        file.touch()
    assert not clone.planned() and not clone.changed(), "touched, and the same"

    with open(clone.folder / "src/agm/pipeline/steps/evaluate/step.py", "a") as source:
        source.write("# a comment\n")
    (clone.folder / "src/agm/pipeline/steps/train/.step.py.swp").write_text("an editor")
    assert not clone.planned(), "the same source"
    assert stages_run(clone.dvc("repro")) == {"agm code"} and not clone.changed()

    with open(clone.folder / "src/agm/pipeline/steps/evaluate/step.py", "a") as source:
        source.write("CHANGE = 1\n")
    assert clone.planned() == EVALUATIONS | {"agm report"}
    assert clone.changed() == {"code"}
    # The scores are the same, so that the report has nothing new to read.
    assert stages_run(clone.dvc("repro")) == {"agm code", *stages(EVALUATIONS)}
    assert not clone.planned() and not clone.changed()


def test_dvc_after_snakemake_makes_nothing_anew(by_dvc: Clone, tmp_path: Path) -> None:
    """Nor does it delete anything, without `agm record` between them."""
    clone = by_dvc.copy(tmp_path)
    alpha(clone, 1.0, 2.0)
    clone.snakemake()
    before = {path: path.read_bytes() for name in MADE for path in (clone.folder / name).rglob("*.*") if path.is_file()}
    said = clone.dvc("repro")
    assert stages_run(said) == stages(AGM)
    assert all(f"{command}: up to date" in said for command in AGM)
    assert before == {path: path.read_bytes() for path in before}
    assert not clone.planned() and not clone.changed()


@pytest.mark.parametrize(
    ("old", "new", "first"),
    [("confidence: 0.95", "confidence: 0.9", "report"), ("    audio: 0.5", "    audio: 0.6", "generate")],
)
def test_narrow_and_wide_edits(by_snakemake: Clone, tmp_path: Path, old: str, new: str, first: str) -> None:
    clone = by_snakemake.copy(tmp_path)
    clone.edit("params.yaml", old, new)
    plan = clone.planned()
    assert len(plan) == {"report": 4, "generate": JOBS}[first]


def test_half_made_results_are_made_again(by_snakemake: Clone, tmp_path: Path) -> None:
    clone = by_snakemake.copy(tmp_path)
    (clone.folder / "runs/dial/late_concat/agm/seed-0/run.json").unlink()
    assert clone.planned() == AGM
    assert "agm evaluate late_concat agm 0" in clone.agm("record", fails=True)


def test_record_takes_what_is_there(by_snakemake: Clone, tmp_path: Path) -> None:
    clone = by_snakemake.copy(tmp_path)
    shutil.rmtree(clone.folder / "reports")
    (clone.folder / "runs/dial/late_concat/old").mkdir()
    said = clone.agm("record")
    assert f"recorded {JOBS - 1} of {JOBS} jobs" in said
    assert "not made yet: agm report" in said
    assert "runs/dial/late_concat/old" in said, "no job of this study makes it"

    alpha(clone, 1.0, 2.0)
    refusal = clone.agm("record", fails=True)
    assert "`agm train late_concat agm 0`: methods.agm.alpha was 1.0, now 2.0" in refusal and "snakemake" in refusal


def test_record_without_a_commit(by_snakemake: Clone, tmp_path: Path) -> None:
    clone = by_snakemake.copy(tmp_path)
    shutil.rmtree(clone.folder / ".git")
    clone.run("git", "init", "--quiet")
    assert "git has no commit" in clone.agm("record")


def test_an_experiment_through_dvc(by_snakemake: Clone, tmp_path: Path) -> None:
    clone = by_snakemake.copy(tmp_path)
    said = clone.dvc("exp", "run", "--name", "narrow", "--set-param", "study.name=renamed")
    assert stages_run(said) == {"agm report"}, "what is set is all that changes: the study stays the tiny one"
    assert not clone.planned()

    # As the README shows it: what the experiments score and where their parameters differ.
    choice = ["--only-changed", "--drop", r".*/|.*\.d_", "--keep", r".*\.(accuracy|starvation)$"]
    header, *rows = clone.dvc("exp", "show", "--csv", *choice).splitlines()
    cells = json.loads((clone.folder / "reports/metrics.json").read_text())["late_concat"]
    scores = [f"late_concat.{method}.{score}" for method in ("joint", "agm", "umt") for score in cells[method]]
    scores = [score for score in scores if re.search(choice[-1], score)]
    assert "late_concat.agm.accuracy" in scores, "starvation is not there: one epoch teaches the concepts nothing"
    assert header == ",".join(["Experiment", "rev", "typ", "Created", *scores, "study.name"])
    assert any("narrow" in row and row.endswith("renamed") for row in rows)

    clone.dvc("exp", "apply", "first")
    clone.agm("sync")
    assert not clone.planned()


# --- what is on record is what is on disk ---


def test_the_record_is_of_the_files(by_snakemake: Clone, by_dvc: Clone) -> None:
    check_record(by_snakemake.folder)
    check_record(by_dvc.folder)


@pytest.fixture
def xfs(tmp_path: Path) -> Iterator[Path]:
    """A file system that gives a new file the inode of one that has just been deleted."""
    image, folder = tmp_path / "image", tmp_path / "mounted"
    with open(image, "wb") as file:
        file.truncate(1 << 30)
    folder.mkdir()
    made = subprocess.run(["mkfs.xfs", "-q", str(image)], capture_output=True) if shutil.which("mkfs.xfs") else None
    mounted = made and subprocess.run(["mount", "-o", "loop", str(image), str(folder)], capture_output=True)
    if not mounted or mounted.returncode:
        pytest.skip("XFS cannot be mounted here: it needs root, xfsprogs and a loop device")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_inodes_that_are_given_out_again(by_snakemake: Clone, xfs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Snakemake deletes an output, and the new one of the same size has its inode: it is another file all the same."""
    monkeypatch.setenv("AGM_STORE_GB", "0")  # else the deleted one is kept there, with its inode
    clone = by_snakemake.copy(xfs / "clone")
    for number in range(6):
        before = re.search(r"  name: (\w+)\n", (clone.folder / "params.yaml").read_text())[1]
        clone.edit("params.yaml", f"  name: {before}\n", f"  name: dem{number}\n")
        assert clone.planned() == {"agm report"}
        clone.snakemake()
        assert not clone.planned()
        clone.agm("record")
        check_record(clone.folder)
        assert not clone.changed()


def test_times_mean_nothing(by_snakemake: Clone, tmp_path: Path) -> None:
    """Not when a clock was set back, nor when files came with times of their own."""
    clone = by_snakemake.copy(tmp_path)
    ahead = time.time() + 100_000
    files = [path for name in MADE for path in (clone.folder / name).rglob("*")]
    for path in files:
        os.utime(path, (ahead, ahead))
    assert not clone.planned()
    alpha(clone, 1.0, 2.0)
    assert clone.planned() == AGM
    clone.snakemake()
    assert not clone.planned()
    assert "alpha: 2.0" in (clone.folder / "records/runs/dial/late_concat/agm/seed-0/run.json").read_text().replace(
        '"', ""
    )


def test_planning_sets_no_times_of_results(by_snakemake: Clone, tmp_path: Path) -> None:
    clone = by_snakemake.copy(tmp_path)
    before = {path: path.stat().st_mtime_ns for name in MADE for path in (clone.folder / name).rglob("*")}
    alpha(clone, 1.0, 2.0)
    assert clone.planned() == AGM
    assert before == {path: path.stat().st_mtime_ns for path in before}


# --- record loses nothing ---


def everything(clone: Clone) -> dict[str, bytes]:
    """What a person may have edited: every file that git tracks or does not ignore, dvc.lock apart."""
    names = clone.run("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard").split("\0")
    paths = [clone.folder / name for name in names if name not in ("", "dvc.lock")]
    return {str(path): os.readlink(path).encode() if path.is_symlink() else path.read_bytes() for path in paths}


@pytest.fixture
def edited(by_snakemake: Clone, tmp_path: Path) -> Clone:
    """A finished study, and edits of every kind since the last commit."""
    clone = by_snakemake.copy(tmp_path)
    clone.edit("params.yaml", "  name: demo\n", "  name: edits\n")
    clone.snakemake()
    with open(clone.folder / "src/agm/pipeline/steps/evaluate/step.py", "a") as source:
        source.write("# a thought\n")
    (clone.folder / "notes.md").write_text("a plan")
    (clone.folder / "README.md").unlink()
    clone.run("git", "add", "README.md")
    return clone


def test_record_beside_another_git(edited: Clone) -> None:
    before = everything(edited)
    (edited.folder / ".git/index.lock").touch()
    edited.agm("record", "--name", "beside")
    assert everything(edited) == before
    (edited.folder / ".git/index.lock").unlink()
    assert "D  README.md" in edited.run("git", "status", "--porcelain"), "what was staged is staged"
    # What it saved is what was there.
    assert "a thought" in edited.run(
        "git", "show", "refs/exps/" + reference(edited, "beside") + ":src/agm/pipeline/steps/evaluate/step.py"
    )


def reference(clone: Clone, name: str) -> str:
    head = clone.run("git", "rev-parse", "HEAD").strip()
    return f"{head[:2]}/{head[2:]}/{name}"


def test_record_killed_at_any_moment(edited: Clone) -> None:
    before = everything(edited)
    chance = random.Random(0)
    start = time.monotonic()
    edited.agm("record")
    duration = time.monotonic() - start
    for number in range(20):
        process = subprocess.Popen(
            [edited.forked.bin / "agm", "record", "--name", f"killed{number}"],
            cwd=edited.folder,
            env=edited.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        time.sleep(chance.uniform(0, duration))
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        time.sleep(0.2)  # and what it was a client of, a moment later
        assert everything(edited) == before and not edited.run("git", "stash", "list")
    edited.agm("record", "--name", "whole")
    assert everything(edited) == before
    check_record(edited.folder)


# --- what ran is what is on record ---


def test_an_environment_of_another_folder(by_snakemake: Clone, tmp_path: Path) -> None:
    """A clone in which the environment of another one is active runs its own source."""
    clone = Clone(by_snakemake.copy(tmp_path).folder)
    clone.edit("src/agm/pipeline/steps/report/step.py", "def run(", 'print("of this folder")\n\n\ndef run(')
    foreign = {"PYTHONPATH": ""}
    plan = clone.run(sys.executable, "-m", "snakemake", "--dry-run", "--printshellcmds", **foreign)
    assert "agm report" in plan and "the source of the step 'report' has changed" in plan
    clone.run(sys.executable, "-m", "snakemake", **foreign)
    assert "of this folder" in clone.run("agm", "report", "--force", **foreign)
    assert not clone.planned()


def test_a_task_of_the_queue_runs_its_own_source(by_snakemake: Clone, tmp_path: Path) -> None:
    clone = Clone(by_snakemake.copy(tmp_path).folder)
    step = clone.folder / "src/agm/pipeline/steps/report/step.py"
    source = step.read_text()
    step.write_text(source.replace("def run(", 'print("of the task")\n\n\ndef run('))
    clone.dvc("exp", "run", "--queue", "--name", "task")
    step.write_text(source)
    clone.run(sys.executable, "-m", "dvc", "exp", "run", "--run-all", PYTHONPATH="")
    made = clone.run("git", "show", f"refs/exps/{reference(clone, 'task')}:dvc.lock")
    assert made != (clone.folder / "dvc.lock").read_text()
    assert "of the task" in clone.run(sys.executable, "-m", "dvc", "queue", "logs", "task")
