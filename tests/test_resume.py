"""A run that is killed or stopped at any moment ends as one that was not, to the last bit; nothing is left behind."""

import os
import random
import resource
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
import yaml
from torch import nn

from agm.pipeline import cli, config
from agm.pipeline.dag.graph import Graph, Job
from agm.pipeline.steps.train import watch
from agm.pipeline.steps.train.loop import Training
from agm.pipeline.steps.train.validate import validate
from small_shards import write_shards
from test_train import PARAMS

EPOCHS = 4
KILLS = {"train": 8, "evaluate": 2}
Undisturbed = tuple[Path, dict[str, dict[str, bytes]], dict[str, float]]
JOB = ("train", "late_concat", "agm", "0")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Undisturbed]:
    """A study's folder, what both steps of one run of it make, and their seconds; without the run."""
    folder = tmp_path_factory.mktemp("study")
    evaluation = {**PARAMS["evaluation"], "permutations": 500}
    content = {**PARAMS, "trainer": {**PARAMS["trainer"], "epochs": EPOCHS}, "evaluation": evaluation}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        write_shards(Path("data/tiny"))
        Path("params.yaml").write_text(yaml.safe_dump(content))
        for modality in ("image", "audio", "text"):
            assert cli.main(["concept", "late_concat", modality, "0"]) == 0
            assert cli.main(["evaluate-concept", "late_concat", modality, "0"]) == 0
        seconds = {}
        for job in jobs():
            start = time.monotonic()
            run(job)
            seconds[job.step] = time.monotonic() - start
        made = results()
        # A run that is asked for again is trained again.
        for made_once in ("runs/tiny/late_concat/agm", "evaluations/tiny/late_concat/agm", ".cache/store"):
            shutil.rmtree(made_once)
        yield folder, made, seconds


@pytest.fixture
def folder(undisturbed: Undisturbed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of that folder, and in it."""
    shutil.copytree(undisturbed[0], tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AGM_STORE_GB", "0")
    return tmp_path


def jobs() -> list[Job]:
    graph = Graph(config.load())
    return [graph.job(step, *JOB[1:]) for step in ("train", "evaluate")]


def run(job: Job) -> None:
    assert cli.main(job.command.split()[1:]) == 0


def results() -> dict[str, dict[str, bytes]]:
    """Every file below the folders of the run and of its evaluation, by step: strays too."""
    return {job.step: {path.name: path.read_bytes() for path in job.index.parent.glob("*")} for job in jobs()}


def check_the_run(expected: dict[str, dict[str, bytes]]) -> None:
    """Started again, it ends as one that nothing happened to. Its evaluation is made of nothing else."""
    run(jobs()[0])
    assert results()["train"] == expected["train"]


def started(work: Callable[[], object]) -> int:
    """Do `work` in a process of its own, which has torch already: real kills, without the seconds of its import."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            with open(os.devnull, "w") as nowhere:
                os.dup2(nowhere.fileno(), 2)
            status = int(work() or 0)
        finally:
            os._exit(status)
    return child


def ended(child: int) -> int:
    """The status of a process, negative for a signal."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_killed_at_random_moments(folder: Path, undisturbed: Undisturbed) -> None:
    _, expected, seconds = undisturbed
    moments = random.Random(0)
    for job in jobs():
        kills, longest = 0, 0.3 * seconds[job.step]
        while kills < KILLS[job.step]:
            child = started(lambda job=job: run(job))
            time.sleep(moments.uniform(0, longest))
            os.kill(child, signal.SIGKILL)
            if ended(child) == -signal.SIGKILL:
                kills += 1
                # Else a slow machine would be killed in the same moment for ever.
                longest *= 1.1
            else:
                shutil.rmtree(job.index.parent)
                longest = 0.3 * seconds[job.step]
        run(job)
    assert results() == expected
    assert not list(Path(".cache/train").glob("*/*")), "checkpoints of a finished run"


@pytest.mark.parametrize("moment", range(7))
def test_killed_while_a_checkpoint_is_written(
    folder: Path,
    undisturbed: Undisturbed,
    moment: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Before each flush and each rename of the first two checkpoints, and after them."""
    monkeypatch.setattr(watch, "SAVE_EVERY_SECONDS", 0.0)
    left = [moment]

    def deadly(function: Callable[..., None]) -> Callable[..., None]:
        def call(*arguments: object, **options: object) -> None:
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left[0] -= 1
            function(*arguments, **options)

        return call

    def deadly_run() -> int:
        os.fsync, os.replace = deadly(os.fsync), deadly(os.replace)
        return cli.main(list(JOB))

    assert ended(started(deadly_run)) == -signal.SIGKILL
    check_the_run(undisturbed[1])


def test_killed_within_the_bytes_of_a_checkpoint(folder: Path, undisturbed: Undisturbed) -> None:
    def deadly_run() -> int:
        # Python ignores this signal, which then is an error of the write instead.
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
        return cli.main(list(JOB))

    assert ended(started(deadly_run)) == -signal.SIGXFSZ
    (cut,) = Path(".cache/train").glob("*/*.safetensors")
    assert cut.name.startswith(".tmp-"), "a part of a file under its final name"
    check_the_run(undisturbed[1])


@pytest.mark.parametrize(("number", "batch"), [(signal.SIGTERM, 1), (signal.SIGUSR1, 7), (signal.SIGINT, 15)])
def test_a_signal_writes_a_checkpoint_first(
    folder: Path,
    undisturbed: Undisturbed,
    number: int,
    batch: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    step, done = Training.train_step, []

    def signalled(training: Training, clips: object) -> torch.Tensor:
        done.append(clips)
        if len(done) == batch:
            os.kill(os.getpid(), number)
        return step(training, clips)

    monkeypatch.setattr(Training, "train_step", signalled)
    assert cli.main(list(JOB)) == 128 + number
    epoch, within = divmod(batch, 5)
    where = f"epoch {epoch}, batch {within}" if within else f"epoch {epoch - 1}, batch 5"
    assert f"stopped by {signal.Signals(number).name}: the checkpoint holds {where}" in capsys.readouterr().err
    assert len(done) == batch, "the batch that was under way is the last"
    assert not any(path.exists() for path in (jobs()[0].index, *jobs()[0].outputs))
    check_the_run(undisturbed[1])
    assert len(done) == 5 * EPOCHS, "no batch was trained twice"


def test_a_signal_in_the_validation(folder: Path, undisturbed: Undisturbed, monkeypatch: pytest.MonkeyPatch) -> None:
    def signalled(model: nn.Module, clips: object, between_batches: Callable[[], None]) -> dict[str, float]:
        os.kill(os.getpid(), signal.SIGTERM)
        return validate(model, clips, between_batches)

    monkeypatch.setattr("agm.pipeline.steps.train.loop.validate", signalled)
    assert cli.main(list(JOB)) == 128 + signal.SIGTERM
    (kept,) = Path(".cache/train").glob("*/*.safetensors")
    assert kept.name.startswith("step-00000-000005-")
    monkeypatch.setattr("agm.pipeline.steps.train.loop.validate", validate)
    check_the_run(undisturbed[1])
