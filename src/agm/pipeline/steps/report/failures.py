"""The runs that failed: which, where, and what to do about it."""

import shlex
from collections.abc import Iterator
from dataclasses import dataclass

from agm.pipeline.steps.report.collect import Run, Study
from agm.pipeline.steps.report.table import Cell, Table
from agm.pipeline.steps.report.text import NOTHING, count

SHOWN_CLIPS = 4


@dataclass(frozen=True)
class Failures:
    """The block on failed runs.

    Attributes:
        caution: how many failed, and what that means for every number.
        table: one row per failed run.
        advice: what to do, one sentence per entry.
    """

    caution: str
    table: Table
    advice: tuple[str, ...]

    def plain(self) -> str:
        """The block for a terminal."""
        advice = [f"  {line}" for line in self.advice]
        return "\n".join([self.caution, self.table.plain(), *advice])


def failures(study: Study) -> Failures | None:
    """What the report says about failed runs; None where no run failed."""
    if not study.failed:
        return None
    # Leaving out the worst runs makes a mean look better.
    caution = (
        f"{len(study.failed):,} of {count(len(study.runs), 'run')} failed. They have no scores: every mean is over the "
        "runs that are left, which may flatter what fails, and says over how many."
    )
    return Failures(caution, _table(study), tuple(_advice(study)))


def _table(study: Study) -> Table:
    columns = ("fusion", "network", "seed", "what", "epoch", "step", "bad batch", "checkpoint kept")
    rows = tuple(_row(run) for run in study.failed)
    return Table("Failed runs", columns, rows, words=frozenset({1, 3, 6, 7}), foot="Epochs and steps count from 0.")


def _row(run: Run) -> tuple[Cell, ...]:
    """One failed run; values that are not known are shown as a dash."""
    failed = run.failed
    return (
        Cell(run.fusion),
        Cell(run.method or f"{run.concept} alone", method=run.method),
        Cell(str(run.seed)),
        Cell(failed["what"]),
        Cell(_known(failed["epoch"])),
        Cell(_known(failed["step"])),
        Cell(_clips(failed["batch"])),
        Cell(_known(failed["checkpoint"])),
    )


def _known(value: object) -> str:
    return NOTHING if value is None else str(value)


def _clips(batch: list[str] | None) -> str:
    """The first clips of the bad batch, and how many there are."""
    if not batch:
        return NOTHING
    shown = ", ".join(batch[:SHOWN_CLIPS])
    more = ", …" if len(batch) > SHOWN_CLIPS else ""
    return f"{count(len(batch), 'clip')}: {shown}{more}"


def _advice(study: Study) -> Iterator[str]:
    """What to do about the failures that the study has."""
    yield (
        "What to do: lower trainer.optimizer.lr, trainer.grad_clip (or set one) or the method's strength, and start "
        "the engine again. A change of the trainer trains every run anew, and so keeps them comparable."
    )
    if run := _first(study, "batch"):
        # Quoted, because a clip id may hold spaces and the user copies the command.
        clip = shlex.quote(run.failed["batch"][0])
        yield (
            f"Look at the clips of the bad batch: `agm inspect {clip}`. "
            f"{run.folder}/run.json lists them all. Where several runs fail at the same clips, suspect the data."
        )
    if run := _first(study, "checkpoint"):
        yield (
            f"A checkpoint is of the last good epoch: with the parameters as they are, `{run.command}` goes on from "
            "there, and on a CPU meets the same numbers again."
        )


def _first(study: Study, key: str) -> Run | None:
    """The first failed run about which `key` is known."""
    for run in study.failed:
        if run.failed[key]:
            return run
    return None
