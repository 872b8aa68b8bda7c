"""CMU-MOSEI: the sentiment of sentences from YouTube monologues. Two downloads, told apart by `dataset.annotations`.

`labels`, `folds`, `transcripts`: the raw data and the features of the CMU multimodal SDK. A label is of a video and an
interval; which segment that is, and with it the name of its file, says the line of the transcript with the same times.

`mmsa`: the form of MMSA, a file for each clip and one CSV.
"""

import ast
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from agm.pipeline.config.schema import Dataset
from agm.pipeline.errors import AgmError
from agm.pipeline.io import hdf5
from agm.pipeline.io.limits import Unusable
from agm.pipeline.io.source import Source
from agm.pipeline.steps.ingest.adapters.manifest import UNFIT
from agm.pipeline.steps.ingest.adapters.multibench import nonneg, posneg, seven
from agm.pipeline.steps.ingest.card import Card, Scheme
from agm.pipeline.steps.ingest.clip import Adapter, Clip, refuse
from agm.pipeline.steps.ingest.folders import files_in
from agm.pipeline.steps.ingest.table import FIX, lines, rows

FOLDS = {"standard_train_fold": "train", "standard_valid_fold": "val", "standard_test_fold": "test"}
MODES = {"train": "train", "valid": "val", "test": "test"}
SEQUENCES = {
    "glove": "CMU_MOSEI_TimestampedWordVectors.csd",
    "covarep": "CMU_MOSEI_COVAREP.csd",
    "openface": "CMU_MOSEI_VisualOpenFace2.csd",
    "facet": "CMU_MOSEI_VisualFacet42.csd",
}
# Labels and transcripts give the same times in other precision.
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
    """Read the labels, and with them either the folds and transcripts or nothing else.

    Raises:
        AgmError: with everything that is wrong with them.
    """
    return _of_mmsa(dataset) if "mmsa" in dataset.annotations else _of_sdk(dataset)


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
    found, problems, seen = [], [], {}
    for row in rows(path, ["video_id", "clip_id", "text", "label", "mode"]):
        clip_id = f"{row['video_id']}_{row['clip_id']}"
        value = _number(row["label"])
        wrong = list(_wrong(row["video_id"], row["clip_id"], value, row["label"]))
        if row["mode"] not in MODES:
            wrong.append(f"mode {row['mode']!r} is not one of {', '.join(MODES)}")
        if (first := seen.setdefault(clip_id, row.number)) != row.number:
            wrong.append(f"the clip {clip_id} is in row {first} already")
        problems += [f"row {row.number}: {each}" for each in wrong]
        if not wrong and (label := label_of(value)) is not None:
            sources = {
                "video": Source(f"Raw/{row['video_id']}/{row['clip_id']}.mp4"),
                "text": Source(text=row["text"]) if row["text"] else None,
            }
            there = {name: source for name, each in dataset.modalities.items() if (source := sources[each.column])}
            found.append(Clip(clip_id, MODES[row["mode"]], label, row["video_id"], there, row.number))
    refuse(problems, path, FIX)
    return found


def _wrong(video: str, clip: str, value: float | None, text: str) -> Iterator[str]:
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
    transcribed = {name.removesuffix(".txt") for name in files_in(folder, "") if name.endswith(".txt")}
    found: dict[str, Clip] = {}
    problems, row = [], 0
    for video, intervals, values in _labelled(path):
        segments = _segments(Path(folder, f"{video}.txt"), video) if video in transcribed else []
        for (start, end), value in zip(intervals.tolist(), values.tolist(), strict=True):
            row += 1
            wrong = list(_wrong(video, "0", value if math.isfinite(value) else None, str(value)))
            problems += [f"{video}, {start:g} to {end:g} s: {each}" for each in wrong]
            if not wrong and (label := label_of(value)) is not None:
                clip = _clip(video, start, end, segments, label, split_of.get(video), row, dataset)
                twice = clip.clip_id in found
                found[clip.clip_id] = replace(clip, left_out="it has two labels") if twice else clip
    refuse(problems, path, DOWNLOAD)
    return list(found.values())


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
    same = [each for each in segments if abs(each.start - start) <= NEAR and abs(each.end - end) <= NEAR]
    segment = min(same, key=lambda each: abs(each.start - start) + abs(each.end - end), default=None)
    reason = None
    if segment is None:
        reason = "no line of its video's transcript has the times of the label"
    elif split is None:
        reason = "its video is in none of the standard folds"
    return Clip(
        clip_id=f"{video}_{segment.name}" if segment else f"{video}-{start:.3f}",
        split=split,
        label=label,
        group=video,
        sources={
            name: _source(video, segment, modality.column)
            for name, modality in dataset.modalities.items()
            if segment is not None
        },
        row=row,
        left_out=reason,
    )


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
    """Of each video the intervals, [n, 2] in seconds, and the sentiments, [n]."""
    try:
        with hdf5.opened(path) as file:
            labels = hdf5.child(hdf5.only_child(file), "data")
            for video in labels:
                features, intervals = (
                    hdf5.numbers(hdf5.child(labels, f"{video}/{name}")).astype(np.float64)
                    for name in ("features", "intervals")
                )
                if features.ndim != 2 or intervals.shape != (len(features), 2):
                    raise ValueError(f"{video} has features {features.shape} and intervals {intervals.shape}")
                yield video, intervals, features[:, 0]
    except (OSError, RuntimeError, LookupError, TypeError, ValueError, AttributeError, Unusable) as error:
        raise AgmError(f"The labels are no file of the SDK, or damaged: {error}", where=path, fix=DOWNLOAD) from None


def _folds(path: str) -> dict[str, str]:
    """Video → split, from the lists in a Python file that is not run."""
    try:
        tree = ast.parse(Path(path).read_bytes())
        lists = {
            target.id: ast.literal_eval(node.value)
            for node in tree.body
            if isinstance(node, ast.Assign)
            for target in node.targets
            if isinstance(target, ast.Name) and target.id in FOLDS
        }
    except (SyntaxError, ValueError, TypeError, MemoryError, RecursionError) as error:
        raise AgmError(f"The folds are no lists of videos: {error}", where=path, fix=DOWNLOAD) from None
    found: dict[str, str] = {}
    for name, split in FOLDS.items():
        videos = lists.get(name)
        if not isinstance(videos, list | tuple) or not all(isinstance(video, str) for video in videos):
            raise AgmError(f"The file has no list of videos `{name}`", where=path, fix=DOWNLOAD)
        refuse([f"the video {video} is in two folds" for video in videos if video in found], path, DOWNLOAD)
        found |= dict.fromkeys(videos, split)
    return found


def _segments(path: Path, video: str) -> list[Segment]:
    """The lines of one transcript: `<video>___<segment>___<start>___<end>___<text>`."""
    found, problems = [], []
    for number, line in lines(str(path)):
        # A video's name may have underscores of its own.
        name, *parts = line.removeprefix(f"{video}___").split("___", 3)
        start, end = map(_number, parts[:2]) if len(parts) == 3 else (None, None)
        if start is None or end is None or not name.isalnum() or not line.startswith(f"{video}___"):
            problems.append(f"row {number}: not `{video}___<segment>___<start>___<end>___<text>`: {line[:60]!r}")
        else:
            found.append(Segment(name, max(0.0, start), end, parts[2].strip()))
    refuse(problems, path, FIX)
    return found


ADAPTER = Adapter(clips, CARD, unique=3)
