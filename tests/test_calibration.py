"""On `dial`, whose difficulty is known, competition strength says what it should."""

import json
from pathlib import Path

import pytest

from agm.pipeline import cli, config
from agm.pipeline.config.compose import compose
from agm.pipeline.dag.graph import Graph
from clone import ROOT

pytestmark = pytest.mark.heavy

SEEDS = (0, 1)
STUDY = [
    "~dataset.modalities.text",
    "~features.text",
    "~encoders.text",
    "dial.clips=1200",
    "dial.noise.video=0.3",
    "features.video.frames=1",
    "num_parts=1",
    f"study.seeds={list(SEEDS)}",
    "study.methods=[joint]",
    "trainer.epochs=30",
    "trainer.schedule.step_size=30",
]
AUDIBLE, DROWNED = 0.1, 30.0


def video_strengths(folder: Path, audio_noise: float, patch: pytest.MonkeyPatch) -> list[dict[str, float]]:
    """d of video in joint training, seed by seed."""
    folder.mkdir()
    patch.chdir(folder)
    compose([*STUDY, f"dial.noise.audio={audio_noise}"], folder / "params.yaml", groups=ROOT / "params")
    graph = Graph(config.load())
    for job in graph.jobs:
        if job.step != "report":
            assert cli.main(job.command.split()[1:]) == 0
    indexes = [graph.job("evaluate", "late_concat", "joint", seed).index for seed in SEEDS]
    return [json.loads(index.read_text())["competition"]["video"] for index in indexes]


def test_competition_rises_as_the_competing_modality_is_made_easier(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The picture is the same in both; only how well the key tone can be heard differs."""
    easy = video_strengths(tmp_path / "easy", AUDIBLE, monkeypatch)
    hard = video_strengths(tmp_path / "hard", DROWNED, monkeypatch)
    for with_rival, without in zip(easy, hard, strict=True):
        assert with_rival["d"] > without["high"], (easy, hard)
