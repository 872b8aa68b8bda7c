"""The published data sets that can be read: agm datasets, agm datasets NAME dataset.root=/its/folder

Without a name, one line for each data set. With one, its card: what it is, its licence, where to get it, the folder
that is expected, its splits and labels; and what of it is in your copy:

    agm datasets crema_d                                the card
    agm datasets crema_d dataset.root=/data/crema_d     the card, and what the folder holds
    agm datasets ave_raw dataset.root=/data/ave         NAME is a file of params/dataset/ or one of the list

What is given after the name are the same overrides as for `agm compose` (`dataset.split.scheme=…`,
`+dataset.annotations.…=…`). Without any, params.yaml says where the data set lies, if it is about that one. Nothing is
written, and files are only counted, not opened: `agm ingest` and `agm extract` find the damaged ones, and once they
have run, this command counts those too.
"""

import textwrap
from collections import Counter
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
from agm.pipeline.steps.ingest.listing import Seen, locate

WIDTH = 110
REASONS = 10
"""Most reasons for quarantine that are shown."""


def overview() -> None:
    """Print a line for each published data set."""
    rows = [(name, card.title, f"{card.classes} classes", card.licence) for name, card in cards().items()]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)][:-1]
    for *cells, licence in rows:
        show("  ".join([*(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)), licence]))
    show("\n`agm datasets NAME` says more of one; `agm datasets NAME dataset.root=/its/folder` also what is there.")


def describe(name: str, overrides: Sequence[str], groups: Path = GROUPS) -> None:
    """Print the card of a data set, and what was found of it.

    Args:
        name: a file of the group `dataset`, or an adapter.
        overrides: Hydra's, on top of that file; without any, params.yaml is used if it is about this data set.

    Raises:
        AgmError: when there is no such data set, or for what is wrong with its annotations.
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
    show(f"\nIn {dataset.root}{f', split {card.scheme(dataset)!r}' if card else ''}")
    show("\n".join([_counts(dataset, card, clips, files), *notes]))
    show("\n".join(_quarantined(Path("data") / dataset.name)))


def cards() -> dict[str, Card]:
    """The card of every adapter that has one, by name."""
    return {name: card for name in sorted(get_args(Adapter)) if (card := adapters.find(name).card) is not None}


# --- which data set is meant ---


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
    """The files of the group `dataset` that are read by the adapter."""
    names = sorted(path.stem for path in (groups / "dataset").glob("*.yaml"))
    return [name for name in names if _adapter(name, groups) == adapter]


def _composed(name: str, overrides: Sequence[str], groups: Path) -> Dataset:
    """The data set as `agm compose dataset=NAME …` would have it; params.yaml is left alone."""
    with TemporaryDirectory() as folder:
        target = Path(folder, "params.yaml")
        compose([f"dataset={name}", *overrides], target, groups)
        return config.load(target).dataset


def _present(name: str, adapter: str) -> Dataset | None:
    """The data set of params.yaml, where that is the one asked for."""
    if not config.PARAMS_FILE.exists():
        return None
    try:
        dataset = config.load().dataset
    except AgmError:  # of another version, or half edited: none of this command's business
        return None
    published = adapters.find(adapter).card is not None
    return dataset if dataset.name == name or (published and dataset.adapter == adapter == name) else None


# --- the card ---


def _card(name: str, card: Card, presets: Sequence[str]) -> str:
    about = [("citation", card.citation), ("licence", card.licence), ("get it", card.source)]
    about += [("settings", ", ".join(f"dataset={preset}" for preset in presets))]
    blocks = [
        textwrap.fill(f"{name}: {card.title}", WIDTH),
        "\n".join(_hanging(key, text) for key, text in about),
        "folder expected (dataset.root)\n" + textwrap.indent(textwrap.dedent(card.layout).strip("\n"), "  "),
        _listed("columns (dataset.modalities.<name>.column)", card.columns),
        _listed("annotations (dataset.annotations)", card.annotations),
        _listed("splits (dataset.split.scheme), the first is the default", _schemes(card)),
        _listed(f"labels (dataset.label), the first is the default; {card.classes} classes", card.labels),
    ]
    return "\n\n".join(blocks)


def _schemes(card: Card) -> dict[str, str]:
    counts = {
        name: ", ".join(f"{split} {number:,}" for split, number in scheme.counts.items())
        for name, scheme in card.schemes.items()
    }
    return {
        name: f"{scheme.about}{f' Officially: {counts[name]}.' if counts[name] else ''}"
        for name, scheme in card.schemes.items()
    }


def _listed(title: str, content: Mapping[str, str]) -> str:
    width = max(map(len, content)) + 2
    return "\n".join([title, *(_hanging(f"  {key}", text, width) for key, text in content.items())])


def _hanging(key: str, text: str, width: int = 8) -> str:
    """A key and its text, whose further lines stand below its first."""
    head = f"{key.ljust(width)}  "
    return textwrap.fill(" ".join(text.split()), WIDTH, initial_indent=head, subsequent_indent=" " * len(head))


# --- what was found ---


def _counts(dataset: Dataset, card: Card | None, clips: Sequence[Clip], files: Mapping[str, Seen]) -> str:
    """A table with a row per split: the official number of clips, and those that are there."""
    official = card.schemes[card.scheme(dataset)].counts if card else {}
    rows = [("split", "official", "annotated", "quarantined", "incomplete", "there")]
    for split in (*SPLITS, None):
        states = Counter(_state(clip, dataset, files) for clip in clips if clip.split == split)
        if states or split in official:
            counts = [states.total(), *(states[key] for key in rows[0][3:])]
            expected = f"{official[split]:,}" if split in official else "–"
            rows.append((split or "to draw", expected, *(f"{each:,}" for each in counts)))
    lost = [path for path, seen in files.items() if seen.size is None]
    lines = ["  ".join(cell.rjust(11) for cell in row) for row in rows]
    if lost:
        lines.append(f"{len(lost):,} of {len(files):,} files are not there, the first: {lost[0]}")
    lines += [*adapters.differences(dataset, clips), *adapters.spellings(dataset, clips)]
    return "\n".join(lines)


def _state(clip: Clip, dataset: Dataset, files: Mapping[str, Seen]) -> str:
    """Whether the clip is quarantined on purpose, lacks a modality or its file, or is there."""
    if clip.left_out is not None:
        return "quarantined"
    sources = [clip.sources.get(name) for name in dataset.modalities]
    lacks = any(each is None or (each.path is not None and files[each.path].size is None) for each in sources)
    return "incomplete" if lacks else "there"


def _quarantined(folder: Path) -> Iterator[str]:
    """What ingest and extract quarantined, if they have run: the most frequent reasons."""
    path = next((each for name in ("quarantine", "rejected") if (each := folder / f"{name}.parquet").exists()), None)
    if path is None:
        return
    table = pl.read_parquet(path)
    reasons = table.group_by("step", "modality", "reason").len("clips")
    reasons = reasons.sort("clips", "step", "modality", "reason", descending=[True, False, False, False])
    yield f"\n{table['clip_id'].n_unique():,} clips quarantined ({path})"
    for step, modality, reason, clips in reasons.head(REASONS).iter_rows():
        yield f"{clips:>10,}  {step}, {modality or 'clip'}: {reason}"
    if len(reasons) > REASONS:
        yield f"{'…':>10}  and {len(reasons) - REASONS} more reasons"
