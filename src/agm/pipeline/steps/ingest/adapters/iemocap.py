"""IEMOCAP: utterances of acted dialogues between two people, with sound, picture and transcript.

The man of session 1 speaks the utterance `Ses01F_impro01_M003`; in the dialogue `Ses01F_impro01` the woman wears the
markers of the motion capture. The picture shows both people, the one with the markers on the left.
"""

import posixpath
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from agm.pipeline.config.schema import Dataset
from agm.pipeline.errors import AgmError
from agm.pipeline.io.source import Source
from agm.pipeline.steps.ingest.card import Card, Scheme
from agm.pipeline.steps.ingest.clip import Adapter, Clip, refuse
from agm.pipeline.steps.ingest.folders import files_in
from agm.pipeline.steps.ingest.table import FIX

SESSIONS = (1, 2, 3, 4, 5)
EMOTIONS = ("neu", "hap", "sad", "ang", "exc", "fru", "fea", "sur", "dis", "oth", "xxx")
FOUR = {"neu": "neu", "hap": "hap", "exc": "hap", "sad": "sad", "ang": "ang"}
TEN = {emotion: emotion for emotion in EMOTIONS if emotion != "xxx"}  # xxx: the annotators did not agree
EVALUATED = re.compile(
    r"\[\s*(?P<start>\d+(?:\.\d+)?)\s*-\s*(?P<end>\d+(?:\.\d+)?)\s*\]\s+(?P<name>\w+)\s+(?P<emotion>\w+)\s+\[[^\]]*\]"
)
NAME = re.compile(r"(?P<dialogue>Ses0(?P<session>[1-5])(?P<markers>[FM])_\w+)_(?P<speaker>[FM])\w*\d+")
SPOKEN = re.compile(r"(?P<name>Ses\w+)\s+\[[^\]]*\]:(?P<text>.*)")
MLA = re.compile(r"(?P<name>Ses\w+)\.\w+ \[split\|sign\] .*")


def _leave_out(session: int) -> Scheme:
    """The scheme that tests on one session."""
    counts = {1: 1085, 2: 1023, 3: 1151, 4: 1031, 5: 1241}
    test, val = counts.pop(session), counts.pop(_before(session))
    return Scheme(
        f"Test on session {session}, validation on session {_before(session)}: no speaker is in two splits.",
        {"train": sum(counts.values()), "val": val, "test": test},
    )


def _before(session: int) -> int:
    """The session before, or the last one for the first."""
    return session - 1 or len(SESSIONS)


CARD = Card(
    title="IEMOCAP: the Interactive Emotional Dyadic Motion Capture database",
    citation="C. Busso et al.: IEMOCAP: interactive emotional dyadic motion capture database. "
    "Language Resources and Evaluation 42(4), 2008",
    licence="by a release form of the University of Southern California, for research",
    source="https://sail.usc.edu/iemocap/iemocap_release.htm",
    layout="Session{1..5}/dialog/EmoEvaluation/<dialogue>.txt\n"
    "Session{1..5}/dialog/transcriptions/<dialogue>.txt\n"
    "Session{1..5}/dialog/avi/DivX/<dialogue>.avi\n"
    "Session{1..5}/sentences/wav/<dialogue>/<utterance>.wav",
    columns={
        "audio": "the utterance's sound (kind audio)",
        "video": "the half of the dialogue's picture that shows the speaker (kind video)",
        "video_both": "the whole picture, with both people (kind video)",
        "text": "the transcript (kind text)",
    },
    annotations={f"session{n}_labels": f"the folder Session{n}/dialog/EmoEvaluation" for n in SESSIONS}
    | {f"session{n}_words": f"the folder Session{n}/dialog/transcriptions" for n in SESSIONS}
    | {
        "mla_train": "data/my_train_iemo.txt of MLA's repository; for the scheme `mla` only",
        "mla_test": "data/my_test_iemo.txt of MLA's repository; for the scheme `mla` only",
    },
    schemes={f"session{n}": _leave_out(n) for n in (5, 1, 2, 3, 4)}
    | {
        "mla": Scheme(
            "MLA's lists, drawn over utterances: every speaker is in all splits. What is in neither list is validation."
        )
    },
    labels={
        "four": "neu, hap (with exc), sad and ang, as nearly everyone has it",
        "all": "the ten emotions as annotated; without the utterances that the annotators did not agree on",
    },
    group="session",
    classes=4,
)


@dataclass(frozen=True, slots=True)
class Utterance:
    """One evaluated utterance."""

    name: str
    session: int
    emotion: str
    start: float
    end: float
    row: int

    @property
    def dialogue(self) -> str:
        """The name of its dialogue."""
        return NAME.fullmatch(self.name)["dialogue"]

    @property
    def half(self) -> str:
        """The half of the picture that shows its speaker."""
        match = NAME.fullmatch(self.name)
        return "left" if match["speaker"] == match["markers"] else "right"


