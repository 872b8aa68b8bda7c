"""The evidence below the verdict: sentences with the numbers that it rests on."""

from collections.abc import Iterator

from agm.pipeline.steps.report.results import exact_mean, shared
from agm.pipeline.steps.report.starvation import STARVED, Starvation, excludes_zero
from agm.pipeline.steps.report.text import count, effect, joined, number, over_seeds
from agm.pipeline.steps.report.verdict import FEW_METHODS


def evidence(judged: Starvation) -> Iterator[str]:
    """The sentences, the failures first."""
    sentences = [_failures(judged)]
    # With a single modality there is nothing to compare it with.
    if len(judged.modalities) > 1:
        sentences += [_starvation(judged), _permutation(judged), _competition(judged)]
    yield from filter(None, sentences)
    yield from _effects(judged)


def _failures(judged: Starvation) -> str | None:
    """How many runs failed, so that a method does not look better because its bad runs are missing."""
    seeds = count(judged.results.seeds, "seed")
    clauses = []
    for name in judged.study.params.study.methods:
        if failed := judged.failures(method=name):
            clauses.append(f"{name} in {failed} of {seeds}")
    for name in judged.modalities:
        if failed := judged.failures(concept=name):
            clauses.append(f"{name} alone in {failed} of {seeds}")
    if not clauses:
        return None
    return f"Failed: {joined(clauses)}. Their numbers are of the seeds that are left, which may flatter them."


def _starvation(judged: Starvation) -> str | None:
    """The largest gap, and the other ones that count as starved."""
    if judged.target is None:
        return None
    gap = judged.gaps[judged.target]
    of_those = " that can be judged" if judged.unknown else ""
    details = f"{_against_alone(judged, judged.target)} (gap {effect(gap, judged.results.confidence)})"
    if not judged.starved:
        return (
            f"In {judged.baseline}, no centred φ accuracy{of_those} lies {number(STARVED, 2)} or more below what a "
            f"network reaches on the modality alone. The largest gap: {details}."
        )
    others = [_against_alone(judged, name) for name in judged.starved if name != judged.target]
    also = f" Also below: {joined(others)}." if others else ""
    doubt = ""
    if not excludes_zero(gap):
        doubt = f" The gap is large, but {count(gap.n, 'seed')} cannot exclude chance."
    return f"In {judged.baseline}, {details}.{doubt}{also}"


def _against_alone(judged: Starvation, modality: str) -> str:
    results = judged.results
    # Over the seeds that have both networks.
    phi = judged.values(judged.baseline, "centred_accuracy", modality)
    phi, alone = shared(phi, results.alone(judged.fusion, modality))
    phi_mean, alone_mean = number(results.mean(phi).mean), number(results.mean(alone).mean)
    return f"centred φ accuracy of {modality} is {phi_mean}, against {alone_mean} of the network trained on it alone"


def _permutation(judged: Starvation) -> str | None:
    """What the baseline loses when a modality comes from other clips."""
    drops = judged.drops()
    if drops is None:
        return None
    changes = [f"{number(-drop.mean)} with {name}" for name, drop in drops.items()]
    return f"With one modality permuted over the clips, the accuracy of {judged.baseline} changes by {joined(changes)}."


def _competition(judged: Starvation) -> str | None:
    """Whether the second measure of the same thing agrees; None where failed runs leave some of it unknown."""
    names = [name for name in judged.modalities if name not in judged.uninformed]
    if len(names) < 2:
        return None
    values = shared(*(judged.values(judged.baseline, "d", name) for name in names))
    seeds = len(values[0])
    if not seeds:
        return None
    strengths = {}
    for name, by_seed in zip(names, values, strict=True):
        strengths[name] = judged.results.mean(by_seed).mean
    highest = max(strengths, key=lambda name: strengths[name])
    others = [f"{name} {number(strength)}" for name, strength in strengths.items() if name != highest]
    # A second opinion only where the first measure sees a starved modality.
    agreement = ""
    if judged.starved:
        agreement = " agrees: it" if highest == judged.target else " does not agree: it"
    return (
        f"Competition strength d{over_seeds(seeds, judged.results.seeds)}{agreement} is highest for {highest}, "
        f"{number(strengths[highest])} ({joined(others)})."
    )


def _effects(judged: Starvation) -> Iterator[str]:
    """What modulation changes: method by method, or of many methods the best, with a warning."""
    methods = judged.methods
    if len(methods) > FEW_METHODS:
        # A method with fewer seeds is not compared with the others for the best.
        methods = [name for name in methods if not judged.failures(method=name)]
    if len(methods) > FEW_METHODS and judged.target:
        best_phi = _best(judged, methods, "centred_accuracy", judged.target)
        best_accuracy = _best(judged, methods, "accuracy")
        complete = "" if methods == judged.methods else " that failed in no seed"
        yield (
            f"Of {len(methods)} methods{complete}, {best_phi} has the highest centred φ accuracy of {judged.target} "
            f"and {best_accuracy} the highest accuracy. The best of many, picked afterwards, looks better than it is."
        )
        # One sentence where one method is best in both.
        methods = list(dict.fromkeys([best_phi, best_accuracy]))
    for method in methods:
        if judged.values(judged.baseline, "accuracy") and judged.values(method, "accuracy"):
            yield f"{method}: {_changes(judged, method)}."


def _best(judged: Starvation, methods: list[str], metric: str, modality: str | None = None) -> str:
    """The method with the highest mean; `methods` have it in every seed."""
    return max(methods, key=lambda method: exact_mean(judged.values(method, metric, modality)))


def _changes(judged: Starvation, method: str) -> str:
    """What a method changes in the centred φ accuracy of the target and in the accuracy."""
    if judged.results.to_baseline(judged.fusion, method, "accuracy") is None:
        return f"not compared, because no seed has both its run and that of {judged.baseline}"
    accuracy = f"accuracy {_change(judged, method, 'accuracy')}"
    if not judged.target:
        return accuracy
    phi = _change(judged, method, "centred_accuracy", judged.target)
    return f"centred φ accuracy of {judged.target} {phi}; {accuracy}"


def _change(judged: Starvation, method: str, metric: str, modality: str | None = None) -> str:
    results = judged.results
    before, after = shared(judged.values(judged.baseline, metric, modality), judged.values(method, metric, modality))
    difference = results.difference(after, before)
    means = f"{number(results.mean(before).mean)} → {number(results.mean(after).mean)}"
    # One seed has no test: the clause on it says so already.
    may_be_chance = difference.n > 1 and not judged.is_significant(difference)
    chance = "; chance is not excluded" if may_be_chance else ""
    return f"{means} ({effect(difference, results.confidence)}{chance})"
