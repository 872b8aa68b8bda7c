"""Which figures the report shows, and the numbers in them."""

import math
from collections.abc import Iterator

import polars as pl

from agm.pipeline.steps.report.collect import Run, Study
from agm.pipeline.steps.report.drawing import Curve, Dot, Panel, curves, dots, histogram, log_curves
from agm.pipeline.steps.report.results import Results
from agm.pipeline.steps.report.text import of_seeds

SHARES = (0.0, 1.02)
"""Axis of everything that is an accuracy over epochs, so that panels can be compared."""


def phi_panels(study: Study, results: Results, fusion: str) -> list[Panel]:
    """Centred φ accuracy of each modality by method, against the network trained on that modality alone."""
    rows = {}
    values: list[float] = []
    for name in study.params.study.modalities:
        rows[name] = _dots(study, results, fusion, "centred_accuracy", name)
        values += _values(rows[name])
        values += results.alone(fusion, name).values()
    # One axis for all modalities, so that their panels can be compared.
    limits = SHARES
    if values:
        limits = (max(0.0, min(values) - 0.08), min(1.02, max(values) + 0.08))
    panels = []
    for name, by_method in rows.items():
        alone = results.mean(results.alone(fusion, name))
        panels.append(dots(f"centred φ accuracy of {name}", fusion, by_method, limits, alone))
    return panels


def competition_panels(study: Study, results: Results, fusion: str) -> list[Panel]:
    """Competition strength of each modality by method."""
    rows = {}
    values: list[float] = []
    for name in study.params.study.modalities:
        rows[name] = _dots(study, results, fusion, "d", name)
        values += _values(rows[name])
    # A little space beyond the largest value; any axis will do where all values are zero.
    limits = (0.0, 1.15 * max(values, default=0.0) or 1.0)
    return [dots(f"d of {name}", fusion, by_method, limits) for name, by_method in rows.items()]


def curve_panels(study: Study, fusion: str) -> list[Panel]:
    """Loss, accuracy and centred φ accuracy over the epochs: mean over seeds, band from the lowest to the highest seed.

    Without runs that failed: where one ends early, the mean would go on over other seeds.
    """
    modalities = study.params.study.modalities
    panels = [
        _over_epochs(study, fusion, "training loss", "train_loss"),
        _over_epochs(study, fusion, "validation loss", "val_loss"),
        _over_epochs(study, fusion, "validation accuracy", "val_accuracy", SHARES),
    ]
    for name in modalities:
        # The φ of a single modality is the whole output: the history does not repeat it.
        column = f"val_centred_{name}" if len(modalities) > 1 else "val_accuracy"
        title = f"validation centred φ accuracy, {name}"
        panels.append(_over_epochs(study, fusion, title, column, SHARES, alone=name))
    return panels


def _over_epochs(
    study: Study,
    fusion: str,
    title: str,
    column: str,
    limits: tuple[float, float] | None = None,
    alone: str | None = None,
) -> Panel:
    """One column of the history of every method; for the modality `alone` with the network trained on it."""
    methods = {}
    for method in study.params.study.methods:
        if runs := study.succeeded(fusion, method=method):
            methods[method] = _over_seeds(runs, column)
    reference = None
    if alone and (concepts := study.succeeded(fusion, concept=alone)):
        reference = _over_seeds(concepts, "val_accuracy")
    return curves(title, fusion, methods, study.params.study.methods, limits, reference)


def kappa_panels(study: Study, fusion: str) -> list[Panel]:
    """κ of each modality over the epochs: mean over steps and seeds, band over every step of every seed.

    Empty where no method has a κ.
    """
    names = study.params.study
    by_modality: dict[str, dict[str, Curve]] = {}
    values: list[float] = []
    for modality in names.modalities:
        by_modality[modality] = {}
        for method in names.methods:
            runs = study.succeeded(fusion, method=method)
            # Only methods that modulate gradients record a κ.
            if not runs or f"kappa_{modality}" not in runs[0].history.columns:
                continue
            curve = _kappa(runs, modality)
            by_modality[modality][method] = curve
            values += [*curve.low, *curve.high]
    if not any(by_modality.values()):
        return []
    limits = _log_limits(values)
    panels = []
    for modality, by_method in by_modality.items():
        panels.append(log_curves(f"κ of {modality}", fusion, by_method, names.methods, limits))
    return panels


def duration_panels(study: Study) -> list[Panel]:
    """How long the clips of each split are; empty where they have no duration, as pictures and texts have none."""
    durations = study.inspection["durations"]
    if not durations:
        return []
    edges = durations["edges"]
    return [histogram(f"{split} clips", "seconds", edges, counts) for split, counts in durations["splits"].items()]


def _dots(study: Study, results: Results, fusion: str, metric: str, modality: str) -> dict[str, Dot]:
    """The dot of each method."""
    by_method = {}
    for method in study.params.study.methods:
        values = results.method(fusion, method, metric, modality)
        note = of_seeds(len(values), results.seeds)
        by_method[method] = Dot(list(values.values()), results.mean(values), note)
    return by_method


def _values(by_method: dict[str, Dot]) -> Iterator[float]:
    """The values of all methods and seeds."""
    for dot in by_method.values():
        yield from dot.values


def _over_seeds(runs: list[Run], column: str) -> Curve:
    """One column of the history: mean over seeds, band from the lowest to the highest seed."""
    return _curve([run.history for run in runs], mean=column, low=column, high=column)


def _kappa(runs: list[Run], modality: str) -> Curve:
    """κ of a modality: mean over steps and seeds, band over every step of every seed."""
    # Epochs outside the window of modulation have no κ, which is κ = 1.
    histories = [run.history.with_columns(pl.col("^kappa_.*$").fill_null(1.0)) for run in runs]
    return _curve(histories, f"kappa_{modality}", f"kappa_min_{modality}", f"kappa_max_{modality}")


def _curve(histories: list[pl.DataFrame], mean: str, low: str, high: str) -> Curve:
    """For each epoch over seeds: the mean of one column, the minimum of another, the maximum of a third."""
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
    return Curve(
        epochs=table["epoch"].to_list(),
        middle=table["middle"].to_list(),
        low=table["lowest"].to_list(),
        high=table["highest"].to_list(),
    )


def _log_limits(values: list[float]) -> tuple[float, float]:
    """An axis for κ, which is an exponential: it may have reached zero or infinity, which no axis shows."""
    shown = [value for value in values if 0 < value < math.inf] or [1.0]
    return min(0.8, min(shown) / 1.2), max(1.25, max(shown) * 1.2)
