"""The report's tables of results: what stands in which row."""

from dataclasses import replace

import polars as pl

from agm.metrics.intervals import Difference
from agm.pipeline.steps.report.collect import Run, Study
from agm.pipeline.steps.report.results import FAILED, Results, Values
from agm.pipeline.steps.report.table import Cell, Table
from agm.pipeline.steps.report.text import (
    NOTHING,
    compact,
    count,
    interval,
    number,
    of_seeds,
    p_value,
    percent,
    signed,
)


def intro(study: Study) -> str:
    """What the numbers of every table are."""
    seeds, confidence = len(study.params.study.seeds), percent(study.params.evaluation.confidence)
    if seeds == 1:
        return "test split, a single seed: no interval"
    text = f"test split, mean ± {confidence} t interval over {seeds} seeds"
    if study.failed:
        text += f"; (n of {seeds}): over the n seeds that did not fail, a difference over those that both sides have"
    return text


def accuracies(study: Study, results: Results, fusion: str) -> Table:
    """Accuracy, macro and weighted F1 of every method, and the paired difference in accuracy to the baseline."""
    baseline = results.baseline
    rows, own_networks = [], []
    for method in study.params.study.methods:
        # The same for all seeds of a method.
        own_network = study.of(fusion, method)[0].index["own_network"]
        if own_network:
            own_networks.append(f"{method}: {own_network}")
        fields = []
        for metric in ("accuracy", "macro_f1", "weighted_f1"):
            fields.append(_mean(results, results.method(fusion, method, metric)))
        if baseline:
            fields += _difference(results, results.to_baseline(fusion, method, "accuracy"))
        seeds = len(results.method(fusion, method, "accuracy"))
        fields.append(Cell(str(seeds)))
        rows.append((_method(results, method, own_network, seeds), *fields))
    against = (f"accuracy − {baseline}", "interval", "paired p") if baseline else ()
    columns = ("method", "accuracy", "macro F1", "weighted F1", *against, "seeds")
    foot = f"* a network of its own. {'; '.join(own_networks)}" if own_networks else ""
    return Table(f"Accuracy, {fusion}", columns, tuple(rows), foot=foot)


def _method(results: Results, method: str, own_network: str | None, seeds: int) -> Cell:
    """A method's name, and notes on its network and on runs that failed."""
    notes = []
    if own_network:
        notes.append(own_network)
    failed = results.seeds - seeds
    if failed:
        notes.append(f"{failed} of {count(results.seeds, 'run')} failed")
    return Cell(f"{method} *" if own_network else method, "\n".join(notes), method)


def monomodal(study: Study, results: Results, fusion: str) -> Table:
    """Centred φ accuracy of every method and modality, over that of the networks trained on one modality alone."""
    names = study.params.study.modalities
    # The reference first: every φ is read against it.
    alone = [_alone(results, fusion, name) for name in names]
    rows = [(Cell("network alone"), *alone)]
    for method in study.params.study.methods:
        fields = [_phi(results, fusion, method, name) for name in names]
        rows.append((Cell(f"centred φ in {method}", method=method), *fields))
    return Table(f"Mono-modal accuracy, {fusion}", ("accuracy of", *names), tuple(rows))


def _alone(results: Results, fusion: str, modality: str) -> Cell:
    note = "may only know the largest class" if (fusion, modality) in results.uninformed else ""
    return replace(_mean(results, results.alone(fusion, modality)), note=note)


def _phi(results: Results, fusion: str, method: str, modality: str) -> Cell:
    """Centred φ accuracy, with its differences to the network alone and to the baseline."""
    notes = []
    gap = results.gap(fusion, method, modality)
    if gap is not None:
        notes.append(f"{signed(-gap.mean)} to alone{of_seeds(gap.n, results.seeds)}")
    difference = results.to_baseline(fusion, method, "centred_accuracy", modality)
    if difference is not None:
        notes.append(_to_baseline(results, difference))
    mean = _mean(results, results.method(fusion, method, "centred_accuracy", modality))
    return replace(mean, note="\n".join(notes))


