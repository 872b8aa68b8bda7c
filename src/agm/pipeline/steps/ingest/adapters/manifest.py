"""A user's own data: one CSV with a row per clip, `dataset.annotations.clips`.

Columns: `clip_id`; `label`, all integers or all names; `split` (train, val or test), which may be missing or have
empty cells; for each modality the column that `dataset.modalities` names, with the path of a file below
`dataset.root`, or a text itself, empty where the clip lacks that modality; and the column that `dataset.group` names,
if it is set. Other columns are ignored. `agm.pipeline.steps.ingest.cell` defines the meaning of a cell.

A column of kind `text` holds texts or names of files: `dataset.texts` says which, or the cells show it.
"""

import os
import posixpath
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from agm.pipeline.config.schema import Dataset, Modality
from agm.pipeline.errors import AgmError
from agm.pipeline.io.source import Source
from agm.pipeline.io.tables import SPLITS
from agm.pipeline.steps.ingest.cell import INTEGER, category, plain
from agm.pipeline.steps.ingest.clip import Adapter, Clip, located, refuse
from agm.pipeline.steps.ingest.table import FIX, Row, check_header, rows

# Users name files by ids: characters that file systems or shells do not accept are refused.
UNFIT = re.compile(r'[\x00-\x1f\x7f/\\:*?"<>|]')
LONGEST_ID = 200
# How table programs write a number that is not whole.
NUMBER = re.compile(r"[+-]?([0-9]*\.[0-9]*|[0-9.]+e[+-]?[0-9]+|inf|infinity)", re.IGNORECASE)
FILE_NAME = re.compile(r"[^\n]*\.[A-Za-z][A-Za-z0-9]{0,4}")
LOOKED_AT = 100
"""The number of cells that are looked for as files before the column counts as texts."""


@dataclass
class _Seen:
    """Values of earlier rows, to compare later rows with."""

    ids: dict[str, int] = field(default_factory=dict)  # id → first row
    labels: dict[bool, int] = field(default_factory=dict)  # is it an integer? → first row
    groups: dict[str, tuple[str, int]] = field(default_factory=dict)  # group → its split and first row
    straddling: set[str] = field(default_factory=set)  # groups in several splits that have a message already


def clips(dataset: Dataset) -> list[Clip]:
    """Read the CSV.

    Raises:
        AgmError: with the row numbers of all errors in it.
    """
    path = _path(dataset)
    table = list(rows(path, _required(dataset)))
    texts = set()
    for name, modality in dataset.modalities.items():
        if modality.kind == "text" and _holds_texts(table, modality, dataset):
            texts.add(name)
    clips: list[Clip] = []
    problems: list[str] = []
    seen = _Seen()
    for row in table:
        clip = _clip(row, texts, dataset)
        errors = [
            *_errors_of_id(clip, row, seen),
            *_errors_of_label(clip, row, seen),
            *_errors_of_split(clip, row, seen, dataset.group),
            *_errors_of_path(clip),
        ]
        problems += located(f"row {row.number}", errors)
        clips.append(clip)
    refuse(problems, path, FIX)
    return clips


def check_columns(dataset: Dataset) -> None:
    """Look for the columns in the header of the CSV.

    Raises:
        AgmError: when one is missing.
    """
    check_header(_path(dataset), _required(dataset))


def _required(dataset: Dataset) -> list[str]:
    """The required columns."""
    named = dict.fromkeys(modality.column for modality in dataset.modalities.values())
    required = ["clip_id", "label", *named]
    if dataset.group:
        required.append(dataset.group)
    return required


def _path(dataset: Dataset) -> str:
    if list(dataset.annotations) != ["clips"]:
        raise AgmError(
            f"dataset.annotations: expected `clips`, the CSV with a row per clip, found {list(dataset.annotations)}",
            where="params.yaml",
            fix="agm compose … dataset.annotations.clips=/its/path.csv",
        )
    return dataset.annotations["clips"]


