"""The page: everything the report says, as one HTML file that needs nothing else."""

import base64
import functools
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from agm.pipeline.io.tables import ENOUGH_CLIPS
from agm.pipeline.steps.report import data_tables, environment, figures, tables
from agm.pipeline.steps.report.answer import Answer, caution, power
from agm.pipeline.steps.report.collect import Run, Study
from agm.pipeline.steps.report.drawing import ALONE, lines
from agm.pipeline.steps.report.failures import failures
from agm.pipeline.steps.report.results import Results
from agm.pipeline.steps.report.starvation import STARVED
from agm.pipeline.steps.report.text import count, percent, sentence

FOLDER = Path(__file__).parent
SHOWN_REASONS = 20
SHOWN_CLIPS = 50
SHOWN_CHARACTERS = 300
FEW_FAILURES = 10
"""With more failures, their table starts folded."""
SELECTION = {"accuracy": "highest accuracy", "loss": "lowest loss"}
"""The epoch whose weights a run keeps, in words."""
MANY_CLASSES = 30
"""With more classes, the tables with a row per class start folded."""


def render(study: Study, results: Results, answers: list[Answer]) -> str:
    """The whole page as HTML."""
    # The template arranges; it computes nothing.
    fusions = [_fusion(study, results, answer) for answer in answers]
    return _template().render(
        css=(FOLDER / "style.css").read_text(encoding="utf-8"),
        params=study.params,
        study=study,
        names=study.params.study,
        power=power(study),
        caution=caution(study),
        failures=failures(study),
        few=FEW_FAILURES,
        intro=tables.intro(study),
        **_method(study),
        few_clips=_few_clips(study),
        enough_clips=ENOUGH_CLIPS,
        used=sum(split["rows"] for split in study.shards["splits"].values()),
        many=MANY_CLASSES,
        fusions=fusions,
        kappas=[fusion for fusion in fusions if fusion["kappas"]],
        lines=lines(study.params.study.methods),
        alone=ALONE,
        data=_data(study),
        configuration=yaml.safe_dump(study.params.model_dump(mode="json"), sort_keys=False, allow_unicode=True),
        made_by=_made_by(study),
    )


@functools.cache
def _template() -> Template:
    loader = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        # A name that the template misspells is an error, not nothing.
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    loader.filters |= {"count": count, "sentence": sentence}
    return loader.get_template("page.html.j2")


def _method(study: Study) -> dict[str, Any]:
    """How the numbers were measured, in words for the section on methods."""
    seeds = count(len(study.params.study.seeds), "seed")
    penalty = study.params.evaluation.ridge_alpha
    # Where a clip is not one feature vector per modality, permuting needs whole batches: the page names these methods.
    within_batches = {run.method for run in study.runs if _permuted_within(run) == "batch"}
    return {
        "starved": STARVED,
        "confidence": percent(study.params.evaluation.confidence),
        "selection": SELECTION[study.params.trainer.monitor],
        "seeds": f"{seeds}, without the runs that failed" if study.failed else seeds,
        "penalty": "chosen by leave-one-out" if penalty is None else f"{penalty:g}",
        "within_batches": sorted(within_batches),
    }


def _permuted_within(run: Run) -> str | None:
    """Within what the run's features were permuted, "split" or "batch"; None where they were not permuted."""
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
    """The section on the clips: which were used, which not, and what they look like."""
    return {
        "clips": data_tables.clips(study),
        "guess": study.majority,
        "reasons": data_tables.reasons(study, SHOWN_REASONS),
        "quarantined": data_tables.quarantined(study, SHOWN_CLIPS),
        "warnings": study.manifest["warnings"],
        # In the page itself, which needs no other file.
        "sheet": f"data:image/png;base64,{base64.b64encode(study.sheet).decode()}",
        "texts": data_tables.texts(study, SHOWN_CHARACTERS),
        "durations": figures.duration_panels(study),
        "duplicates": data_tables.duplicates(study),
        "flaws": data_tables.flaws(study),
    }


def _made_by(study: Study) -> dict[str, Any]:
    """The section on source, libraries and hardware."""
    return {
        "revision": environment.revision(),
        "libraries": environment.libraries(),
        "hardware": environment.hardware(),
        "training": environment.training(study),
    }
