"""What changes while a job runs: the parameters for the next experiment, the source, the clock, other processes."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from agm.pipeline import cli, config
from agm.pipeline.config import Params
from agm.pipeline.dag import code
from agm.pipeline.dag.engines import exclusive, keys, repository
from agm.pipeline.dag.graph import Graph, Job
from agm.pipeline.runtime.lock import open_file
from agm.pipeline.steps.train import step as train_step
from small_shards import write_shards
from test_train import PARAMS


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Job:
    """A run of AGM, of which nothing is made yet."""
    monkeypatch.chdir(tmp_path)
    write_shards(Path("data/tiny"))
    write(alpha=1.0)
    return Graph(config.load()).job("train", "late_concat", "agm", 0)


def write(alpha: float, **more: object) -> None:
    methods = {"joint": {"name": "joint"}, "agm": {"name": "agm", "alpha": alpha}}
    Path("params.yaml").write_text(yaml.safe_dump({**PARAMS, **more, "methods": methods}))


def during(monkeypatch: pytest.MonkeyPatch, change: Callable[[], None]) -> None:
    """Let something happen when the command has read params.yaml and the step begins."""
    run = train_step.run

    def changed(params: Params, job: Job) -> dict:
        change()
        return run(params, job)

    monkeypatch.setattr(train_step, "run", changed)


def test_its_parameters_change(job: Job, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    folder = train_step.unfinished.checkpoint_folder(config.load(), job)
    with monkeypatch.context() as patch:
        during(patch, lambda: write(alpha=2.0))
        assert cli.main(job.command.split()[1:]) == 1
    said = capsys.readouterr().err
    assert f"While `{job.command}` ran, methods.agm.alpha was 1.0, now 2.0: its result is not recorded" in said
    assert not job.index.exists(), "neither engine takes it for a result of the new parameters"
    assert [path.name for path in Path(".cache/train").iterdir()] == [folder.name], "parameters are read once"
    # Nothing was for nothing.
    write(alpha=1.0)
    assert cli.main(job.command.split()[1:]) == 0
    assert "taken back from" in capsys.readouterr().err
    made = [path.read_bytes() for path in (job.index, *job.outputs)]
    assert cli.main([*job.command.split()[1:], "--force"]) == 0
    assert made == [path.read_bytes() for path in (job.index, *job.outputs)], "made with the parameters of the start"


def test_its_source_changes(job: Job, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    found = code.fingerprint
    edited = lambda name: "edited" if name == "methods/agm" else found(name)  # noqa: E731
    during(monkeypatch, lambda: monkeypatch.setattr(code, "fingerprint", edited))
    assert cli.main(job.command.split()[1:]) == 1
    assert "the source of the method 'agm' has changed: its result is not recorded" in capsys.readouterr().err
    assert not job.index.exists()


def test_other_parameters_change(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    during(monkeypatch, lambda: write(alpha=1.0, evaluation={**PARAMS["evaluation"], "ridge_alpha": 7.0}))
    assert cli.main(job.command.split()[1:]) == 0
    assert job.index.exists()


def test_a_key_is_newer_than_results_of_the_future(job: Job) -> None:
    assert cli.main(job.command.split()[1:]) == 0
    ahead = time.time() + 100_000
    for path in (job.index, job.record, *job.outputs):
        os.utime(path, (ahead, ahead))
    times = {path: path.stat().st_mtime_ns for path in (job.index, job.record, *job.outputs)}
    write(alpha=2.0)
    plan = keys.refresh(Graph(config.load()))
    assert job in plan.reasons and str(job.index) in plan.made
    assert keys.path(job).stat().st_mtime > ahead
    assert times == {path: path.stat().st_mtime_ns for path in times}, "times of results are never set"


# --- numbers of processes that live again ---


def test_what_a_killed_snakemake_left_is_no_running_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its lock file is there, and a process of the number that it had."""
    monkeypatch.chdir(tmp_path)
    assert exclusive.snakemake_runs() is None
    os.close(open_file(exclusive.RUNNING))
    exclusive.RUNNING.write_text(str(os.getpid()))
    assert exclusive.snakemake_runs() is None


def test_a_running_snakemake_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    imports = "from agm.pipeline.dag.engines import exclusive"
    script = f"{imports}; descriptor = exclusive._running(); print('held', flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout.readline() == "held\n"
        assert f"process {holder.pid}" in exclusive.snakemake_runs()
        holder.kill()
        holder.wait()
        assert exclusive.snakemake_runs() is None


def test_dvcs_list_forgets_numbers_that_live_again(tmp_path: Path) -> None:
    """Of a process of another container, or of before a restart: the one of that number now began later."""
    entries = {
        "write": {"/project/runs": {"pid": os.getpid(), "cmd": "snakemake"}},
        "read": {"/project/data": [{"pid": os.getpid(), "cmd": "dvc repro"}, {"pid": 1, "cmd": "dvc repro"}]},
    }
    path = tmp_path / "rwlock"
    path.write_text(json.dumps(entries))
    os.utime(path, (1, 1))
    repository.forget_ended(tmp_path)
    assert json.loads(path.read_text()) == {"write": {}, "read": {}}
    # And keeps those that are at work.
    path.write_text(json.dumps(entries))
    repository.forget_ended(tmp_path)
    assert json.loads(path.read_text())["write"] == entries["write"]
