"""The report's tables: what stands in which row, ready to be shown on the page or printed as plain text."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import polars as pl

from agm.metrics.intervals import Difference
from agm.pipeline.io.tables import QUARANTINE, SPLITS
from agm.pipeline.steps.report.collect import Run, Study
from agm.pipeline.steps.report.results import FAILED, Results, Values
from agm.pipeline.steps.report.text import NOTHING, compact, count, interval, number, of_all, p_value, percent, signed


@dataclass(frozen=True)
class Cell:
    """One field of a table.

    Attributes:
        text: what it says.
        note: smaller lines below it.
        method: names the method whose colour marks the field.
        shade: 0 to 1 for a background as strong, None for none.
    """

    text: str
    note: str = ""
    method: str | None = None
    shade: float | None = None


@dataclass(frozen=True)
class Table:
    """A table; the first column names the rows, the others hold numbers unless they are among `words`."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    words: frozenset[int] = frozenset()
    foot: str = ""
    """Below the table in a terminal, where the page has smaller lines in the fields."""

    def plain(self) -> str:
        """The table as text for a terminal, without the smaller lines."""
        lines = [self.columns, *(tuple(cell.text for cell in row) for row in self.rows)]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        text = (
            "  ".join(
                cell.ljust(width) if place in {0, *self.words} else cell.rjust(width)
                for place, (cell, width) in enumerate(zip(line, widths, strict=True))
            ).rstrip()
            for line in lines
        )
        return "\n".join([self.title, *(f"  {line}" for line in text), *([f"  {self.foot}"] if self.foot else [])])


def accuracies(study: Study, results: Results, fusion: str) -> Table:
    """Accuracy, macro and weighted F1 of every method, and the paired difference in accuracy to the baseline."""
    baseline = results.baseline
    against = (f"accuracy − {baseline}", "interval", "paired p") if baseline else ()
    rows, own = [], {}
    for method in study.params.study.methods:
        if changed := study.of(fusion, method)[0].record["own_network"]:
            own[method] = f"{method}: {changed}"
        scores = results.method(fusion, method, "accuracy")
        row = [_mean(results, results.method(fusion, method, each)) for each in ("accuracy", "macro_f1", "weighted_f1")]
        if baseline:
            row += _difference(results, results.to_baseline(fusion, method, "accuracy"))
        failed = results.seeds - len(scores)
        lost = f"{failed} of {count(results.seeds, 'run')} failed" if failed else None
        note = "\n".join(filter(None, [changed, lost]))
        name = Cell(f"{method} *" if changed else method, note, method)
        rows.append((name, *row, Cell(str(len(scores)))))
    columns = ("method", "accuracy", "macro F1", "weighted F1", *against, "seeds")
    foot = f"* a network of its own. {'; '.join(own.values())}" if own else ""
    return Table(f"Accuracy, {fusion}", columns, tuple(rows), foot=foot)


def monomodal(study: Study, results: Results, fusion: str) -> Table:
    """Centred φ accuracy of every method and modality, over that of the networks trained on one modality alone."""
    names = study.params.study.modalities
    rows = [(Cell("network alone"), *(_alone(results, fusion, name) for name in names))]
    for method in study.params.study.methods:
        fields = [_phi(results, fusion, method, name) for name in names]
        rows.append((Cell(f"centred φ in {method}", method=method), *fields))
    return Table(f"Mono-modal accuracy, {fusion}", ("accuracy of", *names), tuple(rows))


