"""Every number of the study in one long table, and its aggregation over seeds.

A run that failed has no numbers: a mean is over the seeds that are there, a difference over those that both sides
have. The page, `metrics.json` and the printed tables all take their numbers from here.
"""

from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from typing import Any

import polars as pl

from agm.metrics.intervals import Difference, Interval, mean_interval, paired_difference
from agm.pipeline.steps.report.collect import Run, Study

SCHEMA = {
    "dataset": pl.String,
    "fusion": pl.String,
    "method": pl.String,
    "concept": pl.String,
    "seed": pl.Int64,
    "split": pl.String,
    "metric": pl.String,
    "modality": pl.String,
    "class": pl.String,
    "value": pl.Float64,
}
OF_CLASS = ("clips", "precision", "recall", "f1")
OF_COMPETITION = {
    "d": "d",
    "low": "d_low",
    "high": "d_high",
    "published": "d_published",
    "rank": "d_rank",
    "alpha": "d_penalty",
}
FAILED = "failed"
MOST_CLIPS = 10_000_000
"""Up to this number of clips, the float of a share of clips gives back the exact fraction."""
Values = dict[int, float]
"""A number per seed; seeds whose run failed are not there."""


def tidy(study: Study) -> pl.DataFrame:
    """One row per number.

    Returns:
        The columns of `SCHEMA`, in the order of the study. `method` or `concept` is null, according to what was
        trained; `modality` and `class` are null where the number is about all of them. A run that failed has one
        row, without a split: the metric `failed`, 1. A competition strength against a concept that knows nothing
        (`Study.uninformed`) is left out.
    """
    rows = []
    for run in study.runs:
        names = (study.params.dataset.name, run.fusion, run.method, run.concept, run.seed)
        rows += [(*names, *number) for number in _numbers(run, study)]
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")


def _numbers(run: Run, study: Study) -> Iterator[tuple[str | None, str, str | None, str | None, float]]:
    """The numbers of one run: split, metric, modality, class, value."""
    if run.failed:
        yield None, FAILED, None, None, 1.0
    for split, scores in run.evaluation["splits"].items():
        yield split, "accuracy", None, None, scores["accuracy"]
        yield split, "macro_f1", None, None, scores["macro_f1"]
        yield split, "weighted_f1", None, None, scores["weighted_f1"]
        for modality, by_metric in _of_modalities(run, scores).items():
            for metric, value in by_metric.items():
                yield split, metric, modality, None, value
        for row in scores["classes"]:
            for metric in OF_CLASS:
                yield split, metric, None, row["class"], row[metric]
    for modality, strength in run.evaluation.get("competition", {}).items():
        # d compares with the network trained on the modality alone: without that network there is no d.
        if strength["d"] is None or study.no_d(run.fusion, modality):
            continue
        for name, metric in OF_COMPETITION.items():
            yield "test", metric, modality, None, strength[name]


def _of_modalities(run: Run, scores: dict[str, Any]) -> dict[str, dict[str, float]]:
    """The numbers of each modality of a method's run, by metric."""
    if "centred_accuracy" not in scores:
        # The φ of a single modality is the whole output (Σ_m φ_m = f), and nothing is permuted.
        single = list(run.evaluation.get("competition", {}))[:1]
        accuracy = scores["accuracy"]
        return {name: {"phi_accuracy": accuracy, "centred_accuracy": accuracy} for name in single}
    numbers = {}
    for name in scores["centred_accuracy"]:
        numbers[name] = {
            "centred_accuracy": scores["centred_accuracy"][name],
            "phi_accuracy": scores["phi_accuracy"][name],
            "phi_constant": scores["phi_constant"][name],
            "permuted_accuracy": scores["permuted_accuracy"][name]["mean"],
        }
    return numbers


