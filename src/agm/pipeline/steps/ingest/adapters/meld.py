"""MELD: utterances of dialogues from the series Friends, seven emotions.

Each official split numbers its dialogues anew, and names its files by these numbers: `dia0_utt0.mp4` is in all three
folders.
"""

from collections.abc import Iterator

from agm.pipeline.config.schema import Dataset
from agm.pipeline.io.source import Source
from agm.pipeline.steps.ingest.card import Card, Scheme
from agm.pipeline.steps.ingest.clip import Adapter, Clip, located, refuse
from agm.pipeline.steps.ingest.table import FIX, Row, rows

# Name in the data set → split.
SPLITS = {"train": "train", "dev": "val", "test": "test"}
FOLDERS = {
    "train": "train/train_splits",
    "dev": "dev/dev_splits_complete",
    "test": "test/output_repeated_splits_test",
}
VALUES = {
    "Emotion": ("neutral", "joy", "sadness", "anger", "surprise", "fear", "disgust"),
    "Sentiment": ("neutral", "positive", "negative"),
}
NUMBERS = ("Dialogue_ID", "Utterance_ID", "Season", "Episode")

CARD = Card(
    title="MELD: the emotion of an utterance in a dialogue of several people",
    citation="S. Poria et al.: MELD: A Multimodal Multi-Party Dataset for Emotion Recognition in Conversations. "
    "ACL 2019",
    licence="GPL-3.0 (of the repository); the videos are of the series Friends",
    source="https://github.com/declare-lab/MELD, and MELD.Raw.tar.gz that it names",
    layout="train_sent_emo.csv, dev_sent_emo.csv, test_sent_emo.csv\n"
    + "\n".join(f"{folder}/dia<dialogue>_utt<utterance>.mp4" for folder in FOLDERS.values()),
    columns={
        "video": "the utterance's file (kind video; kind audio for its sound)",
        "text": "what is said (kind text)",
    },
    annotations={split: f"{split}_sent_emo.csv" for split in SPLITS},
    schemes={
        "episodes": Scheme(
            "Drawn by dataset.split: no episode is in two splits. The six main speakers are in all of them."
        ),
        "official": Scheme(
            "The authors' splits, by dialogue: 81 of the 82 episodes of dev and 142 of the 143 of test are in train.",
            {"train": 9989, "val": 1109, "test": 2610},
        ),
    },
    labels={"emotion": ", ".join(VALUES["Emotion"]), "sentiment": ", ".join(VALUES["Sentiment"])},
    group="episode",
    classes=7,
)


def clips(dataset: Dataset) -> list[Clip]:
    """Read the three lists.

    Raises:
        AgmError: with the row numbers of all errors in them.
    """
    clips = []
    for split in SPLITS:
        clips += _listed(dataset, split)
    return clips


def _listed(dataset: Dataset, split: str) -> list[Clip]:
    """The clips of one list."""
    path = CARD.annotation(dataset, split)
    label = CARD.label(dataset).capitalize()
    first_row: dict[tuple[int, int], int] = {}
    clips, problems = [], []
    for row in rows(path, ["Utterance", label, *NUMBERS]):
        errors = list(_errors(row, label))
        if errors:
            problems += located(f"row {row.number}", errors)
            continue
        # Compared as numbers: 1 and 01 name one file.
        first = first_row.setdefault((int(row["Dialogue_ID"]), int(row["Utterance_ID"])), row.number)
        if first != row.number:
            problems.append(f"row {row.number}: its utterance is in row {first} already")
            continue
        clips.append(_clip(row, split, label, dataset))
    refuse(problems, path, FIX)
    return clips


def _errors(row: Row, label: str) -> Iterator[str]:
    for column in NUMBERS:
        if not (row[column].isascii() and row[column].isdecimal() and len(row[column]) < 10):
            yield f"{column} is {row[column][:60]!r}, no number"
    if row[label] not in VALUES[label]:
        yield f"{label} {row[label][:60]!r} is not one of {', '.join(VALUES[label])}"


def _clip(row: Row, split: str, label: str, dataset: Dataset) -> Clip:
    dialogue, utterance, season, episode = (int(row[column]) for column in NUMBERS)
    name = f"dia{dialogue}_utt{utterance}"
    sources = {}
    for key, modality in dataset.modalities.items():
        if modality.column == "video":
            sources[key] = Source(f"{FOLDERS[split]}/{name}.mp4")
        elif row["Utterance"]:  # an empty cell is a missing text
            sources[key] = Source(text=row["Utterance"])
    return Clip(
        clip_id=f"{split}_{name}",
        split=SPLITS[split] if CARD.scheme(dataset) == "official" else None,
        label=row[label],
        group=f"S{season:02}E{episode:02}",
        sources=sources,
        row=row.number,
    )


ADAPTER = Adapter(clips, CARD, unique=2)
