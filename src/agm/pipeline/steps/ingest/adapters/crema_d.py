"""CREMA-D: acted sentences, six emotions.

A clip's name holds all annotations: `1001_IEO_HAP_LO` is actor 1001, the sentence IEO, happiness at a low level. The
label is the acted emotion. The votes of the crowd (processedResults/) are not the label, because some of them tie
("A:D").
"""

from collections.abc import Iterable, Iterator

from agm.pipeline.config.schema import Dataset
from agm.pipeline.io.source import Source
from agm.pipeline.steps.ingest.card import Card, Scheme
from agm.pipeline.steps.ingest.clip import Adapter, Clip, located, refuse
from agm.pipeline.steps.ingest.table import FIX, cells, rows

# Column → path, in which the clip's name replaces {}.
FILES = {"video": "VideoFlash/{}.flv", "audio": "AudioWAV/{}.wav", "audio_mp3": "AudioMP3/{}.mp3"}
EMOTIONS = ("ANG", "DIS", "FEA", "HAP", "NEU", "SAD")
# The parts of a clip's name in their order, and the values of each.
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
        AgmError: with the row numbers of all errors in them.
    """
    if CARD.scheme(dataset) == "actors":
        path = CARD.annotation(dataset, "sentences")
        names = ((row.number, [row["Filename"]]) for row in rows(path, ["Filename"]))
        return _clips(names, None, path, {}, dataset)
    seen: dict[str, str] = {}
    clips = []
    for split in ("train", "test"):
        path = CARD.annotation(dataset, f"ogm_{split}")
        clips += _clips(cells(path), split, path, seen, dataset)
    return clips


def _clips(
    table: Iterable[tuple[int, list[str]]], split: str | None, path: str, seen: dict[str, str], dataset: Dataset
) -> list[Clip]:
    """The clips of one list.

    Args:
        table: line number and cells of every row: the clip's name, and in the lists of OGM-GE its emotion.
        seen: name of each clip of earlier lists → where it is, for messages.
    """
    clips, problems = [], []
    for number, row in table:
        # The lists of OGM-GE repeat the emotion behind the name.
        name, *label = map(str.strip, row)
        errors = list(_errors(name, label, expected=0 if split is None else 1))
        if name in seen:
            errors.append(f"{name!r} is in {seen[name]} already")
        if errors:
            problems += located(f"row {number}", errors)
            continue
        seen[name] = f"row {number} of {path}"
        clips.append(_clip(name, split, number, dataset))
    refuse(problems, path, FIX)
    return clips


def _errors(name: str, label: list[str], expected: int) -> Iterator[str]:
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
    sources = {}
    for key, modality in dataset.modalities.items():
        path = FILES[modality.column].format(name)
        sources[key] = Source(path)
    return Clip(clip_id=name, split=split, label=emotion, group=actor, sources=sources, row=number)


ADAPTER = Adapter(clips, CARD)