def _holds_texts(table: list[Row], modality: Modality, dataset: Dataset) -> bool:
    """Whether the cells of a column are texts, and not the names of files."""
    if dataset.texts is not None:
        return dataset.texts == "cells"
    cells = [row[modality.column] for row in table]
    cells = [cell for cell in cells if plain(cell)]
    # Names of files that are missing are an error later on, not texts.
    if all(FILE_NAME.fullmatch(cell) for cell in cells):
        return False
    return not any(_is_file(dataset.root, cell) for cell in cells[:LOOKED_AT])


def _is_file(root: str, cell: str) -> bool:
    try:
        return Path(root, cell).is_file()
    except (OSError, ValueError):  # too long for a name, or with a NUL
        return False


def _relative(cell: str, root: str) -> str:
    """The path relative to the root; an absolute one that is not below it stays absolute, and is refused."""
    path = posixpath.normpath(cell)
    for folder in (os.path.abspath(root), os.path.realpath(root)):
        if path.startswith(folder.rstrip("/") + "/"):
            return posixpath.relpath(path, folder)
    return path


def _clip(row: Row, texts: set[str], dataset: Dataset) -> Clip:
    """The clip of one row, before anything of it is checked; `texts` are the modalities whose cells are texts."""
    sources = {}
    for name, modality in dataset.modalities.items():
        cell = row[modality.column]
        if not plain(cell):
            continue
        sources[name] = Source(text=cell) if name in texts else Source(_relative(cell, dataset.root))
    return Clip(
        clip_id=plain(row["clip_id"]),
        split=category(row.get("split", "")) or None,
        label=category(row["label"]),
        group=category(row[dataset.group]) if dataset.group else None,
        sources=sources,
        row=row.number,
    )


def _no_value(column: str, row: Row) -> str:
    """The error of a cell that must hold a value and holds none."""
    if not row[column]:
        return f"{column} is empty"
    return f"{column} is {row[column]!r}, which means a missing value"


def _errors_of_id(clip: Clip, row: Row, seen: _Seen) -> Iterator[str]:
    clip_id = clip.clip_id
    if not clip_id:
        yield _no_value("clip_id", row)
    elif UNFIT.search(clip_id) or clip_id in (".", "..") or len(clip_id.encode()) > LONGEST_ID:
        yield f"clip_id {clip_id[:60]!r} is not fit for a file name"
    else:
        first = seen.ids.setdefault(clip_id, clip.row)
        if first != clip.row:
            yield f"clip_id {clip_id!r} is in row {first} already"


def _errors_of_label(clip: Clip, row: Row, seen: _Seen) -> Iterator[str]:
    integer = INTEGER.fullmatch(clip.label) is not None
    other = seen.labels.get(not integer)
    if not clip.label:
        yield _no_value("label", row)
    elif NUMBER.fullmatch(clip.label):
        yield f"label {clip.label!r} is neither an integer nor a name"
    elif other is None:
        seen.labels.setdefault(integer, clip.row)
    elif integer:
        yield f"label {clip.label!r} is an integer, but that of row {other} is a name"
    else:
        yield f"label {clip.label!r} is a name, but that of row {other} is an integer"


def _errors_of_split(clip: Clip, row: Row, seen: _Seen, column: str | None) -> Iterator[str]:
    if clip.split is not None and clip.split not in SPLITS:
        yield f"split {clip.split!r} is not one of {', '.join(SPLITS)}"
    if clip.group == "":
        yield f"{_no_value(column, row)}, so the clip's group is not known"
    elif clip.group is not None and clip.split is not None:
        split, first = seen.groups.setdefault(clip.group, (clip.split, clip.row))
        # One message for each group is enough.
        if split != clip.split and clip.group not in seen.straddling:
            seen.straddling.add(clip.group)
            yield f"{column} {clip.group!r} is in split {clip.split}, but in row {first} in split {split}"


def _errors_of_path(clip: Clip) -> Iterator[str]:
    for modality, source in clip.sources.items():
        path = source.path
        if path is None:
            continue
        if path.startswith("/") or path.split("/")[0] == "..":
            yield f"{modality}: the path {path!r} leaves the root folder"
        elif "\0" in path:
            yield f"{modality}: the path {path!r} holds a NUL character"


ADAPTER = Adapter(clips, check_columns=check_columns)
