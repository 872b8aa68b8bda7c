"""The steps from raw files to a trained network, in this process: quick, on small real media."""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from agm.pipeline import cli, config
from agm.pipeline.config.compose import compose
from agm.pipeline.dag.graph import Graph
from agm.pipeline.io.files import read_json
from clone import ROOT

ANNOTATIONS = ROOT.parent / "shared/data/annotations"
STEPS = ("annotations", "list", "ingest", "extract", "shard")
# One network, one seed, one epoch.
TINY = ("num_parts=1", "study.seeds=[0]", "trainer.epochs=1", "trainer.batch_size=8")


def official(name: str) -> Path:
    """An official annotation file; the test is skipped where these are not."""
    path = ANNOTATIONS / name
    if not path.exists():
        pytest.skip("the official annotation files are not here")
    return path


class Pipeline:
    """The study that `overrides` compose, in a folder of its own."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, *overrides: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        monkeypatch.chdir(folder)
        monkeypatch.setenv("AGM_WORKERS", "1")
        # No power fails here: a file need not be on the disk.
        monkeypatch.setattr(os, "fsync", lambda descriptor: None)
        compose([*TINY, *overrides], groups=ROOT / "params")
        self.params = config.load()
        self.graph = Graph(self.params)
        self.data = self.graph.data

    def run(self, steps: Sequence[str] = STEPS) -> "Pipeline":
        """Run the jobs of the steps; every one must succeed."""
        for job in self.graph.jobs:
            if job.step in steps:
                assert cli.main(job.command.split()[1:]) == 0, job.command
        return self

    def train(self) -> dict[str, Any]:
        """Train the study's first run; returns its record."""
        fusion, method, seed = self.graph.cells("train")[0]
        job = self.graph.job("train", fusion, method, seed)
        assert cli.main(job.command.split()[1:]) == 0
        return read_json(job.index)

    @property
    def manifest(self) -> pl.DataFrame:
        return pl.read_parquet(self.data / "manifest.parquet")

    @property
    def quarantine(self) -> dict[str, str]:
        """Clip id → reason, of all clips that were quarantined."""
        table = pl.read_parquet(self.data / "quarantine.parquet")
        return dict(table.select("clip_id", "reason").iter_rows())

    @property
    def index(self) -> dict[str, Any]:
        """manifest.json: classes, clips per split, leaks, warnings."""
        return read_json(self.data / "manifest.json")


def copied(source: Path, target: Path) -> Path:
    """Copy one official file, byte for byte, to where the official layout has it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    return target