def permutation(study: Study, results: Results, fusion: str) -> Table | None:
    """Accuracy of every method with each modality permuted over the clips; None for a single modality."""
    names = study.params.study.modalities
    if len(names) == 1:
        return None
    rows = []
    for method in study.params.study.methods:
        fields = [_mean(results, results.method(fusion, method, "accuracy"))]
        for name in names:
            drop = results.drop(fusion, method, name)
            note = "" if drop is None else f"{signed(-drop.mean)}{of_all(drop.n, results.seeds)}"
            mean = _mean(results, results.method(fusion, method, "permuted_accuracy", name))
            fields.append(replace(mean, note=note))
        rows.append((Cell(method, method=method), *fields))
    columns = ("accuracy of", "as it is", *(f"{name} permuted" for name in names))
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
            share = results.mean(results.method(fusion, method, "phi_constant", name))
            note = "" if share is None else f"{percent(round(share.mean, 2))} constant"
            fields.append(replace(_mean(results, results.method(fusion, method, "phi_accuracy", name)), note=note))
        rows.append((Cell(f"φ in {method}", method=method), *fields))
    return Table(f"Published φ accuracy, {fusion}", ("accuracy of", *names), tuple(rows))


def competition(study: Study, results: Results, fusion: str) -> Table:
    """Competition strength of every method and modality: mean and interval over seeds."""
    names = study.params.study.modalities
    rows = []
    for method in study.params.study.methods:
        fields = []
        for name in names:
            change = _to_baseline(results, results.to_baseline(fusion, method, "d", name))
            notes = filter(None, [change, _why_no_d(study, fusion, method, name)])
            fields.append(replace(_d(results, fusion, method, name), note="\n".join(notes)))
        rows.append((Cell(method, method=method), *fields))
    return Table(f"Competition strength d, {fusion}", ("method", *names), tuple(rows))


def competition_by_seed(study: Study, results: Results, fusion: str) -> Table:
    """d of every run with its interval over test clips, its plain formula, the rank of B, and the ridge's penalty."""
    names, classes = study.params.study.modalities, len(study.shards["classes"])
    rows = []
    for method in study.params.study.methods:
        for seed in study.params.study.seeds:
            fields = [_strength(results, fusion, method, seed, name, classes) for name in names]
            rows.append((Cell(method, method=method), Cell(str(seed)), *fields))
    return Table(f"Every run's d, {fusion}", ("method", "seed", *names), tuple(rows))


def runs(study: Study, fusion: str) -> Table:
    """Every trained network: its size, the epoch that validation picked, its accuracies."""
    names = study.params.study
    groups = [(name, study.of(fusion, method=name)) for name in names.methods]
    groups += [(f"{name} alone", study.of(fusion, concept=name)) for name in names.modalities]
    rows = [(Cell(called, method=run.method), *_of_run(run)) for called, runs in groups for run in runs]
    columns = ("network", "seed", "weights", "epochs", "epoch picked", "val accuracy", "test accuracy")
    return Table(f"Every run, {fusion}", columns, tuple(rows))


def _of_run(run: Run) -> Iterable[Cell]:
    splits, picked = run.evaluation["splits"], run.evaluation["selected_epoch"]
    yield Cell(str(run.seed))
    yield Cell(f"{run.record['parameters']:,}")
    yield Cell(str(run.record["epochs"]))
    yield Cell(NOTHING if picked < 0 else str(picked))
    for split in ("val", "test"):
        yield Cell(FAILED if run.failed else number(splits[split]["accuracy"]))


def kappa(study: Study, fusion: str) -> Table | None:
    """The range of κ over all steps of all seeds, and its mean; None where no method has one."""
    names = study.params.study.modalities
    rows = []
    for method in study.params.study.methods:
        runs = [run.history for run in study.sound(fusion, method=method)]
        if any(f"kappa_{name}" in history.columns for history in runs for name in names):
            rows.append((Cell(method, method=method), *(Cell(*_range(runs, name)) for name in names)))
    return Table(f"κ, {fusion}", ("method", *names), tuple(rows)) if rows else None


def _range(histories: list[pl.DataFrame], modality: str) -> tuple[str, str]:
    def over(column: str, function: Callable[[pl.Series], float]) -> str:
        return compact(function(pl.concat([history[column] for history in histories])))

    ends = over(f"kappa_min_{modality}", pl.Series.min), over(f"kappa_max_{modality}", pl.Series.max)
    return f"{ends[0]} to {ends[1]}", f"mean {over(f'kappa_{modality}', pl.Series.mean)}"


