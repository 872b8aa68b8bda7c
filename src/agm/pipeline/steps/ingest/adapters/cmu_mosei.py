"""CMU-MOSEI: the sentiment of sentences from YouTube monologues. `dataset.annotations` chooses one of two downloads.

`labels`, `folds`, `transcripts`: the raw data and the features of the CMU multimodal SDK. A label belongs to a video
and an interval. The line of the transcript with the same times gives the number of the segment, and with it the name of
its file.

`mmsa`: the form of MMSA, a file for each clip and one CSV.
"""

import ast
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from agm.pipeline.config.schema import Dataset
from agm.pipeline.errors import AgmError
from agm.pipeline.io import hdf5
from agm.pipeline.io.limits import Unusable
from agm.pipeline.io.source import Source
from agm.pipeline.steps.ingest.adapters.manifest import UNFIT
from agm.pipeline.steps.ingest.adapters.multibench import nonneg, posneg, seven
from agm.pipeline.steps.ingest.card import Card, Scheme
from agm.pipeline.steps.ingest.clip import Adapter, Clip, located, refuse
from agm.pipeline.steps.ingest.folders import files_in
from agm.pipeline.steps.ingest.table import FIX, Row, lines, rows

FOLDS = {"standard_train_fold": "train", "standard_valid_fold": "val", "standard_test_fold": "test"}
MODES = {"train": "train", "valid": "val", "test": "test"}
SEQUENCES = {
    "glove": "CMU_MOSEI_TimestampedWordVectors.csd",
    "covarep": "CMU_MOSEI_COVAREP.csd",
    "openface": "CMU_MOSEI_VisualOpenFace2.csd",
    "facet": "CMU_MOSEI_VisualFacet42.csd",
}
# Seconds. Labels and transcripts give the same times with different precision.
NEAR = 0.05
LABELS: dict[str, Callable[[float], str | None]] = {"nonneg": nonneg, "posneg": posneg, "seven": seven}
DOWNLOAD = "download it again: see `agm datasets cmu_mosei`"

CARD = Card(
    title="CMU-MOSEI: the sentiment of a spoken sentence, from -3 to 3",
    citation="A. Zadeh et al.: Multimodal Language Analysis in the Wild: CMU-MOSEI Dataset and Interpretable Dynamic "
    "Fusion Graph. ACL 2018",
    licence="as stated by the CMU Multimodal SDK, for research",
    source="https://github.com/CMU-MultiComp-Lab/CMU-MultimodalSDK, or MMSA's form: https://github.com/thuiar/MMSA",
    layout="CMU_MOSEI_Labels.csd and other .csd files of the SDK\n"
    "cmu_mosei_std_folds.py (from the SDK's source)\n"
    "Raw/Transcript/Segmented/Combined/<video>.txt\n"
    "Raw/Videos/Segmented/Combined/<video>_<segment>.mp4\n"
    "Raw/Videos/Full/Combined/<video>.mp4\n"
    "Raw/Audio/Full/WAV_16000/<video>.wav\n"
    "or, of MMSA: label.csv, Raw/<video>/<clip>.mp4",
    columns={
        "video": "the segment's file (kind video; kind audio for its sound)",
        "full_video": "its piece of Raw/Videos/Full/Combined/<video>.mp4 (kind video); not of MMSA",
        "audio": "its piece of Raw/Audio/Full/WAV_16000/<video>.wav (kind audio); not of MMSA",
        "text": "what is said (kind text)",
    }
    | {name: f"its steps in {file} (kind sequence); not of MMSA" for name, file in SEQUENCES.items()},
    annotations={
        "labels": "CMU_MOSEI_Labels.csd of the SDK",
        "folds": "mmsdk/mmdatasdk/dataset/standard_datasets/CMU_MOSEI/cmu_mosei_std_folds.py of the SDK",
        "transcripts": "the folder Raw/Transcript/Segmented/Combined",
        "mmsa": "label.csv of MMSA's form, in the place of the other three",
    },
    schemes={
        "official": Scheme(
            "The standard folds: no video is in two of them. Some people speak in several videos; who, is not known.",
            {"train": 16326, "val": 1871, "test": 4659},
        )
    },
    labels={
        "nonneg": "negative (below 0) or non-negative",
        "posneg": "negative (below 0) or positive (above 0); neutral sentences are not read",
        "seven": "rounded to a whole number from -3 to 3",
    },
    group="video",
    classes=2,
)


