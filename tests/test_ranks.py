"""Several processes that train one run together compute what one does, and end well whatever becomes of them."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest
import torch
import yaml
from safetensors.torch import load_file

from agm.pipeline import cli, config
from agm.pipeline.dag.graph import Graph, Job
from forked import Forked
from small_shards import ROWS, write_shards
from test_train import PARAMS
from whole import with_lists

PROCESSES = 2
# Dropout draws other masks in each process; all else is the same to rounding.
STEADY = {
    "encoders": {**PARAMS["encoders"], "text": {**PARAMS["encoders"]["text"], "dropout": 0.0}},
    "fusions": {**PARAMS["fusions"], "early": {"name": "early", "hidden": [16], "dropout": 0.0}},
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_shards(Path("data/tiny"))
    return tmp_path


def configure(processes: int, **trainer: object) -> Graph:
    content = {**PARAMS, **STEADY}
    content["trainer"] = {**PARAMS["trainer"], "processes": processes, **trainer}
    Path("params.yaml").write_text(yaml.safe_dump(content))
    return Graph(config.load())


def start(job: Job) -> subprocess.Popen[str]:
    """The command, with as many processes as params.yaml says."""
    command = [sys.executable, "-m", "agm.pipeline.cli", *job.command.split()[1:]]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


def trained(job: Job, forked: Forked) -> tuple[pl.DataFrame, dict[str, torch.Tensor]]:
    """The history and the weights of the run, once it is done."""
    status, said = forked.run(Path.cwd(), *job.command.split())
    assert status == 0, said
    return pl.read_parquet(job.outputs[1]), load_file(job.outputs[0])


@pytest.mark.parametrize(
    ("cell", "trainer", "rows"),
    [
        # One row group of validation clips: a process has none.
        (("train", "late_concat", "joint", "0"), {}, {"train": 70, "val": 9, "test": 9}),
        # Batches of 5 of 5 row groups: some of a process's parts are empty.
        (("train", "early", "agm", "0"), {"batch_size": 5}, ROWS),
        (("concept", "early", "audio", "0"), {}, ROWS),
    ],
)
def test_two_processes_equal_one(
    folder: Path, forked: Forked, cell: tuple[str, ...], trainer: dict[str, int], rows: dict[str, int]
) -> None:
    shutil.rmtree("data")
    write_shards(Path("data/tiny"), rows=rows)
    ends = []
    for processes in (1, PROCESSES):
        job = configure(processes, grad_clip=None, epochs=2, **trainer).job(*cell)
        ends.append(trained(job, forked))
    (history, weights), (other, others) = ends
    assert history.columns == other.columns
    for column in history.columns:
        assert other[column].to_list() == pytest.approx(history[column].to_list(), rel=1e-3, abs=1e-4), column
    assert weights.keys() == others.keys()
    for name, value in weights.items():
        # A feature of zeroed inputs hardly varies: the BatchNorm behind it makes rounding a hundred times larger.
        looser = 10 if "norm.running" in name else 1
        torch.testing.assert_close(
            others[name], value, rtol=2e-3 * looser, atol=2e-4 * looser, msg=lambda said, name=name: f"{name}: {said}"
        )


def members(command: subprocess.Popen[str]) -> list[int]:
    """The processes that train, by rank."""
    children = Path(f"/proc/{command.pid}/task/{command.pid}/children").read_text().split()
    found = {}
    for child in children:
        environment = Path(f"/proc/{child}/environ").read_bytes().split(b"\0")
        found |= {int(each[5:]): int(child) for each in environment if each.startswith(b"RANK=")}
    return [found[rank] for rank in sorted(found)]


def under_way(job: Job, epochs: int = 2) -> subprocess.Popen[str]:
    """The run, once its checkpoint holds so many epochs."""
    command = start(job)
    while not list(Path(".cache/train").glob(f"*/epoch-{epochs:05}-*")):
        assert command.poll() is None, command.communicate()[1]
        time.sleep(0.005)
    return command


def alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.fixture
def long(folder: Path, forked: Forked) -> tuple[Job, dict[str, bytes]]:
    """A run of many epochs, and what it ends with when nothing happens to it."""
    job = configure(PROCESSES, epochs=40).job("train", "late_concat", "agm", "0")
    trained(job, forked)
    whole = {path.name: path.read_bytes() for path in job.index.parent.iterdir()}
    for path in job.index.parent.iterdir():
        path.unlink()
    shutil.rmtree(".cache/store")
    return job, whole


@pytest.mark.heavy
def test_what_befalls_a_process(long: tuple[Job, dict[str, bytes]], forked: Forked) -> None:
    """One after another: a process is lost; the command is told to stop; it is killed; then the run ends."""
    job, whole = long
    command = under_way(job)
    lost = members(command)
    os.kill(lost[1], signal.SIGKILL)
    said = command.communicate()[1]
    assert command.returncode == 1
    assert f"error: Process 1 of the run (pid {lost[1]}) ended with signal SIGKILL" in said
    assert f"where: {job.command}" in said
    assert "it goes on from its last checkpoint" in said
    assert not any(map(alive, lost)), "the others do not wait for ever"

    command = under_way(job, epochs=4)
    command.terminate()
    said = command.communicate()[1]
    assert command.returncode == 128 + signal.SIGTERM, said
    assert re.search(r"going on after epoch \d+", said)
    assert "stopped by SIGTERM: the checkpoint holds epoch" in said

    command = under_way(job, epochs=6)
    left = members(command)
    command.kill()
    command.communicate()
    deadline = time.monotonic() + 10
    while any(map(alive, left)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(alive, left)), "nobody goes on training behind the back of a command that was killed"

    trained(job, forked)
    assert {path.name: path.read_bytes() for path in job.index.parent.iterdir()} == whole


def test_a_damaged_shard_ends_all_with_its_reason(folder: Path, forked: Forked) -> None:
    job = configure(PROCESSES).job("train", "late_concat", "joint", "0")
    path = Path("data/tiny/shards/train-00000.parquet")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    status, said = forked.run(folder, *job.command.split())
    assert status == 1
    assert "error: A data file is damaged: its checksum is" in said
    assert f"where: {path}" in said


def test_a_run_of_several_processes_that_diverges(folder: Path, forked: Forked) -> None:
    job = configure(PROCESSES, grad_clip=None, optimizer={"name": "sgd", "lr": 1e30}).job(
        "train", "late_concat", "joint", "0"
    )
    trained(job, forked)
    failed = json.loads(job.index.read_text())["failed"]
    assert (failed["what"], failed["epoch"], failed["step"]) == ("the loss is nan", 0, 1)
    assert len(failed["batch"]) == 16, "the clips of all processes"


def test_other_methods_are_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = {**PARAMS["study"], "methods": ["ogm"]}
    content = with_lists({**PARAMS, "methods": {"ogm": {"name": "ogm"}}, "study": study})
    content["trainer"] = {**PARAMS["trainer"], "processes": 2}
    Path("params.yaml").write_text(yaml.safe_dump(content))
    assert cli.main(["train", "late_concat", "ogm", "0"]) == 1
    said = capsys.readouterr().err
    assert "methods.ogm: trainer.processes may be more than 1 for agm, joint only, not for ogm" in said
