"""The pickles of MultiBench and others: one file holds the arrays of all clips, and their labels.

`{train, valid, test: {vision, audio, text, labels, id}}`: UR-FUNNY (humor.pkl), CMU-MOSEI (mosei_senti_data.pkl and
…_noalign.pkl), CMU-MOSI, MUStARD (sarcasm.pkl). Clips are padded with zeros before their first step: set
`features.<modality>.padding=front`.
"""

import math
import os
import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from agm.pipeline.config.schema import Dataset
from agm.pipeline.errors import AgmError
from agm.pipeline.io import unpickle
from agm.pipeline.io.limits import Unusable
from agm.pipeline.io.source import Source
from agm.pipeline.steps.ingest.card import Card, Scheme
from agm.pipeline.steps.ingest.clip import Adapter, Clip

# Name in the pickle → split.
SPLITS = {"train": "train", "valid": "val", "test": "test"}
# The number of a segment, behind the name of its video.
SEGMENT = re.compile(r"\[\d+\]$")
# Sentiment is a number from -3 to 3.
STRONGEST = 3

CARD = Card(
    title="A pickle of MultiBench: word-aligned or unaligned features of UR-FUNNY, CMU-MOSEI, CMU-MOSI or MUStARD",
    citation="P. P. Liang et al.: MultiBench: Multiscale Benchmarks for Multimodal Representation Learning. "
    "NeurIPS 2021 Datasets and Benchmarks",
    licence="as the data set's own",
    source="https://github.com/pliang279/MultiBench, section on affective computing",
    layout="humor.pkl, mosei_senti_data.pkl, mosei_senti_data_noalign.pkl, mosi_raw.pkl or sarcasm.pkl",
    columns={
        "vision": "features of the picture, [steps, numbers] (kind sequence)",
        "audio": "features of the sound (kind sequence)",
        "text": "word vectors (kind sequence)",
    },
    annotations={"clips": "the pickle, below dataset.root"},
    schemes={"official": Scheme("As in the pickle: train, valid, test. Who is in which, it does not say.")},
    labels={
        "binary": "0 and 1, of humor and sarcasm (where the pickle has -1 and 1, -1 is 0)",
        "nonneg": "sentiment from -3 to 3: negative (below 0), or non-negative",
        "posneg": "sentiment from -3 to 3: negative (below 0), or positive (above 0); neutral clips are not read",
        "seven": "sentiment rounded to a whole number from -3 to 3",
    },
    group="video",
    classes=2,
)


def binary(value: float) -> str:
    """0 and -1 are 0."""
    return str(int(value > 0))


def nonneg(value: float) -> str:
    """Negative or not."""
    return "negative" if value < 0 else "non-negative"


def posneg(value: float) -> str | None:
    """Negative or positive; None for neutral."""
    if value == 0:
        return None
    return "negative" if value < 0 else "positive"


def seven(value: float) -> str:
    """The nearest whole number from -3 to 3; between two equally near ones the even one, as in published code."""
    return str(max(-STRONGEST, min(STRONGEST, round(value))))


LABELS: dict[str, Callable[[float], str | None]] = {
    "binary": binary,
    "nonneg": nonneg,
    "posneg": posneg,
    "seven": seven,
}


def clips(dataset: Dataset) -> list[Clip]:
    """Read the pickle.

    Raises:
        AgmError: when it has another form, or its labels are not of the kind that `dataset.label` names.
    """
    path = CARD.annotation(dataset, "clips")
    try:
        return _read(dataset, path, _below(dataset.root, path))
    except Unusable as error:
        raise AgmError(f"The pickle cannot be used: {error}", where=path, fix=CARD.layout) from None


def _read(dataset: Dataset, path: str, inside: str) -> list[Clip]:
    splits = _splits(path)
    values = {split: _values(content, path) for split, content in splits.items()}
    _check(CARD.label(dataset), set().union(*values.values()), path)
    columns = {name: modality.column for name, modality in dataset.modalities.items()}
    for column in columns.values():
        for split, content in splits.items():
            _check_column(content.get(column), len(values[split]), f"{split}/{column}", path)
    return list(_clips(splits, values, columns, inside, dataset))