def classes(study: Study, results: Results, fusion: str) -> Table:
    """F1 of every class and method, mean over seeds."""
    methods = study.params.study.methods
    rows = []
    for label in study.shards["classes"]:
        scores = [results.mean(results.method(fusion, method, "f1", label=label)) for method in methods]
        fields = [Cell(FAILED) if f1 is None else Cell(number(f1.mean), shade=f1.mean) for f1 in scores]
        clips = study.shards["splits"]["test"]["labels"].get(label, 0)
        rows.append((Cell(label), Cell(f"{clips:,}"), *fields))
    called = [f"{method}{of_all(len(study.sound(fusion, method)), results.seeds)}" for method in methods]
    return Table(f"F1 per class, {fusion}", ("class", "test clips", *called), tuple(rows))


def clips(study: Study) -> Table:
    """Clips that were used, per class and split."""
    splits = study.shards["splits"]
    rows = [
        (Cell(label), *(Cell(f"{splits[split]['labels'].get(label, 0):,}") for split in SPLITS))
        for label in study.shards["classes"]
    ]
    total = (Cell("all"), *(Cell(f"{splits[split]['rows']:,}") for split in SPLITS))
    return Table("Clips used", ("class", *SPLITS), (total, *rows))


def texts(study: Study, most: int) -> Table | None:
    """The texts of the contact sheet, at most so many characters of each; None without texts."""
    rows = [
        (Cell(each["clip_id"]), Cell(each["modality"]), *(Cell(_cut(each[who], most)) for who in ("person", "network")))
        for each in study.inspection["texts"]
    ]
    columns = ("clip", "modality", "a person reads", "where that differs, the network gets")
    return Table("Texts of the contact sheet", columns, tuple(rows), frozenset({1, 2, 3})) if rows else None


def _cut(text: str | None, most: int) -> str:
    if text is None:
        return NOTHING
    return text if len(text) <= most else f"{text[:most]} …"


def duplicates(study: Study) -> Table:
    """How many clips of one split look the same as a clip of an earlier one: in every modality, and in each."""
    rows = []
    for pair in study.inspection["duplicates"]:
        counts = [
            Cell(f"{found['alike']:,}", f"{found['identical']:,} identical" if found["alike"] else "")
            for found in pair["clips"].values()
        ]
        rows.append((Cell(f"{pair['split']}, as in {pair['in']}"), *counts))
    names = list(study.inspection["duplicates"][0]["clips"])
    return Table("Clips that look the same", ("clips of", "every modality", *names[1:]), tuple(rows))


def flaws(study: Study) -> Table:
    """How many clips have files, and tensors, that show nothing, by modality; no rows where none has."""
    rows = [
        (Cell(modality), Cell(f"{flaw} file"), Cell(f"{clips['kept']:,}"), Cell(f"{clips['quarantined']:,}"))
        for modality, found in study.inspection["flaws"].items()
        for flaw, clips in found.items()
    ]
    rows += [
        (Cell(modality), Cell("blank tensor"), Cell(f"{clips:,}"), Cell(NOTHING))
        for modality, clips in study.inspection["blank"].items()
        if clips
    ]
    return Table(
        "Clips that show nothing", ("modality", "what", "kept", "quarantined"), tuple(rows), words=frozenset({1})
    )


def reasons(study: Study, most: int) -> Table:
    """Why clips were put aside: the most frequent reasons and their counts."""
    counted = (
        study.quarantine.group_by("step", "modality", "reason")
        .len("clips")
        .sort("clips", "step", "modality", "reason", descending=[True, False, False, False])
        .head(most)
    )
    rows = tuple(
        (Cell(reason), Cell(step), Cell(modality or NOTHING), Cell(f"{clips:,}"))
        for step, modality, reason, clips in counted.iter_rows()
    )
    return Table("Reasons", ("reason", "step", "modality", "clips"), rows, words=frozenset({1, 2}))


