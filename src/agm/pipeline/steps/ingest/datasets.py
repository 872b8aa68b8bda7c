"""Describe the published data sets that can be read: agm datasets, agm datasets NAME dataset.root=/its/folder

Without a name, the command prints one line for each data set. With a name, it prints the card (what the data set is,
its licence, where to get it, the expected folder, its splits and labels) and counts the files of your copy:

    agm datasets crema_d                                the card
    agm datasets crema_d dataset.root=/data/crema_d     the card, and what the folder holds
    agm datasets ave_raw dataset.root=/data/ave         NAME is a file of params/dataset/ or one of the list

The arguments after the name are overrides as for `agm compose` (`dataset.split.scheme=…`,
`+dataset.annotations.…=…`). Without any, params.yaml gives the folder, if it describes that data set. The command
writes nothing, and only counts files: `agm ingest` and `agm extract` find the damaged ones, and after they have run,
this command counts those too.
"""

import textwrap
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import get_args

import polars as pl
import yaml

from agm.pipeline import config
from agm.pipeline.config.compose import GROUPS, compose
from agm.pipeline.config.schema import Dataset
from agm.pipeline.config.schema.data import Adapter
from agm.pipeline.errors import AgmError
from agm.pipeline.io.tables import SPLITS
from agm.pipeline.runtime.progress import show
from agm.pipeline.steps.ingest import adapters
from agm.pipeline.steps.ingest.card import Card
from agm.pipeline.steps.ingest.clip import Clip
from agm.pipeline.steps.ingest.listing import Seen, absent, locate

WIDTH = 110
STATES = ("quarantined", "incomplete", "there")
"""The states of a clip, as columns of the table of counts."""
REASONS = 10
"""The largest number of reasons for quarantine that is shown."""


def overview() -> None:
    """Print a line for each published data set."""
    rows = [(name, card.title, f"{card.classes} classes", card.licence) for name, card in cards().items()]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        # Without the spaces at the end of the line.
        show("  ".join(cells).rstrip(" "))
    show("\n`agm datasets NAME` says more of one; `agm datasets NAME dataset.root=/its/folder` also what is there.")


def describe(name: str, overrides: Sequence[str], groups: Path = GROUPS) -> None:
    """Print the card of a data set, and what the user's copy holds of it.

    Args:
        name: a file of the group `dataset`, or an adapter.
        overrides: overrides in Hydra's form for that file; without any, params.yaml is used if it describes this data
            set.

    Raises:
        AgmError: when there is no such data set, or for errors in its annotations.
    """
    adapter = _adapter(name, groups)
    card = adapters.find(adapter).card
    presets = _presets(adapter, groups)
    if card is not None:
        show(_card(adapter, card, presets))
    dataset = _composed(name, overrides, groups) if overrides else _present(name, adapter)
    if dataset is None:
        chosen = name if name in presets else " or ".join(presets)
        show(f"\nTo see what is in your copy: agm datasets {chosen} dataset.root=/its/folder")
        return
    clips, files, notes = locate(dataset, adapters.read(dataset))
    scheme = f", split {card.scheme(dataset)!r}" if card else ""
    show(f"\nIn {dataset.root}{scheme}")
    show("\n".join([_counts(dataset, card, clips, files), *notes]))
    show("\n".join(_quarantined(Path("data") / dataset.name)))


def cards() -> dict[str, Card]:
    """The card of every adapter that has one, by name."""
    by_name = {}
    for name in sorted(get_args(Adapter)):
        card = adapters.find(name).card
        if card is not None:
            by_name[name] = card
    return by_name


# --- which data set the user means ---


def _adapter(name: str, groups: Path) -> str:
    """The adapter that a file of the group `dataset` names, or `name` if it is an adapter itself."""
    preset = groups / "dataset" / f"{name}.yaml"
    if preset.exists():
        return yaml.safe_load(preset.read_text(encoding="utf-8"))["dataset"]["adapter"]
    if name in cards():
        return name
    raise AgmError(
        f"There is no data set {name!r}",
        where=groups / "dataset",
        fix=f"there are: {', '.join(cards())}; your own go through `manifest`, see README.md",
    )


def _presets(adapter: str, groups: Path) -> list[str]:
    """The names of the files of the group `dataset` that the adapter reads."""
    names = sorted(path.stem for path in (groups / "dataset").glob("*.yaml"))
    return [name for name in names if _adapter(name, groups) == adapter]


def _composed(name: str, overrides: Sequence[str], groups: Path) -> Dataset:
    """The data set as `agm compose dataset=NAME …` would write it; params.yaml stays as it is."""
    with TemporaryDirectory() as folder:
        target = Path(folder, "params.yaml")
        # The same code as `agm compose`, so that the same overrides have the same meaning.
        compose([f"dataset={name}", *overrides], target, groups)
        return config.load(target).dataset


