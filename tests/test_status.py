"""`agm status`: what of a study is done, running, out of date and why, failed and missing, on a real small study."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml

from agm.pipeline import cli, config
from agm.pipeline.config.compose import compose
from agm.pipeline.dag import status
from agm.pipeline.dag.graph import Graph
from agm.pipeline.runtime.lock import alone
from agm.pipeline.steps.ingest import raw
from agm.pipeline.steps.train.loop import Training
from clone import ROOT
from test_exactness import STUDY as OF_ONE_SEED
from test_exactness import copy_of_finished

pytestmark = pytest.mark.usefixtures("without_fsync")

STUDY = (*OF_ONE_SEED, "dataset.root=raw", "study.seeds=[0,1]")
FAILING = "agm train late_concat agm 1"
TRAIN_AGM = "agm train late_concat agm 0"


def write_params(*changes: str) -> None:
    compose([*STUDY, *changes], groups=ROOT / "params")


def run_all() -> None:
    """Every command of the study that has something to do, in order."""
    graph = Graph(config.load())
    list(raw.check(graph.params))
    for job in graph.jobs:
        assert cli.main(job.command.split()[1:]) == 0, job.command


@pytest.fixture(scope="module")
def finished(of_all_workers: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a study of one's own data, finished: three methods, one of which reads runs, and two seeds."""
    folder = copy_of_finished(of_all_workers, tmp_path_factory.mktemp("study"))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("AGM_WORKERS", "1")
        write_params()
        run_all()
    return folder


@pytest.fixture
def study(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of that folder, and in it."""
    shutil.copytree(finished, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    monkeypatch.setenv("AGM_WORKERS", "1")
    return tmp_path / "copy"


@pytest.fixture
def shown(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs `agm status` with arguments; returns what it printed."""

    def run(*arguments: str) -> str:
        capsys.readouterr()
        assert cli.main(["status", *arguments]) == 0
        return capsys.readouterr().out

    return run


@pytest.fixture
def states(shown: Callable[..., str]) -> Callable[[], dict[str, dict]]:
    """Every job that is not done, by command, as `agm status --json` prints it."""

    def run() -> dict[str, dict]:
        jobs = json.loads(shown("--json"))["jobs"]
        return {job["command"]: job for job in jobs if job["state"] != "done"}

    return run


def attention(text: str) -> list[str]:
    """The lines on jobs that need attention."""
    block = text.partition("needs attention:\n")[2].partition("\n\n")[0]
    return [line.strip() for line in block.splitlines()]


def counts(text: str, step: str) -> list[str]:
    """The row of a step: done, running, out of date, failed, missing."""
    return re.search(rf"^{step} .*$", text, re.MULTILINE)[0].split()[1:]


# --- the two ends ---


def test_nothing_is_made_yet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shown: Callable[..., str]) -> None:
    monkeypatch.chdir(tmp_path)
    compose(["study=demo"], groups=ROOT / "params")
    jobs = len(Graph(config.load()).jobs)
    text = shown()
    assert text.startswith(f"study demo, data set dial: 0 of {jobs} jobs are done\n")
    assert attention(text) == [f"missing      `agm generate dial`: not made yet ({jobs - 1} jobs follow from it)"]
    assert "`snakemake` or `dvc repro` makes what is out of date or missing" in text
    assert not Path(".cache").exists() and not Path("records").exists(), "nothing is written"


def test_without_parameters_it_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["status"]) == 1
    assert "There are no parameters" in capsys.readouterr().err


def test_all_is_done(study: Path, shown: Callable[..., str]) -> None:
    text = shown()
    jobs = len(Graph(config.load()).jobs)
    assert text.startswith(f"study spoken_digits, data set spoken_digits: {jobs} of {jobs} jobs are done\n")
    assert "needs attention" not in text
    assert "reports/index.html" in text
    assert counts(text, "train") == ["6", "–", "–", "–", "–"]
    assert counts(text, "evaluate-concept") == ["4", "–", "–", "–", "–"]