def quarantined(study: Study, most: int) -> Table:
    """The first clips that were put aside."""
    shown = study.quarantine.select(*QUARANTINE).head(most)
    rows = tuple(tuple(Cell(value or NOTHING) for value in row) for row in shown.iter_rows())
    called = ("clip", "split", "modality", "step", "reason", "file")
    return Table("Clips put aside", called, rows, words=frozenset(range(1, 6)))


def _mean(results: Results, values: Values) -> Cell:
    found = results.mean(values)
    return Cell(FAILED if found is None else interval(found) + of_all(found.n, results.seeds))


def _difference(results: Results, found: Difference | None) -> list[Cell]:
    if found is None:
        return [Cell(NOTHING)] * 3
    ends = NOTHING if found.low is None else f"{signed(found.low)} to {signed(found.high)}"
    return [Cell(signed(found.mean) + of_all(found.n, results.seeds)), Cell(ends), Cell(p_value(found.p))]


def _to_baseline(results: Results, found: Difference | None) -> str:
    if found is None:
        return ""
    test = f", p {p_value(found.p)}" if found.p is not None else ""
    return f"{signed(found.mean)} to {results.baseline}{test}{of_all(found.n, results.seeds)}"


def _alone(results: Results, fusion: str, modality: str) -> Cell:
    note = "may only know the largest class" if (fusion, modality) in results.uninformed else ""
    return replace(_mean(results, results.alone(fusion, modality)), note=note)


def _phi(results: Results, fusion: str, method: str, modality: str) -> Cell:
    gap = results.gap(fusion, method, modality)
    to_alone = "" if gap is None else f"{signed(-gap.mean)} to alone{of_all(gap.n, results.seeds)}"
    change = _to_baseline(results, results.to_baseline(fusion, method, "centred_accuracy", modality))
    mean = _mean(results, results.method(fusion, method, "centred_accuracy", modality))
    return replace(mean, note="\n".join(filter(None, [to_alone, change])))


def _d(results: Results, fusion: str, method: str, modality: str) -> Cell:
    if results.no_d(fusion, modality):
        return Cell(NOTHING)
    return _mean(results, results.method(fusion, method, "d", modality))


def _why_no_d(study: Study, fusion: str, method: str, modality: str) -> str:
    """Why d is missing in some seeds that the method has: what it is compared with failed, or no seed can have it."""
    if reason := study.no_d(fusion, modality):
        return reason
    have, alone = study.sound(fusion, method), study.sound(fusion, concept=modality)
    missing = {run.seed for run in have} - {run.seed for run in alone}
    return f"{modality} alone failed" if missing else ""


def _strength(results: Results, fusion: str, method: str, seed: int, modality: str, classes: int) -> Cell:
    if results.no_d(fusion, modality):
        return Cell(NOTHING)
    metrics = ("d", "d_low", "d_high", "d_published", "d_rank", "d_penalty")
    found = [results.method(fusion, method, metric, modality).get(seed) for metric in metrics]
    if None in found:
        return Cell(FAILED)
    d, low, high, published, rank, penalty = found
    notes = (
        f"{number(low)} to {number(high)}",
        f"published {number(published)}",
        f"rank {round(rank)} of {classes}",
        f"ridge {penalty:.2g}",
    )
    return Cell(number(d), ", ".join(notes))


def intro(study: Study) -> str:
    """What the numbers of every table are."""
    seeds, confidence = len(study.params.study.seeds), percent(study.params.evaluation.confidence)
    if seeds == 1:
        return "test split, a single seed: no interval"
    fewer = f"; (n of {seeds}): over the n seeds that did not fail, a difference over those that both sides have"
    return f"test split, mean ± {confidence} t interval over {seeds} seeds{fewer if study.failed else ''}"
