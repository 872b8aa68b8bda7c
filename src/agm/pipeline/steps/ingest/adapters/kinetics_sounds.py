"""Kinetics-Sounds: the classes of Kinetics-400 that can be both seen and heard.

The choice of classes is not part of the data set: `dataset.classes` makes it, and 31, 32, 33 and 34 are in use. Names
are written with underscores, where Kinetics writes spaces.

A clip is a cut of a YouTube video, named <YouTube id>_<start>_<end>, in seconds. Ids may hold _ and -.
"""

import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

from agm.pipeline.config.schema import Dataset
from agm.pipeline.errors import AgmError
from agm.pipeline.io.source import Source
from agm.pipeline.steps.ingest.card import Card, Scheme
from agm.pipeline.steps.ingest.clip import Adapter, Clip, refuse
from agm.pipeline.steps.ingest.folders import files_in
from agm.pipeline.steps.ingest.table import FIX, cells, rows

NAME = re.compile(r"([A-Za-z0-9_-]{11})_([0-9]{1,6})(?:_([0-9]{1,6}))?")
SECONDS = 10  # of every clip; names in OGM-GE's test list lack the end
REPLACEMENTS = "replacement/replacement_for_corrupted_k400"
SPLIT_NAMES = {"train": ("train",), "val": ("val", "validate")}  # the values of the column `split` of each file

CARD = Card(
    title="Kinetics-Sounds: the classes of Kinetics-400 that can be seen and heard (human actions)",
    citation="Arandjelović, Zisserman, 'Look, Listen and Learn', ICCV 2017; the clips: Kay et al., 'The Kinetics Human "
    "Action Video Dataset', arXiv:1705.06950, 2017",
    licence="Kinetics' annotations: Creative Commons Attribution 4.0; the videos remain their owners'",
    source="https://github.com/cvdfoundation/kinetics-dataset (Kinetics-400, with annotations)",
    layout="annotations/{train,val,test}.csv\n{train,val,test}/<YouTube id>_<start>_<end>.mp4\n"
    f"{REPLACEMENTS}/<YouTube id>_<start>_<end>.mp4",
    columns={"video": "the clip: its picture, or as `audio` its sound"},
    annotations={
        "train": "annotations/train.csv of Kinetics-400; for the scheme `k400`",
        "val": "annotations/val.csv of Kinetics-400; for the scheme `k400`",
        "ogm_train": "data/KineticSound/my_train.txt of the OGM-GE repository; for the scheme `ogm`",
        "ogm_test": "data/KineticSound/my_test.txt of the OGM-GE repository; for the scheme `ogm`",
        "tcmax_train": "train.csv for Kinetics-Sounds of the TCMax repository; for the scheme `tcmax`",
        "tcmax_test": "test.csv for Kinetics-Sounds of the TCMax repository; for the scheme `tcmax`",
    },
    schemes={
        "k400": Scheme(
            "Training clips of Kinetics-400 for training, its validation clips for the test. Validation is drawn from "
            "training, and no video is in two splits.",
            {"test": 1544},
            disjoint=True,
        ),
        "ogm": Scheme(
            "The lists of OGM-GE, 31 classes: the test is of Kinetics-400's test clips. Validation is drawn from "
            "training.",
            {"train": 14799, "test": 2597},
        ),
        "tcmax": Scheme(
            "The lists of TCMax: those of OGM-GE less 127 clips, with the classes by name.",
            {"train": 14675, "test": 2594},
        ),
    },
    labels={"action": "the class of Kinetics-400, with underscores"},
    group="YouTube video",
    classes=31,
)


class Cut(NamedTuple):
    """A piece of a YouTube video, in seconds."""

    video: str
    start: int
    end: int

    def __str__(self) -> str:
        return f"{self.video}_{self.start:06d}_{self.end:06d}"


class Named(NamedTuple):
    """One row of a list: the clip's name and its class, or the error in the row."""

    row: int
    name: str
    label: str
    problem: str | None = None


def clips(dataset: Dataset) -> list[Clip]:
    """Read the lists of the chosen scheme.

    Raises:
        AgmError: with the row numbers of all errors in them, or for classes that they lack.
    """
    if not dataset.classes:
        raise AgmError(
            "dataset.classes is not set: Kinetics-Sounds is a choice among the classes of Kinetics",
            where="params.yaml",
            fix="name them; params/dataset/kinetics_sounds.yaml has the usual 31",
        )
    scheme = CARD.scheme(dataset)
    files = _files(dataset.root)
    seen: dict[Cut, str] = {}
    clips = []
    for (key, folder), split in zip(FOLDERS[scheme].items(), ("train", "test"), strict=True):
        for row, cut, label in _cuts(CARD.annotation(dataset, key), key, dataset, seen):
            path = files.get((cut.video, cut.start), f"{folder}/{cut}.mp4")
            sources = dict.fromkeys(dataset.modalities, Source(path))
            clips.append(Clip(str(cut), split, label, cut.video, sources, row))
    if scheme == "ogm":
        _check_numbers(clips, dataset)
    return clips


