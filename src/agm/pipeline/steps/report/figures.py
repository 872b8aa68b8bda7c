"""Which figures the report shows, and the numbers in them."""

import math

import polars as pl

from agm.pipeline.steps.report.collect import Run, Study
from agm.pipeline.steps.report.drawing import Curve, Dot, Panel, curves, dots, histogram, log_curves
from agm.pipeline.steps.report.results import Results
from agm.pipeline.steps.report.text import of_all

SHARES = (0.0, 1.02)
"""Axis of everything that is an accuracy over epochs, so that panels can be compared."""


def phi_panels(study: Study, results: Results, fusion: str) -> list[Panel]:
    """Centred φ accuracy of each modality by method, against the network trained on that modality alone."""
    names = study.params.study.modalities
    rows = {name: _dots(study, results, fusion, "centred_accuracy", name) for name in names}
    alone = {name: results.alone(fusion, name) for name in names}
    values = [value for name in names for dot in rows[name].values() for value in dot.values]
    values += [value for name in names for value in alone[name].values()]
    limits = (max(0.0, min(values) - 0.08), min(1.02, max(values) + 0.08)) if values else SHARES
    return [
        dots(f"centred φ accuracy of {name}", fusion, rows[name], limits, results.mean(alone[name])) for name in names
    ]


def competition_panels(study: Study, results: Results, fusion: str) -> list[Panel]:
    """Competition strength of each modality by method."""
    names = study.params.study.modalities
    rows = {name: _dots(study, results, fusion, "d", name) for name in names}
    most = max((value for name in names for dot in rows[name].values() for value in dot.values), default=0.0)
    return [dots(f"d of {name}", fusion, rows[name], (0.0, 1.15 * most or 1.0)) for name in names]


def curve_panels(study: Study, fusion: str) -> list[Panel]:
    """Loss, accuracy and centred φ accuracy over the epochs: mean over seeds, band from the lowest to the highest seed.

    Without runs that failed: where one ends early, the mean would go on over other seeds.
    """
    names = study.params.study
    # The φ of an only modality is the whole output: the history does not repeat it.
    phis = {name: f"val_centred_{name}" if len(names.modalities) > 1 else "val_accuracy" for name in names.modalities}

    def panel(title: str, column: str, limits: tuple[float, float] | None = None, alone: str | None = None) -> Panel:
        runs = {method: study.sound(fusion, method=method) for method in names.methods}
        found = {method: _over_seeds(each, column) for method, each in runs.items() if each}
        concepts = study.sound(fusion, concept=alone) if alone else []
        reference = _over_seeds(concepts, "val_accuracy") if concepts else None
        return curves(title, fusion, found, names.methods, limits, reference)

    return [
        panel("training loss", "train_loss"),
        panel("validation loss", "val_loss"),
        panel("validation accuracy", "val_accuracy", SHARES),
        *(panel(f"validation centred φ accuracy, {name}", phis[name], SHARES, name) for name in names.modalities),
    ]


def kappa_panels(study: Study, fusion: str) -> list[Panel]:
    """κ of each modality over the epochs: mean over steps and seeds, band over every step of every seed.

    Empty where no method has a κ.
    """
    names = study.params.study
    found = {
        modality: {
            method: _kappa(runs, modality)
            for method in names.methods
            if (runs := study.sound(fusion, method=method)) and f"kappa_{modality}" in runs[0].history.columns
        }
        for modality in names.modalities
    }
    drawn = [curve for methods in found.values() for curve in methods.values()]
    if not drawn:
        return []
    limits = _log_limits([value for curve in drawn for value in (*curve.low, *curve.high)])
    return [log_curves(f"κ of {name}", fusion, methods, names.methods, limits) for name, methods in found.items()]


def duration_panels(study: Study) -> list[Panel]:
    """How long the clips of each split are; empty where they have no duration, as pictures and texts have none."""
    found = study.inspection["durations"]
    splits = found["splits"] if found else {}
    return [histogram(f"{split} clips", "seconds", found["edges"], counts) for split, counts in splits.items()]


def _dots(study: Study, results: Results, fusion: str, metric: str, modality: str) -> dict[str, Dot]:
    found = {method: results.method(fusion, method, metric, modality) for method in study.params.study.methods}
    return {
        method: Dot(list(values.values()), results.mean(values), of_all(len(values), results.seeds))
        for method, values in found.items()
    }


def _over_seeds(runs: list[Run], column: str) -> Curve:
    return _curve([run.history for run in runs], mean=column, low=column, high=column)


def _kappa(runs: list[Run], modality: str) -> Curve:
    # Epochs outside the window of modulation have no κ, which is κ = 1.
    histories = [run.history.with_columns(pl.col("^kappa_.*$").fill_null(1.0)) for run in runs]
    return _curve(histories, f"kappa_{modality}", f"kappa_min_{modality}", f"kappa_max_{modality}")


def _curve(histories: list[pl.DataFrame], mean: str, low: str, high: str) -> Curve:
    """Epoch by epoch over seeds: the mean of one column, the least of another, the most of a third."""
    columns = (
        pl.col("epoch"),
        pl.col(mean).alias("middle"),
        pl.col(low).alias("lowest"),
        pl.col(high).alias("highest"),
    )
    table = (
        pl.concat(history.select(columns) for history in histories)
        .group_by("epoch", maintain_order=True)
        .agg(pl.col("middle").mean(), pl.col("lowest").min(), pl.col("highest").max())
        .sort("epoch")
    )
    return Curve(*(table[name].to_list() for name in ("epoch", "middle", "lowest", "highest")))


def _log_limits(values: list[float]) -> tuple[float, float]:
    """An axis for κ, which is an exponential: it may have reached zero or infinity, which no axis shows."""
    shown = [value for value in values if 0 < value < math.inf] or [1.0]
    return min(0.8, min(shown) / 1.2), max(1.25, max(shown) * 1.2)
