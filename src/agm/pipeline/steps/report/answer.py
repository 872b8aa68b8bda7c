"""The answer in words: which modality is starved, and does modulation fix it? Computed, so it can also be 'no'."""

from dataclasses import dataclass

from agm.pipeline.steps.report.collect import Study
from agm.pipeline.steps.report.evidence import evidence
from agm.pipeline.steps.report.results import Results
from agm.pipeline.steps.report.starvation import Starvation
from agm.pipeline.steps.report.text import percent
from agm.pipeline.steps.report.verdict import verdict

FEW_SEEDS = 5


@dataclass(frozen=True)
class Answer:
    """What the study says about one fusion: one sentence, and the sentences with the numbers behind it."""

    fusion: str
    verdict: str
    evidence: tuple[str, ...]


def answer(study: Study, results: Results, fusion: str) -> Answer:
    """Put the numbers of one fusion into words."""
    if results.baseline is None:
        return Answer(fusion, "The study has no joint training, so it cannot say which modality is starved.", ())
    judged = Starvation(study, results, fusion, results.baseline)
    return Answer(fusion, verdict(judged), tuple(evidence(judged)))


def caution(study: Study) -> str | None:
    """What a reader must know before any number: why the test is too easy. None where nothing leaks."""
    leaks = study.inspection["leaks"]
    if not leaks:
        return None
    return f"The split leaks: {'; '.join(leaks)}. The scores are too high: expect less on new data."


def power(study: Study) -> str:
    """What the number of seeds can and cannot show."""
    seeds, methods = len(study.params.study.seeds), len(study.params.study.methods)
    if seeds == 1:
        return "One seed gives no interval and no test: a difference of a few points may be chance. Add seeds."
    confidence = percent(study.params.evaluation.confidence)
    left = ", or those of them that did not fail" if study.failed else ""
    text = f"Every figure is a mean over {seeds} seeds{left}; intervals are {confidence} t intervals."
    if seeds < FEW_SEEDS:
        text += " So few seeds have little power: an effect that does not show may still be there."
    # With two methods there is one comparison, which needs no correction.
    if study.baseline and methods > 2:
        text += f" p-values are not corrected for comparing {methods - 1} methods."
    return text