def _underscored(name: str) -> str:
    return name.strip().replace(" ", "_")


def _kinetics(path: str, key: str, dataset: Dataset) -> Iterator[Named]:
    """A CSV of Kinetics."""
    for row in rows(path, ["label", "youtube_id", "time_start", "time_end", "split"]):
        name = f"{row['youtube_id']}_{row['time_start']}_{row['time_end']}"
        problem = None
        if row["split"] not in SPLIT_NAMES[key]:
            problem = f"split {row['split']!r} in the list of {SPLIT_NAMES[key][0]!r}"
        yield Named(row.number, name, _underscored(row["label"]), problem)


def _ogm(path: str, key: str, dataset: Dataset) -> Iterator[Named]:
    """A list of OGM-GE: name, 10, number of the class in alphabetical order."""
    classes = sorted(set(dataset.classes))
    for number, row in cells(path):
        if len(row) != 3:
            yield Named(number, "", "", f"it has {len(row)} cells, not 3")
            continue
        name, seconds, index = map(str.strip, row)
        label = ""
        problem = None
        if re.fullmatch("[0-9]{1,3}", index) and int(index) < len(classes):
            label = classes[int(index)]
        else:
            problem = f"class {index!r} is not a number below {len(classes)}"
        if seconds != str(SECONDS):
            problem = f"the second cell is {seconds!r}, not {SECONDS}"
        yield Named(number, name, label, problem)


def _tcmax(path: str, key: str, dataset: Dataset) -> Iterator[Named]:
    """A list of TCMax: name, class."""
    for row in rows(path, ["youtube_id", "label"]):
        yield Named(row.number, row["youtube_id"], _underscored(row["label"]))


def _cuts(path: str, key: str, dataset: Dataset, seen: dict[Cut, str]) -> Iterator[tuple[int, Cut, str]]:
    """Yield row, cut and class of every clip of one list, and add the row of each cut to `seen`."""
    read = READERS[CARD.scheme(dataset)]
    problems = []
    for row, name, label, problem in read(path, key, dataset):
        cut = _cut(name)
        # One problem for each row: that of the reader comes first.
        if problem is not None:
            problems.append(f"row {row}: {problem}")
        elif cut is None:
            problems.append(f"row {row}: {name[:80]!r} is not <YouTube id>_<start>_<end>")
        elif not label:
            problems.append(f"row {row}: the label is empty")
        elif cut in seen:
            problems.append(f"row {row}: {cut} is in {seen[cut]} already")
        else:
            seen[cut] = f"row {row} of {path}"
            yield row, cut, label
    refuse(problems, path, FIX)


def _cut(name: str) -> Cut | None:
    """The cut that a name spells; None for another name."""
    match = NAME.fullmatch(name)
    if match is None:
        return None
    start = int(match[2])
    end = int(match[3]) if match[3] else start + SECONDS
    return Cut(match[1], start, end) if end > start else None


def _official(stem: str) -> str:
    """The official spelling of a clip's name: starts and ends of six digits."""
    return str(_cut(stem) or stem)


def _files(root: str) -> dict[tuple[str, int], str]:
    """YouTube id and start → path of every clip in the root; for a corrupted clip, its replacement.

    Downloads differ in the folder of a clip, so all folders are searched. `agm.pipeline.steps.ingest.locate` finds
    clips elsewhere, for example in a folder for each class.
    """
    paths = {}
    for folder in ("test", "val", "train", REPLACEMENTS):  # of several folders with a clip, the last one counts
        for name in files_in(root, folder):
            cut = _cut(name.removesuffix(".mp4"))
            if name.endswith(".mp4") and cut:
                paths[cut.video, cut.start] = f"{folder}/{name}"
    return paths


def _check_numbers(clips: list[Clip], dataset: Dataset) -> None:
    """Refuse numbers of another list of classes: every label would be wrong, and nobody would notice."""
    missing = sorted(set(dataset.classes) - {clip.label for clip in clips})
    if missing:
        raise AgmError(
            f"The lists number their classes, and dataset.classes has {len(dataset.classes)}, which are not these: no "
            f"clip has the number of {', '.join(missing)}",
            where=", ".join(CARD.annotation(dataset, key) for key in FOLDERS["ogm"]),
            fix="the lists of OGM-GE go with the 31 classes of params/dataset/kinetics_sounds.yaml",
        )


READERS: dict[str, Callable[[str, str, Dataset], Iterator[Named]]] = {"k400": _kinetics, "ogm": _ogm, "tcmax": _tcmax}
# The lists of training and test, and the folders in which their clips should be.
FOLDERS = {
    "k400": {"train": "train", "val": "val"},
    "ogm": {"ogm_train": "train", "ogm_test": "test"},
    "tcmax": {"tcmax_train": "train", "tcmax_test": "test"},
}

ADAPTER = Adapter(clips, CARD, stem=_official)
