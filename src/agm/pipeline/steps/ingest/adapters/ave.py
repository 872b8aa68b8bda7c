"""AVE: ten seconds of YouTube videos with one event that is both seen and heard.

Lines are `Category&VideoID&Quality&StartTime&EndTime`; categories hold commas. 45 of the 4,097 videos show several
events, and the lists have a line for each, partly in different splits. Such a clip's id ends with its category.

The published features are rows of two HDF5 arrays, in the order of Annotations.txt. A clip's label is the category of
its event. Start and end serve the localisation of events and are not used; one official line has 0 to 0.
"""

import re
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from agm.pipeline.config.schema import Dataset
from agm.pipeline.io.source import Source
from agm.pipeline.io.tables import SPLITS
from agm.pipeline.steps.ingest.card import Card, Scheme
from agm.pipeline.steps.ingest.clip import Adapter, Clip, located, refuse
from agm.pipeline.steps.ingest.table import FIX, lines

VIDEO = re.compile(r"[A-Za-z0-9_-]{11}")
SECOND = re.compile(r"[0-9]{1,2}")
SECONDS = 10
# The beginning of a line of names, which not every list has; in lower case.
HEADER = "category&videoid&"
FEATURES = {"audio_feature": "audio_feature.h5", "visual_feature": "visual_feature.h5"}
# The name of the array in both files.
ARRAY = "avadataset"
CATEGORIES = (
    "Accordion",
    "Acoustic guitar",
    "Baby cry, infant cry",
    "Banjo",
    "Bark",
    "Bus",
    "Cat",
    "Chainsaw",
    "Church bell",
    "Clock",
    "Female speech, woman speaking",
    "Fixed-wing aircraft, airplane",
    "Flute",
    "Frying (food)",
    "Goat",
    "Helicopter",
    "Horse",
    "Male speech, man speaking",
    "Mandolin",
    "Motorcycle",
    "Race car, auto racing",
    "Rodents, rats, mice",
    "Shofar",
    "Toilet flush",
    "Train horn",
    "Truck",
    "Ukulele",
    "Violin, fiddle",
)
COUNTS = {"train": 3339, "val": 402, "test": 402}

CARD = Card(
    title="AVE: Audio-Visual Event (which of 28 events is seen and heard)",
    citation="Tian, Shi, Li, Duan, Xu, 'Audio-Visual Event Localization in Unconstrained Videos', ECCV 2018",
    licence="none stated; the videos remain their owners'",
    source="https://github.com/YapengTian/AVE-ECCV18 (links to AVE_Dataset, audio_feature.h5, visual_feature.h5)",
    layout="Annotations.txt\ntrainSet.txt\nvalSet.txt\ntestSet.txt\nAVE/<YouTube id>.mp4\naudio_feature.h5 (published "
    "separately: put it here)\nvisual_feature.h5 (likewise)",
    columns={
        "video": "AVE/<YouTube id>.mp4: the picture, or as `audio` its sound",
        "audio_feature": "audio_feature.h5: [10, 128] of each clip, VGGish; kind `sequence`",
        "visual_feature": "visual_feature.h5: [10, 7, 7, 512] of each clip, VGG-19; kind `sequence`",
    },
    annotations={
        "train": "trainSet.txt",
        "val": "valSet.txt",
        "test": "testSet.txt",
        "all": "Annotations.txt: its order is that of the features; for the columns that end in `_feature`",
    },
    schemes={
        "deduplicated": Scheme(
            "The official lists, no video in two splits: training clips of a video that is in the test or validation "
            "are quarantined. "
            "Clips of one video in the same split stay: each has the label of another event.",
            COUNTS,
            disjoint=True,
        ),
        "official": Scheme(
            "The official lists as they are: 8 videos are in training and test, 10 in training and validation.", COUNTS
        ),
    },
    labels={"event": "the category of the event"},
    group="YouTube video",
    classes=len(CATEGORIES),
)


class Event(NamedTuple):
    """An event of one category in one video, which a line names."""

    category: str
    video: str


def clips(dataset: Dataset) -> list[Clip]:
    """Read the three official lists, and Annotations.txt where features are used.

    Raises:
        AgmError: with the row numbers of all errors in them.
    """
    seen: dict[Event, str] = {}
    events = {split: list(_events(CARD.annotation(dataset, split), seen)) for split in SPLITS}
    columns = {name: modality.column for name, modality in dataset.modalities.items()}
    # Only the features lie in the order of Annotations.txt; without them it need not be there.
    uses_features = not FEATURES.keys().isdisjoint(columns.values())
    order = _order(dataset, events) if uses_features else {}
    events_in = Counter(event.video for event in seen)
    clips = []
    for split in SPLITS:
        for row, event in events[split]:
            # A video with several events has a clip for each.
            clip_id = event.video
            if events_in[event.video] > 1:
                clip_id += f"_{_plain(event.category)}"
            sources = {name: _source(column, event, order) for name, column in columns.items()}
            clips.append(Clip(clip_id, split, event.category, event.video, sources, row))
    return clips


def _events(path: str, seen: dict[Event, str]) -> Iterator[tuple[int, Event]]:
    """Yield line number and event of every line of one list, and add the line of each event to `seen`."""
    problems = []
    for number, line in lines(path):
        if line.lower().startswith(HEADER):
            continue
        fields = [field.strip() for field in line.split("&")]
        errors = list(_errors(fields))
        event = None if errors else Event(*fields[:2])
        if event in seen:
            errors.append(f"{event.category!r} in {event.video} is in {seen[event]} already")
        if errors:
            problems += located(f"row {number}", errors)
            continue
        seen[event] = f"row {number} of {path}"
        yield number, event
    refuse(problems, path, FIX)


def _errors(fields: list[str]) -> Iterator[str]:
    if len(fields) != 5:
        yield f"it has {len(fields)} fields, not the 5 of Category&VideoID&Quality&StartTime&EndTime"
        return
    category, video, _, start, end = fields
    if category not in CATEGORIES:
        yield f"there is no category {category[:80]!r}"
    if not VIDEO.fullmatch(video):
        yield f"{video[:80]!r} is not a YouTube id"
    if not (SECOND.fullmatch(start) and SECOND.fullmatch(end) and int(start) <= int(end) <= SECONDS):
        yield f"the event is not from one second to another: {start[:80]!r} to {end[:80]!r}"


def _order(dataset: Dataset, events: dict[str, list[tuple[int, Event]]]) -> dict[Event, int]:
    """Each event → the row of its features, which is its place in Annotations.txt."""
    path = CARD.annotation(dataset, "all")
    order = {event: place for place, (_, event) in enumerate(_events(path, {}))}
    fix = f"use the lists that go with {path}, which has no such lines: without them features cannot be found"
    for split, events_of_split in events.items():
        problems = []
        for row, event in events_of_split:
            if event not in order:
                problems.append(f"row {row}: {event.category!r} in {event.video}")
        refuse(problems, dataset.annotations[split], fix)
    return order


def _source(column: str, event: Event, order: dict[Event, int]) -> Source:
    if column in FEATURES:
        return Source(FEATURES[column], member=f"{ARRAY}/{order[event]}")
    return Source(f"AVE/{event.video}.mp4")


def _plain(category: str) -> str:
    """The category in a form that is fit for a file name: Male_speech_man_speaking."""
    return "_".join(re.findall("[A-Za-z]+", category))


ADAPTER = Adapter(clips, CARD)
