"""Checkpoints of runs that are not finished: each is told with its run and its state, and none is deleted unasked."""

import json
import os
import signal
from pathlib import Path

import pytest
import torch
import yaml

from agm.pipeline import cli, config
from agm.pipeline.dag import unfinished
from agm.pipeline.dag.graph import Graph
from agm.pipeline.dag.unfinished import CHECKPOINTS
from agm.pipeline.runtime.lock import alone
from agm.pipeline.steps.train import watch
from agm.pipeline.steps.train.loop import Training
from small_shards import write_shards
from test_train import PARAMS

RUN = ("train", "late_sum", "agm", "0")


@pytest.fixture
def stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of checkpoints of a run that was stopped in its first epoch."""
    monkeypatch.chdir(tmp_path)
    write_shards(Path("data/tiny"))
    compose()
    with monkeypatch.context() as patch:
        step = Training.train_step

        def stopping(training: Training, clips: object) -> torch.Tensor:
            os.kill(os.getpid(), signal.SIGTERM)
            return step(training, clips)

        patch.setattr(Training, "train_step", stopping)
        assert cli.main(list(RUN)) == 128 + signal.SIGTERM
    (folder,) = CHECKPOINTS.iterdir()
    return folder


def compose(alpha: float = 1.0, **trainer: object) -> None:
    methods = {**PARAMS["methods"], "agm": {"name": "agm", "alpha": alpha}}
    content = {**PARAMS, "methods": methods, "trainer": {**PARAMS["trainer"], **trainer}}
    Path("params.yaml").write_text(yaml.safe_dump(content))


@pytest.fixture
def clean(capsys: pytest.CaptureFixture[str]):
    """Runs `agm clean` with arguments; returns what it printed."""

    def run(*arguments: str) -> str:
        capsys.readouterr()
        assert cli.main(["clean", *arguments]) == 0
        return capsys.readouterr().out

    return run


def states() -> list[str]:
    return [each.state for each in unfinished.all_checkpoints(config.load())]


def test_one_that_can_be_resumed_is_listed_and_not_deleted_unasked(stopped, clean):
    listed = clean()
    assert f"{stopped.name[:12]} " in listed and "`agm train late_sum agm 0`: can be resumed" in listed
    assert ".cache/store: 0.0 MB of earlier results, 20.0 GB at most (AGM_STORE_GB)" in listed
    clean("--delete")
    assert stopped.exists()
    assert f"deleted: {stopped}" in clean("--delete", stopped.name[:6])
    assert not stopped.exists()


def test_one_that_a_change_orphaned_is_named_with_the_change(stopped, clean, capsys):
    compose(alpha=2.0)
    assert "`agm train late_sum agm 0`: orphaned: methods.agm.alpha was 1.0, now 2.0" in clean()
    assert stopped.exists(), "a list deletes nothing"
    assert cli.main(list(RUN)) == 0
    said = capsys.readouterr().err
    assert "`agm clean` lists" in said and "is not used: methods.agm.alpha was 1.0, now 2.0" in said
    assert list(CHECKPOINTS.iterdir()) == [stopped], "a finished run removes its own checkpoints, and no others"
    clean("--delete")
    assert not stopped.exists()


def test_an_orphaned_one_is_used_when_the_change_is_taken_back(stopped, capsys):
    compose(alpha=2.0)
    assert states() == [unfinished.ORPHANED]
    compose()
    assert cli.main(list(RUN)) == 0
    assert "going on after batch 1" in capsys.readouterr().err
    assert states() == []


def test_an_input_that_will_be_made_again_does_not_orphan(stopped):
    os.rename("data/tiny/shards.json", "away")
    assert states() == [unfinished.RESUMABLE]


def test_one_of_another_study_is_left_alone(stopped, clean):
    content = yaml.safe_load(Path("params.yaml").read_text())
    content["study"]["seeds"] = [1]
    Path("params.yaml").write_text(yaml.safe_dump(content))
    assert "its run is of another study" in clean()
    clean("--delete")
    assert stopped.exists()


def test_one_of_a_failed_run_is_kept(stopped, clean, monkeypatch):
    monkeypatch.setattr(watch.Watch, "_first_bad", lambda self: (3, "the loss is nan"))
    assert cli.main(list(RUN)) == 0
    assert "its run failed" in clean("--delete")
    assert stopped.exists()


def test_one_of_a_run_under_way_is_never_deleted(stopped, clean):
    # The lock of another open of the file, as another process has it.
    with alone(*RUN):
        assert states() == [unfinished.RUNNING]
        assert f"not deleted: {stopped}: its run is under way" in clean("--delete", "--all")
    assert stopped.exists()
    clean("--delete", "--all")
    assert not stopped.exists()


@pytest.mark.parametrize("content", [None, "", "[]", json.dumps({"command": "agm train"})])
def test_one_that_does_not_say_what_it_is_of_is_listed(stopped, clean, content):
    (stopped / unfinished.ORIGIN).unlink()
    if content is not None:
        (stopped / unfinished.ORIGIN).write_text(content)
    assert "unknown" in clean("--delete")
    assert stopped.exists()


def test_a_folder_without_a_checkpoint_is_of_no_use(stopped, clean):
    for path in stopped.glob("*.safetensors"):
        path.unlink()
    assert "holds no checkpoint" in clean("--delete")
    assert not stopped.exists()


def test_a_name_of_none_is_refused(stopped, capsys):
    assert cli.main(["clean", "--delete", "xyz"]) == 1
    assert "There are no checkpoints of this name" in capsys.readouterr().err
    assert stopped.exists()


def test_the_name_of_the_folder_is_that_which_training_uses(stopped):
    params = config.load()
    assert unfinished.checkpoint_folder(params, Graph(params).job(*RUN)) == stopped
