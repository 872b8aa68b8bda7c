"""The answer in words: which modality is starved, and does modulation fix it? Computed, so it can also be 'no'.

A modality is called starved when the accuracy of its response φ_m in joint training lies at least `STARVED` below the
accuracy of the network trained on it alone, and the interval of that gap excludes zero. With a gap of that size but
too few seeds to tell, it 'looks' starved. That none is starved is said only where every interval ends below `STARVED`.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from agm.metrics.intervals import Difference
from agm.report.collect import Study
from agm.report.results import Results
from agm.report.text import count, evidence, number, percent, sentence, several

STARVED = 0.10
FEW_SEEDS = 5
TOLD_APART = 3
"""Up to so many methods, each gets its own sentence; of more, the best."""


@dataclass(frozen=True)
class Answer:
    """What the study says about one fusion: one sentence, and the sentences with the numbers behind it."""

    fusion: str
    verdict: str
    evidence: tuple[str, ...]


def answer(study: Study, results: Results, fusion: str) -> Answer:
    """Put the numbers of one fusion into words."""
    if results.baseline is None:
        verdict = "The study has no joint training, so it cannot say which modality is starved."
        return Answer(fusion, verdict, ())
    return _Story(study, results, fusion, results.baseline).answer()


class _Story:
    """The sentences about one fusion, all around the modality with the largest gap."""

    def __init__(self, study: Study, results: Results, fusion: str, baseline: str) -> None:
        self.study, self.results, self.fusion, self.baseline = study, results, fusion, baseline
        self.modalities = study.params.study.modalities
        self.methods = [name for name in study.params.study.compared if name != baseline]
        self.gaps = {name: results.gap(fusion, baseline, name) for name in self.modalities}
        self.starved = [name for name, gap in self.gaps.items() if gap.mean >= STARVED]
        self.target = max(self.gaps, key=lambda name: self.gaps[name].mean)

    def answer(self) -> Answer:
        compared = (self._starvation(), self._competition()) if len(self.modalities) > 1 else ()
        return Answer(self.fusion, self._verdict(), (*compared, *self._effects()))

    # --- the verdict ---

    def _verdict(self) -> str:
        if len(self.modalities) == 1:
            return "There is a single modality: nothing competes with it, so it cannot be starved."
        if not self.starved:
            return self._none_starved()
        sure = all(_certain(self.gaps[name]) for name in self.starved)
        one = len(self.starved) == 1
        verb = ("is" if one else "are") if sure else ("looks" if one else "look")
        told = self.methods if len(self.methods) <= TOLD_APART else []
        clauses = [f"{method} {self._in_short(method)}" for method in told]
        ending = f"; {several(clauses)}" if clauses else ""
        return f"{sentence(several(self.starved))} {verb} starved in joint training{ending}."

    def _none_starved(self) -> str:
        """Not seeing a gap is not the same as excluding one."""
        if all(gap.high is not None and gap.high < STARVED for gap in self.gaps.values()):
            return "No modality is starved in joint training."
        seeds = count(self.gaps[self.target].n, "seed")
        return f"No modality is seen to be starved in joint training, but {seeds} cannot exclude it."

    def _in_short(self, method: str) -> str:
        """What a method does for the most starved modality, in a few words."""
        gain = self._difference(method, "phi_accuracy", self.target)
        left = self.results.gap(self.fusion, method, self.target).mean
        called = "it" if len(self.starved) == 1 else self.target
        if not self._real(gain):
            return f"makes no difference to {called} that {count(gain.n, 'seed')} can show"
        if gain.mean < 0:
            return f"starves {called} further"
        if left < STARVED:
            return f"feeds {called}"
        return f"gives {called} back {100 * gain.mean / (gain.mean + left):.0f} % of the gap"

    # --- the evidence ---

    def _starvation(self) -> str:
        gap = self.gaps[self.target]
        details = f"{self._against(self.target)} (gap {evidence(gap, self.results.confidence)})"
        if not self.starved:
            return (
                f"In {self.baseline}, no φ accuracy lies {number(STARVED, 2)} or more below what a network reaches on "
                f"the modality alone. The largest gap: {details}."
            )
        others = [self._against(name) for name in self.starved if name != self.target]
        also = f" Also below: {several(others)}." if others else ""
        doubt = "" if _certain(gap) else f" The gap is large, but {count(gap.n, 'seed')} cannot exclude chance."
        return f"In {self.baseline}, {details}.{doubt}{also}"

    def _against(self, modality: str) -> str:
        phi = self._mean(self.baseline, "phi_accuracy", modality)
        alone = self.results.mean(self.results.alone(self.fusion, modality)).mean
        return f"φ accuracy of {modality} is {number(phi)}, against {number(alone)} of the network trained on it alone"

    def _competition(self) -> str:
        """Whether the second measure of the same thing agrees."""
        strengths = {name: self._mean(self.baseline, "d", name) for name in self.modalities}
        first = max(strengths, key=lambda name: strengths[name])
        rest = several([f"{name} {number(value)}" for name, value in strengths.items() if name != first])
        agrees = "" if not self.starved else " agrees: it" if first == self.target else " does not agree: it"
        return f"Competition strength d{agrees} is highest for {first}, {number(strengths[first])} ({rest})."

    def _effects(self) -> Iterator[str]:
        """What modulation changes: method by method, or of many methods the best, with a warning."""
        told = self.methods
        if len(told) > TOLD_APART:
            fed, right = self._best("phi_accuracy", self.target), self._best("accuracy")
            told = list(dict.fromkeys([fed, right]))
            yield (
                f"Of {len(self.methods)} methods, {fed} has the highest φ accuracy of {self.target} and {right} the "
                "highest accuracy. The best of many, picked afterwards, looks better than it is."
            )
        for method in told:
            phi = self._change(method, "phi_accuracy", self.target)
            yield f"{method}: φ accuracy of {self.target} {phi}; accuracy {self._change(method, 'accuracy')}."

    def _best(self, metric: str, modality: str | None = None) -> str:
        return max(self.methods, key=lambda method: self._mean(method, metric, modality))

    def _change(self, method: str, metric: str, modality: str | None = None) -> str:
        before, after = (self._mean(name, metric, modality) for name in (self.baseline, method))
        difference = self._difference(method, metric, modality)
        chance = "" if self._real(difference) or difference.n == 1 else "; chance is not excluded"
        return f"{number(before)} → {number(after)} ({evidence(difference, self.results.confidence)}{chance})"

    def _mean(self, method: str, metric: str, modality: str | None = None) -> float:
        return self.results.mean(self.results.method(self.fusion, method, metric, modality)).mean

    def _difference(self, method: str, metric: str, modality: str | None = None) -> Difference:
        reference = self.results.method(self.fusion, self.baseline, metric, modality)
        return self.results.difference(self.results.method(self.fusion, method, metric, modality), reference)

    def _real(self, difference: Difference) -> bool:
        return difference.p is not None and difference.p < 1 - self.results.confidence


def _certain(gap: Difference) -> bool:
    return gap.low is not None and gap.low > 0


def caution(study: Study) -> str | None:
    """What a reader must know before any number: why the test is too easy. None where nothing leaks."""
    leaks = study.inspection["leaks"]
    return f"The split leaks: {'; '.join(leaks)}. The scores are too high: expect less on new data." if leaks else None


def power(study: Study) -> str:
    """What so many seeds can and cannot show."""
    seeds, methods = len(study.params.study.seeds), len(study.params.study.compared)
    if seeds == 1:
        return "One seed gives no interval and no test: a difference of a few points may be chance. Add seeds."
    confidence = percent(study.params.evaluation.confidence)
    text = f"Every figure is a mean over {seeds} seeds; intervals are {confidence} t intervals."
    if seeds < FEW_SEEDS:
        text += " So few seeds have little power: an effect that does not show may still be there."
    if study.baseline and methods > 2:
        text += f" p-values are not corrected for comparing {methods - 1} methods."
    return text