def permutation(study: Study, results: Results, fusion: str) -> Table | None:
    """Accuracy of every method with each modality permuted over the clips; None for a single modality."""
    names = study.params.study.modalities
    if len(names) == 1:
        return None
    rows = []
    for method in study.params.study.methods:
        fields = [_mean(results, results.method(fusion, method, "accuracy"))]
        for name in names:
            # Unknown where the method failed in every seed.
            drop = results.drop(fusion, method, name)
            note = "" if drop is None else f"{signed(-drop.mean)}{of_seeds(drop.n, results.seeds)}"
            mean = _mean(results, results.method(fusion, method, "permuted_accuracy", name))
            fields.append(replace(mean, note=note))
        rows.append((Cell(method, method=method), *fields))
    permuted = [f"{name} permuted" for name in names]
    columns = ("accuracy of", "as it is", *permuted)
    return Table(f"Accuracy with a modality permuted, {fusion}", columns, tuple(rows))


def published(study: Study, results: Results, fusion: str) -> Table | None:
    """φ accuracy as it is published, and how much of φ says nothing about the clip; None for a single modality."""
    names = study.params.study.modalities
    if len(names) == 1:
        return None
    rows = []
    for method in study.params.study.methods:
        fields = []
        for name in names:
            # The share of φ's spread over the classes that is the same for every clip.
            share = results.mean(results.method(fusion, method, "phi_constant", name))
            note = "" if share is None else f"{percent(round(share.mean, 2))} constant"
            mean = _mean(results, results.method(fusion, method, "phi_accuracy", name))
            fields.append(replace(mean, note=note))
        rows.append((Cell(f"φ in {method}", method=method), *fields))
    return Table(f"Published φ accuracy, {fusion}", ("accuracy of", *names), tuple(rows))


def competition(study: Study, results: Results, fusion: str) -> Table:
    """Competition strength of every method and modality: mean and interval over seeds."""
    names = study.params.study.modalities
    rows = []
    for method in study.params.study.methods:
        fields = []
        for name in names:
            if results.no_d(fusion, name):
                mean = Cell(NOTHING)
            else:
                mean = _mean(results, results.method(fusion, method, "d", name))
            notes = []
            difference = results.to_baseline(fusion, method, "d", name)
            if difference is not None:
                notes.append(_to_baseline(results, difference))
            if reason := _why_no_d(study, fusion, method, name):
                notes.append(reason)
            fields.append(replace(mean, note="\n".join(notes)))
        rows.append((Cell(method, method=method), *fields))
    return Table(f"Competition strength d, {fusion}", ("method", *names), tuple(rows))


def _why_no_d(study: Study, fusion: str, method: str, modality: str) -> str | None:
    """Why d is missing in all seeds, or in some seeds that the method has; None where it is not missing."""
    if reason := study.no_d(fusion, modality):
        return reason
    # d compares with the network trained on the modality alone, of the same seed.
    seeds = {run.seed for run in study.succeeded(fusion, method)}
    seeds_alone = {run.seed for run in study.succeeded(fusion, concept=modality)}
    return None if seeds <= seeds_alone else f"{modality} alone failed"


def competition_by_seed(study: Study, results: Results, fusion: str) -> Table:
    """d of every run with its interval over test clips, its plain formula, the rank of B, and the ridge's penalty."""
    names, classes = study.params.study.modalities, len(study.shards["classes"])
    rows = []
    for method in study.params.study.methods:
        for seed in study.params.study.seeds:
            fields = [_strength(results, fusion, method, seed, name, classes) for name in names]
            rows.append((Cell(method, method=method), Cell(str(seed)), *fields))
    return Table(f"Every run's d, {fusion}", ("method", "seed", *names), tuple(rows))


def _strength(results: Results, fusion: str, method: str, seed: int, modality: str, classes: int) -> Cell:
    if results.no_d(fusion, modality):
        return Cell(NOTHING)
    metrics = ("d", "d_low", "d_high", "d_published", "d_rank", "d_penalty")
    values = [results.method(fusion, method, metric, modality).get(seed) for metric in metrics]
    # All six are there or none: they come from one evaluation.
    if None in values:
        return Cell(FAILED)
    d, low, high, published, rank, penalty = values
    notes = (
        f"{number(low)} to {number(high)}",
        f"published {number(published)}",
        f"rank {round(rank)} of {classes}",
        f"ridge {penalty:.2g}",
    )
    return Cell(number(d), ", ".join(notes))