def test_the_content_of_large_results_is_not_read(study: Path, states: Callable[[], dict[str, dict]]) -> None:
    """That is left to those who read them: here it would take longer than the answer is worth."""
    outputs = [path for job in Graph(config.load()).jobs for path in job.outputs]
    files = [each for path in outputs for each in (path.rglob("*") if path.is_dir() else [path]) if each.is_file()]
    assert len(files) > 50
    for path in files:
        path.unlink()
        path.symlink_to("/dev/full")  # whoever read it to its end would never come back
    assert states() == {}


def test_it_takes_less_than_two_seconds(study: Path) -> None:
    """Of the processor's time: that of the clock depends on what else the machine does."""
    script = """
import resource, sys
from agm.pipeline import cli
assert cli.main(["status"]) == 0
used = resource.getrusage(resource.RUSAGE_SELF)
assert used.ru_utime + used.ru_stime < 2, used
assert not {"torch", "polars", "numpy", "hydra"} & sys.modules.keys()
"""
    subprocess.run([sys.executable, "-c", script], check=True, stdout=subprocess.DEVNULL)


# --- out of date ---


def test_an_edited_parameter_is_named_and_what_follows_is_counted(
    study: Path, shown: Callable[..., str], states: Callable[[], dict[str, dict]]
) -> None:
    write_params("methods.agm.alpha=0.25")
    text = shown()
    assert attention(text) == [
        f"out of date  `{TRAIN_AGM}` and 1 more: methods.agm.alpha was 1.0, now 0.25 (3 jobs follow from it)"
    ]
    assert counts(text, "train") == ["4", "–", "2", "–", "–"]
    assert counts(text, "evaluate") == ["4", "–", "2", "–", "–"], "their results are of the old runs"
    assert counts(text, "concept") == ["4", "–", "–", "–", "–"]
    found = states()
    assert found.keys() == {
        *(f"agm {step} late_concat agm {seed}" for step in ("train", "evaluate") for seed in (0, 1)),
        "agm report",
    }
    assert found["agm evaluate late_concat agm 0"]["follows"] == [TRAIN_AGM]
    assert found["agm report"]["follows"] == [TRAIN_AGM, FAILING]
    assert found[TRAIN_AGM]["follows"] == [] and not found[TRAIN_AGM]["kept"]


def test_one_cause_is_one_line_however_many_jobs_it_reaches(study: Path, shown: Callable[..., str]) -> None:
    """A method that reads runs follows from them, and has the same cause besides."""
    write_params("trainer.epochs=2")
    (line,) = attention(shown())
    assert line.startswith("out of date  `agm concept late_concat image 0` and 7 more: trainer.epochs was 1, now 2 (")


def test_a_second_cause_below_the_first_is_named_too(study: Path, shown: Callable[..., str]) -> None:
    write_params("trainer.epochs=2", "evaluation.confidence=0.9")
    first, second = attention(shown())
    assert "trainer.epochs was 1, now 2 (" in first
    reason = "evaluation.confidence was 0.95, now 0.9 (1 job follows from it)"
    assert second == f"out of date  `agm evaluate late_concat joint 0` and 5 more: {reason}"


def test_a_change_that_is_taken_back_costs_nothing_and_says_so(study: Path, shown: Callable[..., str]) -> None:
    write_params("methods.agm.alpha=0.25")
    assert cli.main(TRAIN_AGM.split()[1:]) == 0
    write_params()
    (line,) = attention(shown())
    assert line.startswith(f"out of date  `{TRAIN_AGM}`: methods.agm.alpha was 0.25, now 1.0; the result asked for is ")
    assert ".cache/store" in line
    assert cli.main(TRAIN_AGM.split()[1:]) == 0
    assert attention(shown()) == []


