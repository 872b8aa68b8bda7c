"""The verdict on one fusion: which modality is starved, and what the methods do for it."""

from fractions import Fraction

from agm.pipeline.steps.report.results import exact_mean, shared
from agm.pipeline.steps.report.starvation import STARVED, Starvation, excludes_zero
from agm.pipeline.steps.report.text import count, joined, number, over_seeds, percent, sentence

FEW_METHODS = 3
"""Up to this number of methods, each gets its own clause or sentence; of more methods only the best are named."""


def verdict(judged: Starvation) -> str:
    """Which modality is starved, in one sentence, and what cannot be judged."""
    if len(judged.modalities) == 1:
        return "There is a single modality: nothing competes with it, so it cannot be starved."
    if not judged.values(judged.baseline, "accuracy"):
        return f"Every run of {judged.baseline} failed, so the study cannot say which modality is starved."
    sentences: list[str | None] = []
    if judged.starved:
        sentences.append(_starved(judged))
    elif judged.gaps:
        sentences.append(_none_starved(judged))
    sentences += [_not_judged(judged), _uninformed(judged), _disagreement(judged)]
    return " ".join(filter(None, sentences))


def _starved(judged: Starvation) -> str:
    certain = all(excludes_zero(judged.gaps[name]) for name in judged.starved)
    # Many clauses would make the sentence too long.
    clauses = []
    if len(judged.methods) <= FEW_METHODS:
        clauses = [f"{method} {_in_short(judged, method)}" for method in judged.methods]
    ending = f"; {joined(clauses)}" if clauses else ""
    verb = _verb(certain, len(judged.starved))
    return f"{sentence(joined(judged.starved))} {verb} starved in joint training{ending}."


def _verb(certain: bool, modalities: int) -> str:
    """A gap whose interval reaches zero only 'looks' like one."""
    if certain:
        return "is" if modalities == 1 else "are"
    return "looks" if modalities == 1 else "look"


def _none_starved(judged: Starvation) -> str:
    """Not seeing a gap is not the same as excluding one."""
    modality = f"Of {joined(list(judged.gaps))}, none" if judged.unknown else "No modality"
    if all(gap.high is not None and gap.high < STARVED for gap in judged.gaps.values()):
        return f"{modality} is starved in joint training."
    seeds = count(judged.gaps[judged.target].n, "seed")
    return f"{modality} is seen to be starved in joint training, but {seeds} cannot exclude it."


def _in_short(judged: Starvation, method: str) -> str:
    """What a method does for the most starved modality, in a few words."""
    results, target = judged.results, judged.target
    phi = judged.values(method, "centred_accuracy", target)
    if not phi:
        return "failed in every seed"
    base = judged.values(judged.baseline, "centred_accuracy", target)
    # From here on only the seeds that all three networks have.
    phi, base, alone = shared(phi, base, results.alone(judged.fusion, target))
    if not phi:
        return "cannot be judged, because runs failed"
    gain = results.difference(phi, base)
    remaining = results.shortfall(alone, phi).mean
    target_name = "it" if len(judged.starved) == 1 else target
    seeds = over_seeds(gain.n, results.seeds)
    if not judged.is_significant(gain):
        return f"makes no difference to {target_name} that {count(gain.n, 'seed')} can show"
    if gain.mean < 0:
        return f"starves {target_name} further{seeds}"
    if remaining < STARVED:
        return f"feeds {target_name}{seeds}"
    # The gap that is left and what was gained add up to the gap in joint training.
    share = 100 * gain.mean / (gain.mean + remaining)
    return f"gives {target_name} back {share:.0f} % of the gap{seeds}"


def _not_judged(judged: Starvation) -> str | None:
    """The modalities for which failed runs leave no seed to compare."""
    # A network that knows nothing is a reason of its own.
    names = [name for name in judged.unknown if name not in judged.uninformed]
    if not names:
        return None
    needed = f"no seed has both {judged.baseline} and the network trained on it alone, because runs failed"
    return f"Of {joined(names)} nothing can be said: {needed}."


def _uninformed(judged: Starvation) -> str | None:
    """Which networks know nothing alone: the joint model cannot lack what they do not know."""
    if not judged.uninformed:
        return None
    confidence = percent(judged.results.confidence)
    clauses = []
    for name in judged.uninformed:
        alone = judged.results.uninformed[judged.fusion, name]
        ends = f"{number(alone.low)} to {number(alone.high)}"
        clauses.append(f"{name} ({number(alone.mean)}, {confidence} interval {ends})")
    guess = number(judged.study.majority)
    return (
        f"Not judged, because the network trained on it alone may only know the largest class ({guess}): "
        f"{joined(clauses)}."
    )


def _disagreement(judged: Starvation) -> str | None:
    """Whether the two measures of how much a modality is used name different modalities as the least used."""
    drops = judged.drops()
    if drops is None:
        return None

    def phi(name: str) -> Fraction:
        return exact_mean(judged.values(judged.baseline, "centred_accuracy", name))

    by_phi = min(judged.modalities, key=phi)
    by_permutation = min(drops, key=lambda name: drops[name].mean)
    if by_phi == by_permutation:
        return None
    return (
        f"The two measures of use disagree: by centred φ {judged.baseline} uses {by_phi} least, by permutation "
        f"{by_permutation}."
    )
