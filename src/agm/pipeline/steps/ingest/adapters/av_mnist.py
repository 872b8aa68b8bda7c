"""AV-MNIST: images of written digits and spectrograms of spoken ones; a clip is a row of two of four large arrays."""

from pathlib import Path

import numpy as np

from agm.pipeline.config.schema import Dataset
from agm.pipeline.errors import AgmError
from agm.pipeline.io.media import Unusable, opened_array
from agm.pipeline.io.source import Source
from agm.pipeline.steps.ingest.card import Card, Scheme
from agm.pipeline.steps.ingest.clip import Adapter, Clip, refuse

CLASSES = 10
# The last training clips, one in so many, are for validation: 5,000 of 60,000.
HELD_OUT = 12

CARD = Card(
    title="AV-MNIST: written and spoken digits",
    citation="V. Vielzeuf et al.: CentralNet: a Multilayer Approach for Multimodal Fusion. ECCV Workshops 2018; "
    "these files: P. P. Liang et al.: MultiBench: Multiscale Benchmarks for Multimodal Representation Learning. "
    "NeurIPS Datasets and Benchmarks 2021",
    licence="none stated; its parts: MNIST, Free Spoken Digit Dataset (CC BY-SA 4.0), ESC-50 (CC BY-NC 3.0)",
    source="the link in MultiBench's repository, https://github.com/pliang279/MultiBench; dataset.root is its avmnist",
    layout="image/train_data.npy [60000, 784], image/test_data.npy [10000, 784]\n"
    "audio/train_data.npy [60000, 112, 112], audio/test_data.npy [10000, 112, 112]\n"
    "train_labels.npy [60000], test_labels.npy [10000]",
    columns={
        "image": "the written digit, 28 × 28, with 75 % of its energy removed (kind array)",
        "audio": "the spectrogram of the spoken digit with noise, 112 × 112 (kind array)",
    },
    annotations={"train_labels": "train_labels.npy", "test_labels": "test_labels.npy"},
    schemes={
        "official": Scheme(
            "MultiBench's: the last 5,000 training clips are for validation. Nobody can tell from the files who spoke.",
            {"train": 55000, "val": 5000, "test": 10000},
        )
    },
    labels={"digit": "0 to 9"},
    group=None,
    classes=CLASSES,
)


def clips(dataset: Dataset) -> list[Clip]:
    """Read the labels.

    Raises:
        AgmError: when they are no digits in a .npy file.
    """
    train = _labels(CARD.annotation(dataset, "train_labels"))
    test = _labels(CARD.annotation(dataset, "test_labels"))
    first_held_out = len(train) - len(train) // HELD_OUT
    clips = []
    for row, label in enumerate(train):
        split = "train" if row < first_held_out else "val"
        clips.append(_clip(dataset, "train", row, split, label))
    for row, label in enumerate(test):
        clips.append(_clip(dataset, "test", row, "test", label))
    return clips


def _clip(dataset: Dataset, half: str, row: int, split: str, label: int) -> Clip:
    sources = {}
    for name, modality in dataset.modalities.items():
        sources[name] = Source(f"{modality.column}/{half}_data.npy", member=str(row))
    return Clip(f"{half}_{row:05}", split, str(label), None, sources, row)


def _labels(path: str) -> list[int]:
    fix = "give the file that came with the data set"
    try:
        labels = np.asarray(opened_array(Path(path)))
    except Unusable as error:
        raise AgmError(f"The labels cannot be read: {error}", where=path, fix=fix) from None
    if labels.size != len(labels):
        raise AgmError(f"Expected one label for each clip, found an array {list(labels.shape)}", where=path, fix=fix)
    labels = labels.reshape(-1)
    wrong = np.flatnonzero(~np.isin(labels, range(CLASSES)))
    refuse([f"row {row}: {labels[row]} is no digit (rows are counted from 0)" for row in wrong.tolist()], path, fix)
    return [int(label) for label in labels]


ADAPTER = Adapter(clips, CARD, unique=2)
