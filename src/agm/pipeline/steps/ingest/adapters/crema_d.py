"""CREMA-D: acted sentences, six emotions.

A clip's name says all: `1001_IEO_HAP_LO` is actor 1001, the sentence IEO, happiness at a low level. The label is the
emotion that was acted. The votes of the crowd (processedResults/) are not the label: they tie ("A:D").
"""

from collections.abc import Iterable, Iterator

from agm.pipeline.config.schema import Dataset
from agm.pipeline.io.source import Source
from agm.pipeline.steps.ingest.card import Card, Scheme
from agm.pipeline.steps.ingest.clip import Adapter, Clip, refuse
from agm.pipeline.steps.ingest.table import FIX, cells, rows

FILES = {"video": "VideoFlash/{}.flv", "audio": "AudioWAV/{}.wav", "audio_mp3": "AudioMP3/{}.mp3"}
EMOTIONS = ("ANG", "DIS", "FEA", "HAP", "NEU", "SAD")
PARTS = {
    "actor": [str(number) for number in range(1001, 1092)],
    "sentence": ["DFA", "IEO", "IOM", "ITH", "ITS", "IWL", "IWW", "MTI", "TAI", "TIE", "TSI", "WSI"],
    "emotion": EMOTIONS,
    "level": ["LO", "MD", "HI", "XX"],
}

CARD = Card(
    title="CREMA-D: Crowd-sourced Emotional Multimodal Actors Dataset (emotion of an acted sentence)",
    citation="Cao, Cooper, Keutmann, Gur, Nenkova, Verma, 'CREMA-D: Crowd-sourced Emotional Multimodal Actors "
    "Dataset', IEEE Transactions on Affective Computing 5(4), 2014",
    licence="Open Database License 1.0; its contents: Database Contents License 1.0",
    source="https://github.com/CheyneyComputerScience/CREMA-D, cloned with git-lfs (a zip has no media in it)",
    layout="SentenceFilenames.csv\nAudioWAV/<clip>.wav\nAudioMP3/<clip>.mp3\nVideoFlash/<clip>.flv",
    columns={
        "video": "VideoFlash/<clip>.flv: the picture, or as `audio` its sound",
        "audio": "AudioWAV/<clip>.wav: the sound, 16 kHz",
        "audio_mp3": "AudioMP3/<clip>.mp3: the sound",
    },
    annotations={
        "sentences": "SentenceFilenames.csv; for the scheme `actors`",
        "ogm_train": "data/CREMAD/train.csv of the OGM-GE repository; for the scheme `ogm`",
        "ogm_test": "data/CREMAD/test.csv of the OGM-GE repository; for the scheme `ogm`",
    },
    schemes={
        "actors": Scheme("Drawn by dataset.split: no actor is in two splits. The authors publish no split."),
        "ogm": Scheme(
            "The split in wide use, by the authors of OGM-GE: all 91 actors are in training and in test. Validation "
            "is drawn from training, whole actors at a time.",
            {"train": 6698, "test": 744},
        ),
    },
    labels={"emotion": "the emotion that was acted: ANG, DIS, FEA, HAP, NEU, SAD"},
    group="actor",
    classes=len(EMOTIONS),
)


def clips(dataset: Dataset) -> list[Clip]:
    """Read the list of all clips, or the lists of OGM-GE.

    Raises:
        AgmError: with the row numbers of everything that is wrong with them.
    """
    if CARD.scheme(dataset) == "actors":
        path = CARD.annotation(dataset, "sentences")
        named = [(row.number, [row["Filename"]]) for row in rows(path, ["Filename"])]
        return _clips(named, None, path, {}, dataset)
    seen: dict[str, str] = {}
    found = []
    for split in ("train", "test"):
        path = CARD.annotation(dataset, f"ogm_{split}")
        found += _clips(cells(path), split, path, seen, dataset)
    return found


def _clips(
    named: Iterable[tuple[int, list[str]]], split: str | None, path: str, seen: dict[str, str], dataset: Dataset
) -> list[Clip]:
    """The clips of one list: line number, and the clip's name, with its emotion behind it in the lists of OGM-GE."""
    found, problems = [], []
    for number, row in named:
        name, *label = map(str.strip, row)
        wrong = list(_wrong(name, label, expected=0 if split is None else 1))
        if name in seen:
            wrong.append(f"{name!r} is in {seen[name]} already")
        problems += [f"row {number}: {each}" for each in wrong]
        if not wrong:
            seen[name] = f"row {number} of {path}"
            found.append(_clip(name, split, number, dataset))
    refuse(problems, path, FIX)
    return found


def _wrong(name: str, label: list[str], expected: int) -> Iterator[str]:
    if len(label) != expected:
        yield f"it has {1 + len(label)} cells, not {1 + expected}"
    parts = name.split("_")
    if len(parts) != len(PARTS):
        yield f"{name!r} is not <actor>_<sentence>_<emotion>_<level>"
        return
    for (part, known), value in zip(PARTS.items(), parts, strict=True):
        if value not in known:
            yield f"{name!r}: there is no {part} {value!r}"
    if label and label[0] != parts[2]:
        yield f"the label of {name!r} is {label[0]!r}"


def _clip(name: str, split: str | None, number: int, dataset: Dataset) -> Clip:
    actor, _, emotion, _ = name.split("_")
    files = {modality: FILES[each.column] for modality, each in dataset.modalities.items()}
    return Clip(
        clip_id=name,
        split=split,
        label=emotion,
        group=actor,
        sources={modality: Source(file.format(name)) for modality, file in files.items()},
        row=number,
    )


ADAPTER = Adapter(clips, CARD)