@dataclass(frozen=True, slots=True)
class Segment:
    """One line of a transcript."""

    name: str
    start: float
    end: float
    text: str


def clips(dataset: Dataset) -> list[Clip]:
    """Read the CSV of MMSA, or the labels, folds and transcripts of the SDK.

    Raises:
        AgmError: with all errors in them.
    """
    if "mmsa" in dataset.annotations:
        return _of_mmsa(dataset)
    return _of_sdk(dataset)


# --- the form of MMSA -----------------------------------------------------------------------------------------------


def _of_mmsa(dataset: Dataset) -> list[Clip]:
    path = CARD.annotation(dataset, "mmsa")
    for name, modality in dataset.modalities.items():
        if modality.column not in ("video", "text"):
            raise AgmError(
                f"dataset.modalities.{name}.column: MMSA's form has no {modality.column!r}",
                where="params.yaml",
                fix="there are: video, text",
            )
    label_of = LABELS[CARD.label(dataset)]
    clips: list[Clip] = []
    problems: list[str] = []
    first_row: dict[str, int] = {}
    for row in rows(path, ["video_id", "clip_id", "text", "label", "mode"]):
        clip_id = f"{row['video_id']}_{row['clip_id']}"
        value = _number(row["label"])
        errors = list(_errors(row["video_id"], row["clip_id"], value, row["label"]))
        if row["mode"] not in MODES:
            errors.append(f"mode {row['mode']!r} is not one of {', '.join(MODES)}")
        first = first_row.setdefault(clip_id, row.number)
        if first != row.number:
            errors.append(f"the clip {clip_id} is in row {first} already")
        if errors:
            problems += located(f"row {row.number}", errors)
            continue
        label = label_of(value)
        if label is not None:
            clips.append(Clip(clip_id, MODES[row["mode"]], label, row["video_id"], _of_row(row, dataset), row.number))
    refuse(problems, path, FIX)
    return clips


def _of_row(row: Row, dataset: Dataset) -> dict[str, Source]:
    """Where the modalities of one clip lie; an empty cell is a missing text."""
    sources = {}
    for name, modality in dataset.modalities.items():
        if modality.column == "video":
            sources[name] = Source(f"Raw/{row['video_id']}/{row['clip_id']}.mp4")
        elif row["text"]:
            sources[name] = Source(text=row["text"])
    return sources


def _errors(video: str, clip: str, value: float | None, text: str) -> Iterator[str]:
    for name in (video, clip):
        if not name or UNFIT.search(name) or name in (".", ".."):
            yield f"{name[:60]!r} is not fit for a file name"
    if value is None or abs(value) > 3:
        yield f"label {text[:60]!r} is no number from -3 to 3"


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


# --- the SDK --------------------------------------------------------------------------------------------------------


def _of_sdk(dataset: Dataset) -> list[Clip]:
    path = CARD.annotation(dataset, "labels")
    folder = CARD.annotation(dataset, "transcripts")
    split_of = _folds(CARD.annotation(dataset, "folds"))
    label_of = LABELS[CARD.label(dataset)]
    transcripts = set(files_in(folder, ""))
    clips: dict[str, Clip] = {}
    problems: list[str] = []
    row = 0
    for video, intervals, values in _labelled(path):
        transcript = f"{video}.txt"
        segments = _segments(Path(folder, transcript), video) if transcript in transcripts else []
        for (start, end), value in zip(intervals.tolist(), values.tolist(), strict=True):
            row += 1
            errors = list(_errors(video, "0", value if math.isfinite(value) else None, str(value)))
            if errors:
                problems += located(f"{video}, {start:g} to {end:g} s", errors)
                continue
            # Some labels leave out neutral sentences.
            label = label_of(value)
            if label is None:
                continue
            clip = _clip(video, start, end, segments, label, split_of.get(video), row, dataset)
            if clip.clip_id in clips:
                clip = replace(clip, left_out="it has two labels")
            clips[clip.clip_id] = clip
    refuse(problems, path, DOWNLOAD)
    return list(clips.values())


def _clip(
    video: str,
    start: float,
    end: float,
    segments: list[Segment],
    label: str,
    split: str | None,
    row: int,
    dataset: Dataset,
) -> Clip:
    segment = _nearest(segments, start, end)
    if segment is None:
        reason = "no line of its video's transcript has the times of the label"
        return Clip(f"{video}-{start:.3f}", split, label, video, {}, row, left_out=reason)
    reason = "its video is in none of the standard folds" if split is None else None
    sources = {name: _source(video, segment, modality.column) for name, modality in dataset.modalities.items()}
    return Clip(f"{video}_{segment.name}", split, label, video, sources, row, left_out=reason)


