"""VGGSound: ten seconds of YouTube videos in which the source of a sound is seen.

The official list has no header, and labels with commas are quoted. Several clips may come from one video.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from agm.pipeline.config.schema import Dataset
from agm.pipeline.io.source import Source
from agm.pipeline.steps.ingest.card import Card, Scheme
from agm.pipeline.steps.ingest.clip import Adapter, Clip, located, refuse
from agm.pipeline.steps.ingest.table import FIX, cells

VIDEO = re.compile(r"[A-Za-z0-9_-]{11}")
# A file in the lists of the repository.
FILE = re.compile(r"([A-Za-z0-9_-]{11})_([0-9]{1,6})\.mp4")
# A file in downloads: without leading zeros, or with the end behind the start.
NAME = re.compile(r"([A-Za-z0-9_-]{11})_([0-9]{1,6})(?:_[0-9]{1,6})?")
START = re.compile(r"[0-9]{1,6}")
FOLDER = "video"

CARD = Card(
    title="VGGSound: sounds whose source is in the picture",
    citation="Chen, Xie, Vedaldi, Zisserman, 'VGGSound: A Large-scale Audio-Visual Dataset', ICASSP 2020",
    licence="Creative Commons Attribution 4.0; the videos remain their owners'",
    source="https://www.robots.ox.ac.uk/~vgg/data/vggsound (the list; the videos are on YouTube)",
    layout=f"vggsound.csv\n{FOLDER}/<YouTube id>_<start, 6 digits>.mp4 (or directly in the root)",
    columns={"video": "the clip: its picture, or as `audio` its sound"},
    annotations={
        "clips": "vggsound.csv; for the schemes `disjoint` and `official`",
        "train": "data/train.csv of the official repository (<file>.mp4,<label>); for the scheme `lists`",
        "test": "data/test.csv of the official repository; for the scheme `lists`",
        "stat": "data/stat.csv of the official repository; optional: a label that it lacks is refused",
    },
    schemes={
        "disjoint": Scheme(
            "The official split without the training clips of which the video is in the test too. Validation is drawn "
            "from training, whole videos at a time.",
            {"train": 183730, "test": 15446},
            disjoint=True,
        ),
        "official": Scheme(
            "The official split as it is. Validation is drawn from training.", {"train": 183730, "test": 15446}
        ),
        "lists": Scheme(
            "The official split from the two lists of the repository, as it is.", {"train": 183730, "test": 15446}
        ),
    },
    labels={"sound": "the class of the sound"},
    group="YouTube video",
    classes=309,
)


def clips(dataset: Dataset) -> list[Clip]:
    """Read the official list, or the lists of training and test.

    Raises:
        AgmError: with the row numbers of all errors in them.
    """
    labels = _labels(dataset)
    seen: dict[str, str] = {}
    if CARD.scheme(dataset) != "lists":
        return _clips(dataset, "clips", None, labels, seen)
    train = _clips(dataset, "train", "train", labels, seen)
    test = _clips(dataset, "test", "test", labels, seen)
    return train + test


def _labels(dataset: Dataset) -> set[str] | None:
    """The classes of stat.csv; None without it."""
    if "stat" not in dataset.annotations:
        return None
    path = dataset.annotations["stat"]
    table = list(cells(path))
    refuse([f"row {number}: it has no label" for number, row in table if not row[0].strip()], path, FIX)
    return {row[0].strip() for _, row in table}


def _clips(dataset: Dataset, key: str, split: str | None, labels: set[str] | None, seen: dict[str, str]) -> list[Clip]:
    """The clips of one list; `split` is None where each row holds its split."""
    path = CARD.annotation(dataset, key)
    # Some users put the files directly into the root.
    folder = f"{FOLDER}/" if Path(dataset.root, FOLDER).is_dir() else ""
    clips, problems = [], []
    for number, row in cells(path):
        fields = [cell.strip() for cell in row]
        if split is not None:
            fields = _fields(fields, split)
        errors = list(_errors(fields, labels))
        if errors:
            problems += located(f"row {number}", errors)
            continue
        video, start, label, split_of_row = fields
        name = f"{video}_{int(start):06d}"
        if name in seen:
            problems.append(f"row {number}: {name} is in {seen[name]} already")
            continue
        seen[name] = f"row {number} of {path}"
        sources = dict.fromkeys(dataset.modalities, Source(f"{folder}{name}.mp4"))
        clips.append(Clip(name, split_of_row, label, video, sources, number))
    refuse(problems, path, FIX)
    return clips


def _fields(row: list[str], split: str) -> list[str]:
    """A row `<video>_<start>.mp4,label` in the form of vggsound.csv; another row stays as it is, and is refused."""
    file = FILE.fullmatch(row[0])
    if file is None or len(row) != 2:
        return row
    return [file[1], file[2], row[1], split]


def _official(stem: str) -> str:
    """The official spelling of a clip's name: downloads leave out its zeros, or add the end."""
    match = NAME.fullmatch(stem)
    return f"{match[1]}_{int(match[2]):06d}" if match else stem


def _errors(fields: list[str], labels: set[str] | None) -> Iterator[str]:
    if len(fields) != 4:
        yield f"{','.join(fields)[:80]!r} does not name a clip, its label and its split"
        return
    video, start, label, split = fields
    if not VIDEO.fullmatch(video):
        yield f"{video[:80]!r} is not a YouTube id"
    if not START.fullmatch(start):
        yield f"the start {start[:80]!r} is not a number of seconds"
    if not label or (labels is not None and label not in labels):
        yield f"there is no class {label[:80]!r}"
    if split not in ("train", "test"):
        yield f"split {split[:80]!r} is neither train nor test"


ADAPTER = Adapter(clips, CARD, stem=_official)
