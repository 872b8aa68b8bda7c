"""Snakemake and DVC continue each other's work, on a tiny study of real clips, in both directions and in any order."""

import json
import re
import shutil
from pathlib import Path

import pytest

from clone import Clone

pytestmark = pytest.mark.heavy

TINY = [
    "method=[joint,agm,umt]",
    "~dataset.modalities.text",
    "~features.text",
    "~encoders.text",
    "dial.clips=60",
    "dial.noise.audio=0.5",
    "methods.agm.alpha=1.0",
    "parts=[0]",
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


@pytest.fixture(scope="module")
def by_snakemake(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """A study that Snakemake finished and `agm record` told DVC of."""
    clone = Clone.make(tmp_path_factory.mktemp("by_snakemake"), *TINY)
    clone.snakemake()
    said = clone.agm("record", "--name", "first")
    assert f"recorded {JOBS} of {JOBS} jobs" in said and "saved the experiment first" in said
    clone.commit()
    return clone


@pytest.fixture(scope="module")
def by_dvc(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """The same study, by `dvc repro`."""
    clone = Clone.make(tmp_path_factory.mktemp("by_dvc"), *TINY)
    clone.dvc("repro")
    clone.commit()
    return clone


def alpha(clone: Clone, before: float, after: float) -> None:
    clone.edit("params.yaml", f"    alpha: {before}\n", f"    alpha: {after}\n")


def stages_run(output: str) -> set[str]:
    """The commands that `dvc repro` ran."""
    return set(re.findall(r"^> (agm .*)$", output, re.MULTILINE))


def test_snakemake_then_dvc(by_snakemake: Clone, tmp_path: Path) -> None:
    clone = by_snakemake.copy(tmp_path)
    assert not clone.changed() and not clone.planned()

    alpha(clone, 1.0, 2.0)
    assert clone.planned() == AGM
    assert clone.changed() == {"train@late_concat-agm-0"}, "DVC shows what follows from it once it has run"
    assert stages_run(clone.dvc("repro")) == AGM
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
    for name in ("data", "runs", "evaluations", "reports", ".snakemake", ".cache"):
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

    with open(clone.folder / "src/agm/evaluate/step.py", "a") as source:
        source.write("# a change\n")
    assert clone.planned() == EVALUATIONS | {"agm report"}
    assert {stage.split("@")[0] for stage in clone.changed()} == {
        "evaluate",
        "evaluate_taught",
        "evaluate_concept",
    }


@pytest.mark.parametrize(
    ("old", "new", "first"),
    [("confidence: 0.95", "confidence: 0.9", "report"), ("    audio: 0.5", "    audio: 0.6", "generate")],
)
def test_narrow_and_wide_edits(by_snakemake: Clone, tmp_path: Path, old: str, new: str, first: str) -> None:
    clone = by_snakemake.copy(tmp_path)
    clone.edit("params.yaml", old, new)
    plan = clone.planned()
    assert len(plan) == {"report": 1 + len(EVALUATIONS), "generate": JOBS}[first]


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
    changes = [f"--set-param={each}" for each in (*TINY, "study.name=renamed")]
    assert stages_run(clone.dvc("exp", "run", "--name", "narrow", *changes)) == {"agm report"}
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