def test_a_damaged_record(study: Path, shown: Callable[..., str]) -> None:
    job = Graph(config.load()).job("train", "late_concat", "joint", 0)
    for content in (None, "", "{", "[]", "{}", '{"index": "x", "made_from": {}, "files": {}}'):
        job.record.unlink()
        if content is not None:
            job.record.write_text(content)
        (line,) = attention(shown())
        said = f"out of date  `{job.command}`: {job.record} is missing or damaged, or of another "
        assert line.startswith(said), content
        job.record.touch()


def test_a_record_of_another_version(study: Path, states: Callable[[], dict[str, dict]]) -> None:
    job = Graph(config.load()).job("train", "late_concat", "joint", 0)
    record = json.loads(job.record.read_text())
    record["made_from"] = {"parameters": {}}
    job.record.write_text(json.dumps(record))
    assert states()[job.command]["reason"] == "it was recorded by another version of agm"


def test_a_damaged_index(study: Path, states: Callable[[], dict[str, dict]]) -> None:
    """Jobs that read it follow from the one that must make it again."""
    job = Graph(config.load()).job("shard")
    job.index.write_text("{")
    found = states()
    assert found.pop("agm shard")["state"] == "out of date"
    assert all(each["follows"] == ["agm shard"] for each in found.values()) and len(found) > 15


# --- missing ---


def test_a_part_of_a_result_is_missing(study: Path, shown: Callable[..., str]) -> None:
    job = Graph(config.load()).job("train", "late_concat", "agm", 0)
    job.outputs[0].unlink()
    assert attention(shown()) == [
        f"missing      `{job.command}`: {job.outputs[0]} does not exist; the result asked for is in .cache/store, "
        "and is taken back (2 jobs follow from it)"
    ]


def test_more_seeds_are_missing_and_the_rest_is_done(study: Path, shown: Callable[..., str]) -> None:
    write_params("study.seeds=[0,1,2]")
    text = shown()
    missing = [line for line in attention(text) if line.startswith("missing")]
    assert missing[0].startswith("missing      `agm concept late_concat image 2` and 3 more: not made yet (")
    assert len(missing) == 1
    assert counts(text, "train") == ["6", "–", "–", "–", "3"]


def test_a_run_that_was_interrupted_goes_on(study: Path, shown: Callable[..., str]) -> None:
    write_params("trainer.epochs=2")
    job = Graph(config.load()).job("train", "late_concat", "agm", 0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Training, "train_step", stopping_in(1))
        with pytest.raises(RuntimeError, match="power"):
            cli.main(job.command.split()[1:])
    (line,) = [line for line in attention(shown()) if job.command in line]
    assert line.startswith("missing ") and "it goes on from its checkpoint" in line


def stopping_in(epoch: int) -> Callable[..., torch.Tensor]:
    """A training step that the power fails in after `epoch` whole epochs."""
    step = Training.train_step

    def run(training: Training, batch: object) -> torch.Tensor:
        if len(training.history) == epoch:
            raise RuntimeError("the power failed")
        return step(training, batch)

    return run


# --- running, failed ---


def test_a_running_job(study: Path, shown: Callable[..., str], states: Callable[[], dict[str, dict]]) -> None:
    """As while it trains: its lock is held by another process, and its index is not there."""
    job = Graph(config.load()).job("train", "late_concat", "agm", 0)
    job.index.unlink()
    script = (
        "import sys\nfrom agm.pipeline.runtime.lock import alone\n"
        "with alone(*sys.argv[1:]): print('held', flush=True); input()"
    )
    command = [sys.executable, "-c", script, job.step, *job.cell]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        text = shown()
        (line,) = attention(text)
        assert line.startswith(f"running      `{job.command}`: now (process {process.pid}: ")
        assert line.endswith("(2 jobs follow from it)")
        assert counts(text, "train") == ["5", "1", "–", "–", "–"]
        assert "snakemake" not in text, "whoever makes that job goes on"
        found = states()
        process.communicate("\n")
    assert found["agm evaluate late_concat agm 0"]["follows"] == [job.command]
    assert states()[job.command]["state"] == "missing", "the process has ended"


