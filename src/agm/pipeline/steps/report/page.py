"""The page: everything the report says, as one HTML file that needs nothing else."""

import base64
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from agm.pipeline.io.tables import ENOUGH_CLIPS
from agm.pipeline.steps.report import environment, figures, tables
from agm.pipeline.steps.report.answer import STARVED, Answer, caution, power
from agm.pipeline.steps.report.collect import Run, Study
from agm.pipeline.steps.report.drawing import ALONE, lines
from agm.pipeline.steps.report.failures import failures
from agm.pipeline.steps.report.results import Results
from agm.pipeline.steps.report.text import count, percent, sentence

FOLDER = Path(__file__).parent
SHOWN_REASONS = 20
SHOWN_CLIPS = 50
SHOWN_CHARACTERS = 300
FEW_FAILURES = 10
"""Of more, the table starts folded."""
MANY_CLASSES = 30
"""Above so many, the tables with a row per class start folded."""


def render(study: Study, results: Results, answers: list[Answer]) -> str:
    """The whole page as HTML."""
    loader = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    loader.filters |= {"count": count, "sentence": sentence}
    names, alpha = study.params.study, study.params.evaluation.ridge_alpha
    fusions = [_fusion(study, results, each) for each in answers]
    without = ", without the runs that failed" if study.failed else ""
    return loader.get_template("page.html.j2").render(
        css=(FOLDER / "style.css").read_text(encoding="utf-8"),
        params=study.params,
        study=study,
        names=names,
        starved=STARVED,
        power=power(study),
        caution=caution(study),
        failures=failures(study),
        few=FEW_FAILURES,
        intro=tables.intro(study),
        confidence=percent(study.params.evaluation.confidence),
        selection={"accuracy": "highest accuracy", "loss": "lowest loss"}[study.params.trainer.monitor],
        seeds=count(len(names.seeds), "seed") + without,
        few_clips=_few_clips(study),
        enough_clips=ENOUGH_CLIPS,
        penalty="chosen by leave-one-out" if alpha is None else f"{alpha:g}",
        within_batches=sorted({run.method for run in study.runs if _permuted_within(run) == "batch"}),
        used=sum(split["rows"] for split in study.shards["splits"].values()),
        many=MANY_CLASSES,
        fusions=fusions,
        kappas=[fusion for fusion in fusions if fusion["kappas"]],
        lines=lines(names.methods),
        alone=ALONE,
        data=_data(study),
        configuration=yaml.safe_dump(study.params.model_dump(mode="json"), sort_keys=False, allow_unicode=True),
        made_by=_made_by(study),
    )


def _permuted_within(run: Run) -> str | None:
    """What the run's features were permuted within; None where they were not."""
    return run.evaluation["splits"].get("test", {}).get("permuted_within")


def _few_clips(study: Study) -> str:
    """How many test clips and classes there are, where that is too few for the competition strength."""
    clips, classes = study.shards["splits"]["test"]["rows"], len(study.shards["classes"])
    if clips >= ENOUGH_CLIPS * classes:
        return ""
    return f"{count(clips, 'clip')} for {classes} classes"


def _fusion(study: Study, results: Results, answer: Answer) -> dict[str, Any]:
    """Answer, tables and figures of one fusion."""
    fusion = answer.fusion
    return {
        "name": fusion,
        "answer": answer,
        "accuracies": tables.accuracies(study, results, fusion),
        "monomodal": tables.monomodal(study, results, fusion),
        "permutation": tables.permutation(study, results, fusion),
        "published": tables.published(study, results, fusion),
        "phi": figures.phi_panels(study, results, fusion),
        "competition": tables.competition(study, results, fusion),
        "competition_by_seed": tables.competition_by_seed(study, results, fusion),
        "strengths": figures.competition_panels(study, results, fusion),
        "curves": figures.curve_panels(study, fusion),
        "runs": tables.runs(study, fusion),
        "kappa": tables.kappa(study, fusion),
        "kappas": figures.kappa_panels(study, fusion),
        "classes": tables.classes(study, results, fusion),
    }


def _data(study: Study) -> dict[str, Any]:
    """What became of the clips."""
    return {
        "clips": tables.clips(study),
        "guess": study.majority,
        "reasons": tables.reasons(study, SHOWN_REASONS),
        "quarantined": tables.quarantined(study, SHOWN_CLIPS),
        "warnings": study.manifest["warnings"],
        "sheet": f"data:image/png;base64,{base64.b64encode(study.sheet).decode()}",
        "texts": tables.texts(study, SHOWN_CHARACTERS),
        "durations": figures.duration_panels(study),
        "duplicates": tables.duplicates(study),
        "flaws": tables.flaws(study),
    }


def _made_by(study: Study) -> dict[str, Any]:
    return {
        "revision": environment.revision(),
        "libraries": environment.libraries(),
        "hardware": environment.hardware(),
        "training": environment.training(study),
    }