def clips(dataset: Dataset) -> list[Clip]:
    """Read the evaluations and the transcripts of the five sessions.

    Raises:
        AgmError: with the row numbers of all errors in them.
    """
    utterances: list[Utterance] = []
    words: dict[str, str] = {}
    for session in SESSIONS:
        utterances += _evaluated(dataset, session)
    split_of = _splits(dataset, utterances)
    label_of = FOUR if CARD.label(dataset) == "four" else TEN
    for session in SESSIONS:
        words.update(_spoken(dataset, session))
    clips = []
    for utterance in utterances:
        if utterance.emotion not in label_of:
            continue
        sources = {}
        for name, modality in dataset.modalities.items():
            source = _source(utterance, modality.column, words)
            if source is not None:
                sources[name] = source
        clip = Clip(
            clip_id=utterance.name,
            split=split_of[utterance.name],
            label=label_of[utterance.emotion],
            group=f"Session{utterance.session}",
            sources=sources,
            row=utterance.row,
        )
        clips.append(clip)
    return clips


def _source(utterance: Utterance, column: str, words: dict[str, str]) -> Source | None:
    """Where one modality of an utterance lies; None where it has no transcript."""
    folder = f"Session{utterance.session}"
    if column == "audio":
        return Source(posixpath.join(folder, "sentences/wav", utterance.dialogue, f"{utterance.name}.wav"))
    if column == "text":
        return Source(text=words[utterance.name]) if utterance.name in words else None
    path = posixpath.join(folder, "dialog/avi/DivX", f"{utterance.dialogue}.avi")
    half = utterance.half if column == "video" else None
    return Source(path, start=utterance.start, end=utterance.end, half=half)


def _evaluated(dataset: Dataset, session: int) -> Iterator[Utterance]:
    """Yield the utterances of one session, in the order of the dialogues."""
    folder = CARD.annotation(dataset, f"session{session}_labels")
    names: set[str] = set()
    for path in _texts(folder):
        problems = []
        for row, line in _lines(path):
            # Other lines are the header, and the votes of each annotator.
            if not line.startswith("["):
                continue
            utterance = _utterance(line, row, session, path.stem)
            if isinstance(utterance, str):
                problems.append(f"row {row}: {utterance}")
            elif utterance.name in names:
                problems.append(f"row {row}: the utterance {utterance.name} is there already")
            else:
                names.add(utterance.name)
                yield utterance
        refuse(problems, path, FIX)


def _utterance(line: str, row: int, session: int, dialogue: str) -> Utterance | str:
    """The utterance of one line, or the error in the line."""
    match = EVALUATED.fullmatch(line)
    if match is None:
        return f"not `[start - end] utterance emotion [valence, activation, dominance]`: {line[:60]!r}"
    name = NAME.fullmatch(match["name"])
    if name is None or name["dialogue"] != dialogue or int(name["session"]) != session:
        return f"{match['name']!r} is no utterance of the dialogue {dialogue} in session {session}"
    if match["emotion"] not in EMOTIONS:
        return f"emotion {match['emotion']!r} is not one of {', '.join(EMOTIONS)}"
    start, end = float(match["start"]), float(match["end"])
    if start >= end:
        return f"{match['name']} ends at {end:g} s, before it begins at {start:g} s"
    return Utterance(match["name"], session, match["emotion"], start, end, row)


def _spoken(dataset: Dataset, session: int) -> Iterator[tuple[str, str]]:
    """Yield name and words of every utterance of one session."""
    for path in _texts(CARD.annotation(dataset, f"session{session}_words")):
        for _, line in _lines(path):
            match = SPOKEN.fullmatch(line)
            # Where both people talk at once, lines have no name.
            if match:
                yield match["name"], match["text"].strip()


def _splits(dataset: Dataset, utterances: list[Utterance]) -> dict[str, str]:
    """The split of each utterance, by the chosen scheme."""
    scheme = CARD.scheme(dataset)
    if scheme != "mla":
        test = int(scheme.removeprefix("session"))
        held_out = {test: "test", _before(test): "val"}
        return {utterance.name: held_out.get(utterance.session, "train") for utterance in utterances}
    if CARD.label(dataset) != "four":
        fix = "choose another dataset.split.scheme"
        raise AgmError("MLA's lists have the four emotions only", where="dataset.label", fix=fix)
    split_of = dict.fromkeys((utterance.name for utterance in utterances), "val")
    train = _listed(dataset, "train", set(split_of))
    test = _listed(dataset, "test", set(split_of))
    split_of |= dict.fromkeys(test, "test")
    split_of |= dict.fromkeys(train, "train")  # last: an utterance in both lists is for training
    return split_of


def _listed(dataset: Dataset, half: str, names: set[str]) -> set[str]:
    """The utterances of one of MLA's lists."""
    path = Path(CARD.annotation(dataset, f"mla_{half}"))
    listed, problems = set(), []
    for row, line in _lines(path):
        match = MLA.fullmatch(line)
        if match is None:
            problems.append(
                f"row {row}: not `<utterance>.mp4 [split|sign] <words> [split|sign] <Emotion>`: {line[:60]!r}"
            )
        elif match["name"] not in names:
            problems.append(f"row {row}: no EmoEvaluation file has the utterance {match['name']}")
        else:
            listed.add(match["name"])
    refuse(problems, path, FIX)
    return listed


def _texts(folder: str) -> list[Path]:
    """The files of the dialogues, without folders beside them, and without the `._…` files of some archives."""
    names = [name for name in files_in(folder, "") if name.endswith(".txt") and not name.startswith(".")]
    return [Path(folder, name) for name in names]


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield number and text of every line that is not blank.

    Some remarks of annotators are not UTF-8. Of all that is read of the lines, only the words are beyond ASCII.
    """
    content = path.read_bytes()
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = content.decode("latin-1")
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield number, line.strip()


ADAPTER = Adapter(clips, CARD)