class Results:
    """Look-up and aggregation over seeds in the long table's test split.

    A look-up of what no run has is empty, and so is what follows from it: None.

    Attributes:
        baseline: the method that others are compared with, or None.
        confidence: the confidence of every interval.
        seeds: the number of seeds in the study; a number is over all of them unless it says less.
        uninformed: the concepts, by fusion and modality, that know nothing: see `Study.uninformed`.
        no_d: why a modality has no d in any seed: see `Study.no_d`.

    Args:
        table: the long table, as `tidy` makes it.
        study: the study that the table was made from.
    """

    def __init__(self, table: pl.DataFrame, study: Study) -> None:
        self.baseline, self.confidence = study.baseline, study.params.evaluation.confidence
        self.seeds = len(study.params.study.seeds)
        self.uninformed, self.no_d = study.uninformed, study.no_d
        self._values: dict[tuple[Any, ...], Values] = {}
        for row in table.filter(pl.col("split") == "test").iter_rows(named=True):
            key = (row["fusion"], row["method"], row["concept"], row["metric"], row["modality"], row["class"])
            self._values.setdefault(key, {})[row["seed"]] = row["value"]

    def method(
        self, fusion: str, method: str, metric: str, modality: str | None = None, label: str | None = None
    ) -> Values:
        """A method's numbers by seed."""
        return self._values.get((fusion, method, None, metric, modality, label), {})

    def alone(self, fusion: str, modality: str) -> Values:
        """Accuracy by seed of the network trained on `modality` alone (the mono-modal concept)."""
        return self._values.get((fusion, None, modality, "accuracy", None, None), {})

    def mean(self, values: Values) -> Interval | None:
        """Mean over the seeds that have a number; None where no seed has one."""
        if not values:
            return None
        return mean_interval(list(values.values()), self.confidence)

    def difference(self, values: Values, reference: Values) -> Difference | None:
        """`values` − `reference`, paired by seed: the same data order and initialisation; None where no seed has both.

        Only the seeds that both have are compared: the others would not be pairs.
        """
        values, reference = shared(values, reference)
        if not values:
            return None
        return paired_difference(list(values.values()), list(reference.values()), self.confidence)

    def to_baseline(self, fusion: str, method: str, metric: str, modality: str | None = None) -> Difference | None:
        """A method's difference to the baseline; None for the baseline itself, or where no seed has both."""
        if self.baseline is None or method == self.baseline:
            return None
        reference = self.method(fusion, self.baseline, metric, modality)
        return self.difference(self.method(fusion, method, metric, modality), reference)

    def gap(self, fusion: str, method: str, modality: str) -> Difference | None:
        """How far the accuracy of the centred φ_m lies below that of the network trained on m alone.

        None also where that network knows nothing (`uninformed`).
        """
        if (fusion, modality) in self.uninformed:
            return None
        return self.shortfall(self.alone(fusion, modality), self.method(fusion, method, "centred_accuracy", modality))

    def drop(self, fusion: str, method: str, modality: str) -> Difference | None:
        """What a method's accuracy loses when the modality is permuted over clips."""
        values = self.method(fusion, method, "accuracy")
        return self.shortfall(values, self.method(fusion, method, "permuted_accuracy", modality))

    def shortfall(self, values: Values, reached: Values) -> Difference | None:
        """How far the accuracies `reached` lie below `values`: `difference`, with a mean that can be compared."""
        values, reached = shared(values, reached)
        difference = self.difference(values, reached)
        if difference is None:
            return None
        # In fractions, so that two gaps that are equal compare as equal.
        return replace(difference, mean=float(exact_mean(values) - exact_mean(reached)))


def exact_mean(accuracies: Values) -> Fraction:
    """The mean of shares of clips, in whole numbers: equal ones are equal, whatever order they are summed in."""
    shares = [Fraction(value).limit_denominator(MOST_CLIPS) for value in accuracies.values()]
    return Fraction(sum(shares), len(shares))


def shared(first: Values, *others: Values) -> tuple[Values, ...]:
    """The numbers of those seeds that all of the arguments have, so that they can be compared."""
    seeds = set(first).intersection(*others)
    # The order of the first: sums over seeds are the same in every run.
    order = [seed for seed in first if seed in seeds]
    kept = []
    for values in (first, *others):
        kept.append({seed: values[seed] for seed in order})
    return tuple(kept)


def metrics(study: Study, results: Results) -> dict[str, Any]:
    """The few aggregated numbers that become columns of `dvc exp show`: means over seeds on the test split.

    Returns:
        By fusion and method: `accuracy`; `starvation`, the largest distance over the modalities from the accuracy
        alone down to that of the centred φ_m; and `d_<modality>`, the competition strength. Where runs failed,
        `failed` is their number, that of concepts stands under `concepts`. A number is missing where too many
        failures leave it unknown, and where it compares with a concept that knows nothing.
    """
    names = study.params.study
    columns = {}
    for fusion in names.fusions:
        columns[fusion] = {}
        for method in names.methods:
            failed = _failures(study.of(fusion, method=method))
            columns[fusion][method] = _aggregated(results, fusion, method, names.modalities) | failed
        concepts = []
        for name in names.modalities:
            concepts += study.of(fusion, concept=name)
        if failed := _failures(concepts):
            columns[fusion]["concepts"] = failed
    return columns


def _aggregated(results: Results, fusion: str, method: str, modalities: list[str]) -> dict[str, float]:
    """The aggregated numbers of one method."""
    means: dict[str, Interval | None] = {"accuracy": results.mean(results.method(fusion, method, "accuracy"))}
    informed = [name for name in modalities if (fusion, name) not in results.uninformed]
    gaps = [results.gap(fusion, method, name) for name in informed]
    # The largest gap is unknown where one of the gaps is.
    if None not in gaps:
        means["starvation"] = max(gaps, key=lambda gap: gap.mean, default=None)
    for name in modalities:
        means[f"d_{name}"] = results.mean(results.method(fusion, method, "d", name))
    return {name: round(mean.mean, 4) for name, mean in means.items() if mean is not None}


def _failures(runs: list[Run]) -> dict[str, int]:
    """How many of the runs failed, as a column; empty where none did."""
    failed = sum(run.failed is not None for run in runs)
    return {FAILED: failed} if failed else {}
