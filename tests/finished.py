"""A study in which every step is done, for tests that break something and look what becomes of it."""

from pathlib import Path

from agm.pipeline import config
from agm.pipeline.config.compose import compose
from agm.pipeline.dag.graph import Graph
from clone import ROOT
from warm import Warm


class Finished:
    """A folder in which every step is done.

    Attributes:
        whole: the checksum of every file.
        faults: how many there were.
    """

    def __init__(self, folder: Path, overrides: list[str]) -> None:
        compose(overrides, folder / "params.yaml", groups=ROOT / "params")
        self.jobs = Graph(config.load(folder / "params.yaml")).jobs
        self.warm = Warm(folder)
        for job in self.jobs:
            assert self.warm.run(job.command).status == 0, job.command
        self.whole = self.warm.contents()
        self.faults = 0