def runs(study: Study, fusion: str) -> Table:
    """Every trained network: its size, the epoch that validation picked, its accuracies."""
    rows = []
    for method in study.params.study.methods:
        for run in study.of(fusion, method=method):
            rows.append(_run(method, run))
    for modality in study.params.study.modalities:
        for run in study.of(fusion, concept=modality):
            rows.append(_run(f"{modality} alone", run))
    columns = ("network", "seed", "weights", "epochs", "epoch picked", "val accuracy", "test accuracy")
    return Table(f"Every run, {fusion}", columns, tuple(rows))


def _run(name: str, run: Run) -> tuple[Cell, ...]:
    # Negative where the run failed before its first epoch ended.
    epoch = run.evaluation["selected_epoch"]
    fields = [
        Cell(name, method=run.method),
        Cell(str(run.seed)),
        Cell(f"{run.index['parameters']:,}"),
        Cell(str(run.index["epochs"])),
        Cell(NOTHING if epoch < 0 else str(epoch)),
    ]
    for split in ("val", "test"):
        # A run that failed has no scores.
        fields.append(Cell(FAILED if run.failed else number(run.evaluation["splits"][split]["accuracy"])))
    return tuple(fields)


def kappa(study: Study, fusion: str) -> Table | None:
    """The range of κ over all steps of all seeds, and its mean; None where no method has one."""
    names = study.params.study.modalities
    rows = []
    for method in study.params.study.methods:
        histories = [run.history for run in study.succeeded(fusion, method=method)]
        if _have_kappa(histories, names):
            fields = [_range(histories, name) for name in names]
            rows.append((Cell(method, method=method), *fields))
    if not rows:
        return None
    return Table(f"κ, {fusion}", ("method", *names), tuple(rows))


def _have_kappa(histories: list[pl.DataFrame], modalities: list[str]) -> bool:
    columns = {f"kappa_{name}" for name in modalities}
    return any(not columns.isdisjoint(history.columns) for history in histories)


def _range(histories: list[pl.DataFrame], modality: str) -> Cell:
    """The least and the greatest κ of a modality, and its mean over all epochs."""

    def values(column: str) -> pl.Series:
        return pl.concat([history[column] for history in histories])

    low, high = compact(values(f"kappa_min_{modality}").min()), compact(values(f"kappa_max_{modality}").max())
    return Cell(f"{low} to {high}", f"mean {compact(values(f'kappa_{modality}').mean())}")


def classes(study: Study, results: Results, fusion: str) -> Table:
    """F1 of every class and method, mean over seeds."""
    methods = study.params.study.methods
    rows = []
    for label in study.shards["classes"]:
        clips = study.shards["splits"]["test"]["labels"].get(label, 0)
        fields = [Cell(label), Cell(f"{clips:,}")]
        for method in methods:
            f1 = results.mean(results.method(fusion, method, "f1", label=label))
            fields.append(Cell(FAILED) if f1 is None else Cell(number(f1.mean), shade=f1.mean))
        rows.append(tuple(fields))
    columns = ["class", "test clips"]
    for method in methods:
        seeds = len(study.succeeded(fusion, method))
        columns.append(f"{method}{of_seeds(seeds, results.seeds)}")
    return Table(f"F1 per class, {fusion}", tuple(columns), tuple(rows))


# --- numbers in cells ---


def _mean(results: Results, values: Values) -> Cell:
    mean = results.mean(values)
    if mean is None:
        return Cell(FAILED)
    return Cell(interval(mean) + of_seeds(mean.n, results.seeds))


def _difference(results: Results, difference: Difference | None) -> list[Cell]:
    """A difference, its interval and its p-value."""
    if difference is None:
        return [Cell(NOTHING)] * 3
    ends = NOTHING
    if difference.low is not None:
        ends = f"{signed(difference.low)} to {signed(difference.high)}"
    mean = signed(difference.mean) + of_seeds(difference.n, results.seeds)
    return [Cell(mean), Cell(ends), Cell(p_value(difference.p))]


def _to_baseline(results: Results, difference: Difference) -> str:
    """A difference to the baseline as a note below a number."""
    test = "" if difference.p is None else f", p {p_value(difference.p)}"
    seeds = of_seeds(difference.n, results.seeds)
    return f"{signed(difference.mean)} to {results.baseline}{test}{seeds}"
