"""Every number of the study in one long table, and what several seeds make of it.

The page, `metrics.json` and the printed tables all take their numbers from here.
"""

from collections.abc import Iterator
from typing import Any

import polars as pl

from agm.metrics.intervals import Difference, Interval, mean_interval, paired_difference
from agm.report.collect import Run, Study

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
OF_COMPETITION = {"d": "d", "low": "d_low", "high": "d_high", "rank": "d_rank", "alpha": "d_penalty"}
Values = dict[int, float]
"""A number per seed."""


def tidy(study: Study) -> pl.DataFrame:
    """One row per number.

    Returns:
        The columns of `SCHEMA`, in the order of the study. `method` or `concept` is null, according to what was
        trained; `modality` and `class` are null where the number is about all of them.
    """
    rows = [
        (study.params.dataset.name, run.fusion, run.method, run.concept, run.seed, *number)
        for run in study.runs
        for number in _numbers(run)
    ]
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")


def _numbers(run: Run) -> Iterator[tuple[str, str, str | None, str | None, float]]:
    """Split, metric, modality, class, value."""
    for split, scores in run.evaluation["splits"].items():
        yield split, "accuracy", None, None, scores["accuracy"]
        yield split, "macro_f1", None, None, scores["macro_f1"]
        yield split, "weighted_f1", None, None, scores["weighted_f1"]
        for modality, accuracy in _phis(run, scores).items():
            yield split, "phi_accuracy", modality, None, accuracy
        for row in scores["classes"]:
            for metric in OF_CLASS:
                yield split, metric, None, row["class"], row[metric]
    for modality, strength in run.evaluation.get("competition", {}).items():
        for name, metric in OF_COMPETITION.items():
            yield "test", metric, modality, None, strength[name]


def _phis(run: Run, scores: dict[str, Any]) -> dict[str, float]:
    """Accuracy of each φ_m; a method's only modality has the whole output as its φ (Σ_m φ_m = f)."""
    only = list(run.evaluation.get("competition", {}))[:1]
    return scores.get("phi_accuracy", dict.fromkeys(only, scores["accuracy"]))


class Results:
    """Look-up and aggregation over seeds in the long table's test split.

    A look-up of what the study does not have is a KeyError.

    Args:
        table: as `tidy` makes it.
        baseline: the method that others are compared with, or None.
        confidence: of every interval.
    """

    def __init__(self, table: pl.DataFrame, baseline: str | None, confidence: float) -> None:
        self.baseline, self.confidence = baseline, confidence
        self._values: dict[tuple[Any, ...], Values] = {}
        for row in table.filter(pl.col("split") == "test").iter_rows(named=True):
            key = (row["fusion"], row["method"], row["concept"], row["metric"], row["modality"], row["class"])
            self._values.setdefault(key, {})[row["seed"]] = row["value"]

    def method(
        self, fusion: str, method: str, metric: str, modality: str | None = None, label: str | None = None
    ) -> Values:
        """A method's numbers by seed."""
        return self._values[fusion, method, None, metric, modality, label]

    def alone(self, fusion: str, modality: str) -> Values:
        """Accuracy by seed of the network trained on `modality` alone (the mono-modal concept)."""
        return self._values[fusion, None, modality, "accuracy", None, None]

    def mean(self, values: Values) -> Interval:
        """Mean over seeds."""
        return mean_interval(list(values.values()), self.confidence)

    def difference(self, values: Values, reference: Values) -> Difference:
        """`values` − `reference`, paired by seed: the same data order and initialisation."""
        pairs = zip(*((values[seed], reference[seed]) for seed in values), strict=True)
        return paired_difference(*map(list, pairs), self.confidence)

    def to_baseline(self, fusion: str, method: str, metric: str, modality: str | None = None) -> Difference | None:
        """A method's difference to the baseline; None for the baseline itself, or where the study has none."""
        if self.baseline is None or method == self.baseline:
            return None
        reference = self.method(fusion, self.baseline, metric, modality)
        return self.difference(self.method(fusion, method, metric, modality), reference)

    def gap(self, fusion: str, method: str, modality: str) -> Difference:
        """How far φ_m's accuracy lies below that of the network trained on m alone."""
        return self.difference(self.alone(fusion, modality), self.method(fusion, method, "phi_accuracy", modality))


def metrics(study: Study, results: Results) -> dict[str, Any]:
    """The few aggregated numbers that become columns of `dvc exp show`: means over seeds on the test split.

    Returns:
        By fusion and method: `accuracy`; `starvation`, the largest distance over the modalities from the accuracy
        alone down to φ_m's; and `d_<modality>`, the competition strength.
    """
    names = study.params.study
    return {
        fusion: {method: _few(results, fusion, method, names.modalities) for method in names.compared}
        for fusion in names.fusions
    }


def _few(results: Results, fusion: str, method: str, modalities: list[str]) -> dict[str, float]:
    values = {
        "accuracy": results.mean(results.method(fusion, method, "accuracy")).mean,
        "starvation": max(results.gap(fusion, method, name).mean for name in modalities),
    }
    values |= {f"d_{name}": results.mean(results.method(fusion, method, "d", name)).mean for name in modalities}
    return {name: round(value, 4) for name, value in values.items()}