def _present(name: str, adapter: str) -> Dataset | None:
    """The data set of params.yaml; None where that describes another one."""
    if not config.PARAMS_FILE.exists():
        return None
    try:
        dataset = config.load().dataset
    except AgmError:  # a file of another version, or half edited; this command can do without
        return None
    if dataset.name == name:
        return dataset
    # A user may give a published data set another name.
    published = adapters.find(adapter).card is not None
    if published and dataset.adapter == adapter == name:
        return dataset
    return None


# --- the card ---


def _card(name: str, card: Card, presets: Sequence[str]) -> str:
    about = [
        _hanging("citation", card.citation),
        _hanging("licence", card.licence),
        _hanging("get it", card.source),
        _hanging("settings", ", ".join(f"dataset={preset}" for preset in presets)),
    ]
    blocks = [
        textwrap.fill(f"{name}: {card.title}", WIDTH),
        "\n".join(about),
        "folder expected (dataset.root)\n" + textwrap.indent(textwrap.dedent(card.layout).strip("\n"), "  "),
        _listed("columns (dataset.modalities.<name>.column)", card.columns),
        _listed("annotations (dataset.annotations)", card.annotations),
        _listed("splits (dataset.split.scheme), the first is the default", _schemes(card)),
        _listed(f"labels (dataset.label), the first is the default; {card.classes} classes", card.labels),
    ]
    return "\n\n".join(blocks)


def _schemes(card: Card) -> dict[str, str]:
    """Name of each scheme → its description, with the official number of clips of each split."""
    described = {}
    for name, scheme in card.schemes.items():
        described[name] = scheme.about
        if scheme.counts:
            counts = ", ".join(f"{split} {number:,}" for split, number in scheme.counts.items())
            described[name] += f" Officially: {counts}."
    return described


def _listed(title: str, content: Mapping[str, str]) -> str:
    width = max(map(len, content)) + 2
    lines = [title]
    for key, text in content.items():
        lines.append(_hanging(f"  {key}", text, width))
    return "\n".join(lines)


def _hanging(key: str, text: str, width: int = 8) -> str:
    """A key and its text, whose further lines begin below the beginning of the first one."""
    head = f"{key.ljust(width)}  "
    return textwrap.fill(" ".join(text.split()), WIDTH, initial_indent=head, subsequent_indent=" " * len(head))


# --- what the copy holds ---


def _counts(dataset: Dataset, card: Card | None, clips: Sequence[Clip], files: Mapping[str, Seen]) -> str:
    """A table with a row per split: the official number of clips, and how many are in which state."""
    official = card.schemes[card.scheme(dataset)].counts if card else {}
    states: dict[str | None, Counter[str]] = defaultdict(Counter)
    for clip in clips:
        states[clip.split][_state(clip, dataset, files)] += 1
    lines = [_row("split", "official", "annotated", *STATES)]
    # None is the split of clips that `dataset.split` will draw.
    for split in (*SPLITS, None):
        if split not in states and split not in official:
            continue
        expected = f"{official[split]:,}" if split in official else "–"
        annotated = states[split].total()
        numbers = [f"{states[split][state]:,}" for state in STATES]
        lines.append(_row(split or "to draw", expected, f"{annotated:,}", *numbers))
    missing = absent(files)
    if missing:
        lines.append(f"{len(missing):,} of {len(files):,} files are not there, the first: {missing[0]}")
    lines += adapters.differences(dataset, clips)
    lines += adapters.spellings(dataset, clips)
    return "\n".join(lines)


def _row(*cells: str) -> str:
    return "  ".join(cell.rjust(11) for cell in cells)


def _state(clip: Clip, dataset: Dataset, files: Mapping[str, Seen]) -> str:
    """Whether the clip is quarantined on purpose, lacks a modality or its file, or is there."""
    if clip.left_out is not None:
        return "quarantined"
    for name in dataset.modalities:
        source = clip.sources.get(name)
        if source is None:
            return "incomplete"
        if source.path is not None and files[source.path].size is None:
            return "incomplete"
    return "there"


def _quarantined(folder: Path) -> Iterator[str]:
    """The most frequent reasons why ingest and extract quarantined clips, if these steps have run."""
    # The first table is made by `agm shard`, of all steps; until then there is that of `agm ingest` alone.
    path = folder / "quarantine.parquet"
    if not path.exists():
        path = folder / "quarantine-ingest.parquet"
    if not path.exists():
        return
    table = pl.read_parquet(path)
    reasons = table.group_by("step", "modality", "reason").len("clips")
    reasons = reasons.sort("clips", "step", "modality", "reason", descending=[True, False, False, False])
    yield f"\n{table['clip_id'].n_unique():,} clips quarantined ({path})"
    for step, modality, reason, clips in reasons.head(REASONS).iter_rows():
        yield f"{clips:>10,}  {step}, {modality or 'clip'}: {reason}"
    if len(reasons) > REASONS:
        yield f"{'…':>10}  and {len(reasons) - REASONS} more reasons"
