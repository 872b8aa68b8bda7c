"""The runs that failed: which, where, and what to do about it."""

import shlex
from collections.abc import Iterator
from dataclasses import dataclass

from agm.pipeline.steps.report.collect import Run, Study
from agm.pipeline.steps.report.tables import Cell, Table
from agm.pipeline.steps.report.text import NOTHING, count

SHOWN_CLIPS = 4


@dataclass(frozen=True)
class Failures:
    """The block on failed runs.

    Attributes:
        caution: how many failed, and what that means for every number.
        advice: what to do, a sentence each.
    """

    caution: str
    table: Table
    advice: tuple[str, ...]

    def plain(self) -> str:
        """The block for a terminal."""
        return "\n".join([self.caution, self.table.plain(), *(f"  {line}" for line in self.advice)])


def failures(study: Study) -> Failures | None:
    """What the report says about runs that failed; None where none did."""
    if not study.failed:
        return None
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
    failed = run.failed
    known = [NOTHING if failed[key] is None else str(failed[key]) for key in ("epoch", "step", "checkpoint")]
    name = run.method or f"{run.concept} alone"
    texts = (run.fusion, name, str(run.seed), failed["what"], *known[:2], _clips(failed["batch"]), known[2])
    return tuple(Cell(text, method=run.method if place == 1 else None) for place, text in enumerate(texts))


def _clips(batch: list[str] | None) -> str:
    """The first clips of the bad batch, and how many there are."""
    if not batch:
        return NOTHING
    shown = ", ".join(batch[:SHOWN_CLIPS])
    return f"{count(len(batch), 'clip')}: {shown}{', …' if len(batch) > SHOWN_CLIPS else ''}"


def _advice(study: Study) -> Iterator[str]:
    """What to do; only what these failures call for."""
    yield (
        "What to do: lower trainer.optimizer.lr, trainer.grad_clip (or set one) or the method's strength, and start "
        "the engine again. A change of the trainer trains every run anew, and so keeps them comparable."
    )
    if run := _first(study, "batch"):
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
    return next((run for run in study.failed if run.failed[key]), None)