def _nearest(segments: list[Segment], start: float, end: float) -> Segment | None:
    """The segment whose times are nearest to those of a label; None where no segment has the same times."""
    nearest = None
    shortest = math.inf
    for segment in segments:
        late_start, late_end = abs(segment.start - start), abs(segment.end - end)
        if late_start <= NEAR and late_end <= NEAR and late_start + late_end < shortest:
            nearest, shortest = segment, late_start + late_end
    return nearest


def _source(video: str, segment: Segment, column: str) -> Source:
    piece = {"start": segment.start, "end": segment.end}
    match column:
        case "video":
            return Source(f"Raw/Videos/Segmented/Combined/{video}_{segment.name}.mp4")
        case "full_video":
            return Source(f"Raw/Videos/Full/Combined/{video}.mp4", **piece)
        case "audio":
            return Source(f"Raw/Audio/Full/WAV_16000/{video}.wav", **piece)
        case "text":
            return Source(text=segment.text)
        case _:
            return Source(SEQUENCES[column], member=video, **piece)


def _labelled(path: str) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Yield each video, its intervals, [n, 2] in seconds, and its sentiments, [n]."""
    try:
        with hdf5.opened(path) as file:
            labels = hdf5.child(hdf5.only_child(file), "data")
            for video in labels:
                features = hdf5.numbers(hdf5.child(labels, f"{video}/features")).astype(np.float64)
                intervals = hdf5.numbers(hdf5.child(labels, f"{video}/intervals")).astype(np.float64)
                if features.ndim != 2 or intervals.shape != (len(features), 2):
                    raise ValueError(f"{video} has features {features.shape} and intervals {intervals.shape}")
                # The first number is the sentiment, the others are emotions.
                yield video, intervals, features[:, 0]
    except (OSError, RuntimeError, LookupError, TypeError, ValueError, AttributeError, Unusable) as error:
        raise AgmError(f"The labels are no file of the SDK, or damaged: {error}", where=path, fix=DOWNLOAD) from None


def _folds(path: str) -> dict[str, str]:
    """Video → split, from the lists in a Python file that is not run."""
    lists: dict[str, Any] = {}
    try:
        for node in ast.parse(Path(path).read_bytes()).body:
            for target in node.targets if isinstance(node, ast.Assign) else ():
                if isinstance(target, ast.Name) and target.id in FOLDS:
                    lists[target.id] = ast.literal_eval(node.value)
    except (SyntaxError, ValueError, TypeError, MemoryError, RecursionError) as error:
        raise AgmError(f"The folds are no lists of videos: {error}", where=path, fix=DOWNLOAD) from None
    split_of: dict[str, str] = {}
    for name, split in FOLDS.items():
        videos = lists.get(name)
        if not isinstance(videos, list | tuple) or not all(isinstance(video, str) for video in videos):
            raise AgmError(f"The file has no list of videos `{name}`", where=path, fix=DOWNLOAD)
        refuse([f"the video {video} is in two folds" for video in videos if video in split_of], path, DOWNLOAD)
        split_of |= dict.fromkeys(videos, split)
    return split_of


def _segments(path: Path, video: str) -> list[Segment]:
    """The lines of one transcript: `<video>___<segment>___<start>___<end>___<text>`."""
    segments, problems = [], []
    for number, line in lines(str(path)):
        segment = _segment(line, f"{video}___")
        if segment is None:
            problems.append(f"row {number}: not `{video}___<segment>___<start>___<end>___<text>`: {line[:60]!r}")
        else:
            segments.append(segment)
    refuse(problems, path, FIX)
    return segments


def _segment(line: str, prefix: str) -> Segment | None:
    """The segment of one line; None where the line has another form."""
    # The prefix is removed first: the name of a video may have underscores of its own.
    if not line.startswith(prefix):
        return None
    parts = line.removeprefix(prefix).split("___", 3)
    if len(parts) != 4:
        return None
    name, start, end, text = parts[0], _number(parts[1]), _number(parts[2]), parts[3]
    if start is None or end is None or not name.isalnum():
        return None
    # A piece of a file cannot begin before the file.
    return Segment(name, max(0.0, start), end, text.strip())


ADAPTER = Adapter(clips, CARD, unique=3)
