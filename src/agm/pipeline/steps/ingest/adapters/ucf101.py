"""UCF-101: short videos of 101 actions, by the official lists of training and test clips.

A line is `<Class>/v_<Class>_g<group>_c<clip>.avi`; in the lists of training clips the number of the class follows.
Groups are counted within a class: group 1 of one class and group 1 of another are different groups.
"""

import posixpath
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path

from agm.pipeline.config.schema import Dataset
from agm.pipeline.errors import AgmError
from agm.pipeline.io.source import Source
from agm.pipeline.steps.ingest.card import Card, Scheme
from agm.pipeline.steps.ingest.clip import Adapter, Clip, refuse
from agm.pipeline.steps.ingest.folders import files_in, folders_in
from agm.pipeline.steps.ingest.table import FIX, lines

MEDIA = "UCF-101"
CLASS = re.compile(r"(\d{1,9})\s+(\w+)")
CLIP = re.compile(r"(?P<folder>\w+)/(?P<name>v_(?P<label>\w+)_g(?P<group>\d+)_c\d+)\.avi(?:\s+(?P<number>\d{1,9}))?")

CARD = Card(
    title="UCF-101: 101 actions in 13,320 clips of YouTube videos",
    citation="K. Soomro, A. R. Zamir, M. Shah: UCF101: A Dataset of 101 Human Actions Classes From Videos in The Wild. "
    "CRCV-TR-12-01, 2012",
    licence="none stated; for research",
    source="https://www.crcv.ucf.edu/data/UCF101.php: UCF101.rar and UCF101TrainTestSplits-RecognitionTask.zip",
    layout="UCF-101/<Class>/v_<Class>_g<XX>_c<YY>.avi\n"
    "ucfTrainTestlist/classInd.txt, trainlist0{1,2,3}.txt, testlist0{1,2,3}.txt",
    columns={
        "video": "the clip: its frames (kind video), its optical flow (flow) or its sound (audio; many have none)"
    },
    annotations={"lists": "the folder ucfTrainTestlist"},
    schemes={
        "split1": Scheme("The first official split: no group is in both halves.", {"train": 9537, "test": 3783}),
        "split2": Scheme("The second official split: no group is in both halves.", {"train": 9586, "test": 3734}),
        "split3": Scheme("The third official split: no group is in both halves.", {"train": 9624, "test": 3696}),
    },
    labels={"action": "the 101 actions, by the names of classInd.txt"},
    group="group of clips",
    classes=101,
)


def clips(dataset: Dataset) -> list[Clip]:
    """Read the two lists of the chosen split.

    Raises:
        AgmError: with the row numbers of all errors in them.
    """
    folder = CARD.annotation(dataset, "lists")
    number = CARD.scheme(dataset).removeprefix("split")
    classes = _classes(_list(folder, "classInd.txt"))
    path_of = _paths(dataset.root)
    clips: dict[str, Clip] = {}
    for split in ("train", "test"):
        path = _list(folder, f"{split}list0{number}.txt")
        problems = []
        for row, line in lines(path):
            clip = _clip(line, row, split, classes)
            if isinstance(clip, str):
                problems.append(f"row {row}: {clip}")
            elif clip.clip_id in clips:
                problems.append(f"row {row}: {clip.clip_id} is in the {clips[clip.clip_id].split} list already")
            else:
                clips[clip.clip_id] = clip
        refuse(problems, path, FIX)
    # The paths come last: they need the folders of the root, and the lists may have errors.
    for clip in clips.values():
        clip.sources.update(dict.fromkeys(dataset.modalities, Source(path_of(clip))))
    return list(clips.values())


def _list(folder: str, name: str) -> str:
    path = Path(folder, name)
    if not path.is_file():
        fix = "give the folder of the official lists as dataset.annotations.lists"
        raise AgmError(f"The folder of the official lists has no {name}", where=folder, fix=fix)
    return str(path)


def _classes(path: str) -> dict[str, tuple[str, int]]:
    """Name of each class in lower case → its name, its number."""
    classes: dict[str, tuple[str, int]] = {}
    numbers: set[int] = set()
    problems = []
    for row, line in lines(path):
        match = CLASS.fullmatch(line)
        if match is None:
            problems.append(f"row {row}: not `<number> <Class>`: {line[:60]!r}")
            continue
        number, name = int(match[1]), match[2]
        if name.lower() in classes or number in numbers:
            problems.append(f"row {row}: the class or its number is there already: {line!r}")
        else:
            classes[name.lower()] = name, number
            numbers.add(number)
    refuse(problems, path, FIX)
    return classes


def _clip(line: str, row: int, split: str, classes: dict[str, tuple[str, int]]) -> Clip | str:
    """The clip of one line, without its sources yet, or the error in the line."""
    match = CLIP.fullmatch(line)
    if match is None:
        return f"not `<Class>/v_<Class>_g<group>_c<clip>.avi`: {line[:60]!r}"
    # The official files spell a class in two ways: HandstandPushups/v_HandStandPushups_….
    if match["folder"].lower() != match["label"].lower():
        return f"the clip {match['name']} is in the folder of another class, {match['folder']}"
    if match["folder"].lower() not in classes:
        return f"classInd.txt has no class {match['folder']!r}"
    label, number = classes[match["folder"].lower()]
    if match["number"] is None and split == "train":
        return f"the number of the class is missing behind {match['name']}"
    if match["number"] is not None and int(match["number"]) != number:
        return f"{label} has the number {number} in classInd.txt, not {match['number']}"
    return Clip(match["name"], split, label, f"{label}_g{int(match['group']):02}", {}, row)


def _paths(root: str) -> Callable[[Clip], str]:
    """The function that gives the path of a clip below `root`, whatever the case of the names there."""
    folders = {name.lower(): name for name in folders_in(root, MEDIA)}

    # Each folder is listed once, and only if a clip is in it.
    @cache
    def files(folder: str) -> dict[str, str]:
        return {name.lower(): name for name in files_in(root, posixpath.join(MEDIA, folder))}

    def path_of(clip: Clip) -> str:
        folder = folders.get(clip.label.lower(), clip.label)
        official = f"{clip.clip_id}.avi"
        return posixpath.join(MEDIA, folder, files(folder).get(official.lower(), official))

    return path_of


ADAPTER = Adapter(clips, CARD)
