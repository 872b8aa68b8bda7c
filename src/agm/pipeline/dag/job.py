"""One job of the DAG: the files of one command, and the parameters and source that it depends on."""

from dataclasses import dataclass
from pathlib import Path

RECORDS = Path("records")
"""For each job a small file that says what its results were made from, at the path of its index."""
MANY = ("extract", "train", "concept", "evaluate", "evaluate_concept")
"""Steps for which DVC has one stage for many jobs, which differ in the last word of their cells: a seed or a part. The
time of DVC grows with the number of stages."""
TRAINING = ("train", "concept")
"""Steps that train a network. The index of such a run says whether it failed."""


@dataclass(frozen=True)
class Job:
    """One command of the DAG.

    Attributes:
        step: the step, a key of `agm.pipeline.dag.code.STEPS`.
        cell: which one of the step's jobs: the arguments of the command.
        index: the small JSON file among the outputs that describes them, and marks the job done.
        outputs: the other files and folders that it writes.
        inputs: small files that it reads, compared by content: annotations and the indexes of other jobs.
        selected: for an index among the inputs the dotted keys that matter; without an entry all keys matter.
        data: large files that it reads; the indexes among `inputs` hold their checksums.
        parameters: dotted keys of `params.yaml` that it depends on.
        code: names of the fingerprints (`agm.pipeline.dag.code`) of the source that it runs.
        after_runs: whether its method reads finished runs: for DVC such jobs are a stage of their own.
    """

    step: str
    cell: tuple[str, ...]
    index: Path
    outputs: tuple[Path, ...]
    inputs: tuple[Path, ...]
    data: tuple[Path, ...]
    parameters: tuple[str, ...]
    code: tuple[str, ...]
    after_runs: bool = False
    selected: tuple[tuple[Path, tuple[str, ...]], ...] = ()

    @property
    def results(self) -> tuple[Path, ...]:
        """The index and the outputs."""
        return (self.index, *self.outputs)

    @property
    def record(self) -> Path:
        """The small JSON file that says what the outputs were made from (`agm.pipeline.dag.provenance`).

        No job reads it: a result that is made again and comes out the same is no reason to run the jobs after it.
        """
        return RECORDS / self.index

    @property
    def stage(self) -> str:
        """The name of its stage in dvc.yaml, the same for all seeds or parts."""
        name = f"{self.step}_after_runs" if self.after_runs else self.step
        cell = self.cell[:-1] if self.step in MANY else self.cell
        return f"{name}@{'-'.join(cell)}" if cell else name

    @property
    def command(self) -> str:
        """The command line: the same text for a person, Snakemake and DVC."""
        return " ".join(["agm", self.step.replace("_", "-"), *self.cell])