def test_a_lock_on_a_result_that_is_up_to_date_is_no_run(study: Path, states: Callable[[], dict[str, dict]]) -> None:
    """A command takes the lock to find out that there is nothing to do."""
    with alone("train", "late_concat", "agm", "0"):
        assert states() == {}


@pytest.fixture(scope="module")
def failed(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The study when one run of a method has failed, and one concept that a method reads."""
    step = Training.train_step
    failing = (FAILING, "agm concept late_concat audio 0")

    def train_step(training: Training, batch: object) -> torch.Tensor:
        loss = step(training, batch)
        return loss * torch.nan if training.label in failing else loss

    folder = shutil.copytree(finished, tmp_path_factory.mktemp("failed") / "copy")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("AGM_WORKERS", "1")
        patch.setattr(Training, "train_step", train_step)
        for command in failing:
            assert cli.main([*command.split()[1:], "--force"]) == 0
        run_all()
    return folder


@pytest.fixture
def diverged(failed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In that folder; only its parameters may be changed."""
    monkeypatch.chdir(failed)
    monkeypatch.setenv("AGM_WORKERS", "1")
    write_params()


def test_a_failed_run_is_named_with_what_failed(
    diverged: None, shown: Callable[..., str], states: Callable[[], dict[str, dict]]
) -> None:
    text = shown()
    job = Graph(config.load()).job("train", "late_concat", "agm", 1)
    lines = attention(text)
    assert f"failed       `{FAILING}`: the loss is nan in epoch 0; {job.index} says more" in lines
    # The method that reads the concept of seed 0 fails because of it: it follows, and has no line of its own.
    (other,) = [line for line in lines if "`agm concept late_concat audio 0`" in line]
    assert other.startswith("failed ") and other.endswith("(1 job follows from it)")
    assert len(lines) == 2
    found = states()
    assert found["agm train late_concat umt 0"]["state"] == "failed"
    assert found["agm train late_concat umt 0"]["follows"] == ["agm concept late_concat audio 0"]
    assert len(found) == 3, "scores and the report are done: they say which runs failed"
    assert "reports/index.html says what to do about failed runs" in text


def test_a_failed_run_that_is_out_of_date_is_made_again(diverged: None, states: Callable[[], dict[str, dict]]) -> None:
    write_params("methods.agm.alpha=0.25")
    found = states()[FAILING]
    assert found["state"] == "out of date" and found["reason"] == "methods.agm.alpha was 1.0, now 0.25"
    write_params("shards.max_rows_per_file=512")
    found = states()[FAILING]
    assert found["state"] == "out of date" and found["follows"] == ["agm shard"], "it may do better with other shards"


# --- annotations that are too large to read ---


def test_large_annotations_are_not_read(
    study: Path, shown: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    table = Path("raw/manifest.csv")
    table.write_text(table.read_text() + "\n")
    assert "raw/manifest.csv" not in shown().partition("needs attention")[0]
    assert attention(shown())[0].startswith("out of date  `agm annotations clips`: ")
    monkeypatch.setattr(status, "LARGE", 100)
    text = shown()
    assert attention(text) == []
    assert f"not compared, because it is large: {table} (`agm annotations clips` compares it)" in text


def test_json_has_every_job_and_the_counts(study: Path, shown: Callable[..., str]) -> None:
    write_params("methods.agm.alpha=0.25")
    found = json.loads(shown("--json"))
    jobs = Graph(config.load()).jobs
    assert [job["command"] for job in found["jobs"]] == [job.command for job in jobs]
    assert found["counts"] == {
        "done": len(jobs) - 5,
        "running": 0,
        "out of date": 5,
        "failed": 0,
        "missing": 0,
    }
    assert (found["study"], found["dataset"], found["notes"]) == ("spoken_digits", "spoken_digits", [])
    assert yaml.safe_load(Path("params.yaml").read_text())["study"]["name"] == found["study"]