def _clips(
    splits: dict[str, dict[str, Any]],
    values: dict[str, list[float]],
    columns: dict[str, str],
    path: str,
    dataset: Dataset,
) -> Iterator[Clip]:
    label_of = LABELS[CARD.label(dataset)]
    for split, content in splits.items():
        for row, value in enumerate(values[split]):
            label = label_of(value)
            if label is None:
                continue
            sources = {name: Source(path, member=f"{split}/{column}/{row}") for name, column in columns.items()}
            reason = None
            # Published loaders drop clips without a word too.
            if "text" in columns.values() and not np.any(unpickle.asarray(content["text"][row])):
                reason = "it has no word"
            yield Clip(f"{split}-{row}", SPLITS[split], label, _video(content, row), sources, row, left_out=reason)


def _below(root: str, path: str) -> str:
    """The path relative to the root."""
    inside = os.path.relpath(os.path.realpath(path), os.path.realpath(root))
    if inside.split(os.sep)[0] == os.pardir:
        raise AgmError("The pickle is not below dataset.root", where=path, fix="agm compose … dataset.root=/its/folder")
    return inside


def _splits(path: str) -> dict[str, dict[str, Any]]:
    content = unpickle.load(path)
    if not isinstance(content, dict) or not all(isinstance(content.get(split), dict) for split in SPLITS):
        raise AgmError(f"The pickle does not hold a dict of {', '.join(SPLITS)}", where=path, fix=CARD.layout)
    return {split: content[split] for split in SPLITS}


def _values(content: dict[str, Any], path: str) -> list[float]:
    """The label of each clip, as a number."""
    try:
        labels = unpickle.asarray(content.get("labels")).astype(np.float64)
    except (ValueError, TypeError):
        labels = np.empty(0)
    if labels.ndim == 0 or labels.size != len(labels) or not np.isfinite(labels).all() or not labels.size:
        raise AgmError("`labels` is not one number for each clip", where=path, fix="see `agm datasets multibench`")
    return labels.reshape(-1).tolist()


def _check(label: str, values: set[float], path: str) -> None:
    """Refuse labels of another kind: sentiment that is read as humor, for example, would have no meaning."""
    two = values <= {0.0, 1.0} or values <= {-1.0, 1.0}
    if two == (label == "binary"):
        return
    if two:
        actual, fitting = "0 and 1, or -1 and 1", "binary"
    else:
        strongest = math.ceil(max(map(abs, values)))
        actual, fitting = f"{len(values)} numbers of up to {strongest}", "nonneg, posneg or seven"
    raise AgmError(
        f"dataset.label is {label!r}, and the labels in the pickle are {actual}",
        where=path,
        fix=f"agm compose … dataset.label={fitting}",
    )


def _check_column(column: Any, count: int, name: str, path: str) -> None:
    if not isinstance(column, list | np.ndarray) or len(column) != count:
        raise AgmError(f"{name} is not one array for each of the {count} labels", where=path, fix=CARD.layout)


def _video(content: dict[str, Any], row: int) -> str | None:
    """The video of a clip, where `id` holds it: `<video>[<segment>]`, or the video, its start and end."""
    ids = content.get("id")
    if not isinstance(ids, list | np.ndarray) or row >= len(ids):
        return None
    parts = np.ravel(unpickle.asarray(ids[row])).tolist()
    name = parts[0] if parts else None
    if isinstance(name, bytes):
        name = name.decode("latin-1")
    if not isinstance(name, str):
        return None
    if len(parts) == 1 and not SEGMENT.search(name):
        return None  # it is the number of the clip
    # Tables hold UTF-8 only, and a pickle may hold halves of characters.
    return SEGMENT.sub("", name).encode(errors="replace").decode()


ADAPTER = Adapter(clips, CARD)
