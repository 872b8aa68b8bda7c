"""The answer in words: which modality is starved, and does modulation fix it? Computed, so it can also be 'no'.

A modality is called starved when the accuracy of its centred response φ_m in joint training lies at least `STARVED`
below the accuracy of the network trained on it alone, and the interval of that gap excludes zero. With a gap of that
size but too few seeds to tell, it 'looks' starved. That none is starved is said only where every interval ends below
`STARVED`. A modality of which the network trained on it alone knows no more than the largest class is not judged.

Where runs failed, numbers that are set against each other are of the seeds that all of them have, and what is left
without such seeds is not judged.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from agm.metrics.intervals import Difference
from agm.pipeline.steps.report.collect import Study
from agm.pipeline.steps.report.results import Results, Values, exact_mean, shared
from agm.pipeline.steps.report.text import count, evidence, number, over, percent, sentence, several

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
        self.methods = [name for name in study.params.study.methods if name != baseline]
        found = {name: results.gap(fusion, baseline, name) for name in self.modalities}
        self.gaps = {name: gap for name, gap in found.items() if gap is not None}
        self.unknown = [name for name in self.modalities if name not in self.gaps]
        self.uninformed = [name for name in self.unknown if (fusion, name) in results.uninformed]
        self.starved = [name for name, gap in self.gaps.items() if gap.mean >= STARVED]
        self.target = max(self.gaps, key=lambda name: self.gaps[name].mean, default=None)

    def answer(self) -> Answer:
        several_ways = (self._starvation(), self._permutation(), self._competition())
        compared = several_ways if len(self.modalities) > 1 else ()
        told = filter(None, [self._failures(), *compared, *self._effects()])
        return Answer(self.fusion, self._verdict(), tuple(told))

    # --- the verdict ---

    def _verdict(self) -> str:
        if len(self.modalities) == 1:
            return "There is a single modality: nothing competes with it, so it cannot be starved."
        if not self.results.method(self.fusion, self.baseline, "accuracy"):
            return f"Every run of {self.baseline} failed, so the study cannot say which modality is starved."
        known = self._starved() if self.starved else self._none_starved() if self.gaps else None
        return " ".join(filter(None, [known, self._not_judged(), self._uninformed(), self._disagreement()]))

    def _not_judged(self) -> str | None:
        lost = [name for name in self.unknown if name not in self.uninformed]
        if not lost:
            return None
        needed = f"no seed has both {self.baseline} and the network trained on it alone, because runs failed"
        return f"Of {several(lost)} nothing can be said: {needed}."

    def _uninformed(self) -> str | None:
        """Which networks know nothing alone: nothing can be missing of that in the joint model."""
        if not self.uninformed:
            return None
        found = []
        for name in self.uninformed:
            alone = self.results.uninformed[self.fusion, name]
            ends = f"{number(alone.low)} to {number(alone.high)}"
            found.append(f"{name} ({number(alone.mean)}, {percent(self.results.confidence)} interval {ends})")
        guess = number(self.study.majority)
        return (
            f"Not judged, because the network trained on it alone may only know the largest class ({guess}): "
            f"{several(found)}."
        )

    def _disagreement(self) -> str | None:
        """Two measures of what a modality is used for, which need not agree."""
        by_phi, by_permutation = self._used_least()
        if by_phi == by_permutation:
            return None
        return (
            f"The two measures of use disagree: by centred φ {self.baseline} uses {by_phi} least, by permutation "
            f"{by_permutation}."
        )

    def _used_least(self) -> tuple[str | None, str | None]:
        """The modality with the lowest centred φ accuracy, and the one whose permutation costs least."""
        phis = {name: self._values(self.baseline, "centred_accuracy", name) for name in self.modalities}
        drops = {name: self.results.drop(self.fusion, self.baseline, name) for name in self.modalities}
        if len(self.modalities) == 1 or None in drops.values():
            return None, None
        return (
            min(phis, key=lambda name: exact_mean(phis[name])),
            min(drops, key=lambda name: drops[name].mean),
        )

    def _starved(self) -> str:
        sure = all(_certain(self.gaps[name]) for name in self.starved)
        one = len(self.starved) == 1
        verb = ("is" if one else "are") if sure else ("looks" if one else "look")
        told = self.methods if len(self.methods) <= TOLD_APART else []
        clauses = [f"{method} {self._in_short(method)}" for method in told]
        ending = f"; {several(clauses)}" if clauses else ""
        return f"{sentence(several(self.starved))} {verb} starved in joint training{ending}."

    def _none_starved(self) -> str:
        """Not seeing a gap is not the same as excluding one."""
        judged = f"Of {several(list(self.gaps))}, none" if self.unknown else "No modality"
        if all(gap.high is not None and gap.high < STARVED for gap in self.gaps.values()):
            return f"{judged} is starved in joint training."
        seeds = count(self.gaps[self.target].n, "seed")
        return f"{judged} is seen to be starved in joint training, but {seeds} cannot exclude it."

    def _in_short(self, method: str) -> str:
        """What a method does for the most starved modality, in a few words."""
        phi, base = (self._values(name, "centred_accuracy", self.target) for name in (method, self.baseline))
        if not phi:
            return "failed in every seed"
        phi, base, alone = shared(phi, base, self.results.alone(self.fusion, self.target))
        if not phi:
            return "cannot be judged, because runs failed"
        gain, left = self.results.difference(phi, base), self.results.shortfall(alone, phi).mean
        called = "it" if len(self.starved) == 1 else self.target
        seeds = over(gain.n, self.results.seeds)
        if not self._real(gain):
            return f"makes no difference to {called} that {count(gain.n, 'seed')} can show"
        if gain.mean < 0:
            return f"starves {called} further{seeds}"
        if left < STARVED:
            return f"feeds {called}{seeds}"
        return f"gives {called} back {100 * gain.mean / (gain.mean + left):.0f} % of the gap{seeds}"

    # --- the evidence ---

    def _failures(self) -> str | None:
        """Who fails does not look better by it: what the numbers leave out is said with them."""
        lost = {name: self._lost(method=name) for name in self.study.params.study.methods}
        lost |= {f"{name} alone": self._lost(concept=name) for name in self.modalities}
        if not any(lost.values()):
            return None
        seeds = count(self.results.seeds, "seed")
        failed = [f"{name} in {amount} of {seeds}" for name, amount in lost.items() if amount]
        return f"Failed: {several(failed)}. Their numbers are of the seeds that are left, which may flatter them."

    def _lost(self, **which: str) -> int:
        """How many seeds of a method or concept failed."""
        return self.results.seeds - len(self.study.sound(self.fusion, **which))

    def _starvation(self) -> str | None:
        if self.target is None:
            return None
        gap = self.gaps[self.target]
        judged = " that can be judged" if self.unknown else ""
        details = f"{self._against(self.target)} (gap {evidence(gap, self.results.confidence)})"
        if not self.starved:
            return (
                f"In {self.baseline}, no centred φ accuracy{judged} lies {number(STARVED, 2)} or more below what a "
                f"network reaches on the modality alone. The largest gap: {details}."
            )
        others = [self._against(name) for name in self.starved if name != self.target]
        also = f" Also below: {several(others)}." if others else ""
        doubt = "" if _certain(gap) else f" The gap is large, but {count(gap.n, 'seed')} cannot exclude chance."
        return f"In {self.baseline}, {details}.{doubt}{also}"

    def _against(self, modality: str) -> str:
        values = self._values(self.baseline, "centred_accuracy", modality), self.results.alone(self.fusion, modality)
        phi, alone = (number(self.results.mean(each).mean) for each in shared(*values))
        return f"centred φ accuracy of {modality} is {phi}, against {alone} of the network trained on it alone"

    def _permutation(self) -> str | None:
        """What the baseline loses when a modality comes from other clips."""
        drops = {name: self.results.drop(self.fusion, self.baseline, name) for name in self.modalities}
        if None in drops.values():
            return None
        found = [f"{number(-drop.mean)} with {name}" for name, drop in drops.items()]
        return (
            f"With one modality permuted over the clips, the accuracy of {self.baseline} changes by {several(found)}."
        )

    def _competition(self) -> str | None:
        """Whether the second measure of the same thing agrees; None where failed runs leave some of it unknown."""
        judged = [name for name in self.modalities if name not in self.uninformed]
        if len(judged) < 2:
            return None
        values = shared(*(self._values(self.baseline, "d", name) for name in judged))
        if not values[0]:
            return None
        means = (self.results.mean(each).mean for each in values)
        strengths = dict(zip(judged, means, strict=True))
        first = max(strengths, key=lambda name: strengths[name])
        rest = several([f"{name} {number(value)}" for name, value in strengths.items() if name != first])
        agrees = "" if not self.starved else " agrees: it" if first == self.target else " does not agree: it"
        seeds = over(len(values[0]), self.results.seeds)
        return f"Competition strength d{seeds}{agrees} is highest for {first}, {number(strengths[first])} ({rest})."

    def _effects(self) -> Iterator[str]:
        """What modulation changes: method by method, or of many methods the best, with a warning."""
        told = self.methods
        if len(told) > TOLD_APART:
            told = [name for name in told if not self._lost(method=name)]
        if len(told) > TOLD_APART and self.target:
            fed, right = self._best(told, "centred_accuracy", self.target), self._best(told, "accuracy")
            whole = "" if told == self.methods else " that failed in no seed"
            yield (
                f"Of {len(told)} methods{whole}, {fed} has the highest centred φ accuracy of {self.target} and {right} "
                "the highest accuracy. The best of many, picked afterwards, looks better than it is."
            )
            told = list(dict.fromkeys([fed, right]))
        for method in told:
            if self._values(self.baseline, "accuracy") and self._values(method, "accuracy"):
                yield f"{method}: {self._changes(method)}."

    def _changes(self, method: str) -> str:
        if self.results.to_baseline(self.fusion, method, "accuracy") is None:
            return f"not compared, because no seed has both its run and that of {self.baseline}"
        phi = (
            f"centred φ accuracy of {self.target} {self._change(method, 'centred_accuracy', self.target)}; "
            if self.target
            else ""
        )
        return f"{phi}accuracy {self._change(method, 'accuracy')}"

    def _best(self, methods: list[str], metric: str, modality: str | None = None) -> str:
        """The method with the highest mean; `methods` have it in every seed."""
        return max(methods, key=lambda method: exact_mean(self._values(method, metric, modality)))

    def _change(self, method: str, metric: str, modality: str | None = None) -> str:
        before, after = shared(*(self._values(name, metric, modality) for name in (self.baseline, method)))
        difference = self.results.difference(after, before)
        means = (number(self.results.mean(values).mean) for values in (before, after))
        chance = "" if self._real(difference) or difference.n == 1 else "; chance is not excluded"
        return f"{' → '.join(means)} ({evidence(difference, self.results.confidence)}{chance})"

    def _values(self, method: str, metric: str, modality: str | None = None) -> Values:
        return self.results.method(self.fusion, method, metric, modality)

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
    seeds, methods = len(study.params.study.seeds), len(study.params.study.methods)
    if seeds == 1:
        return "One seed gives no interval and no test: a difference of a few points may be chance. Add seeds."
    confidence = percent(study.params.evaluation.confidence)
    left = ", or those of them that did not fail" if study.failed else ""
    text = f"Every figure is a mean over {seeds} seeds{left}; intervals are {confidence} t intervals."
    if seeds < FEW_SEEDS:
        text += " So few seeds have little power: an effect that does not show may still be there."
    if study.baseline and methods > 2:
        text += f" p-values are not corrected for comparing {methods - 1} methods."
    return text
