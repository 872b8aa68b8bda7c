"""MUStARD: is an utterance from a television series sarcastic? The data holds the utterances before it too."""

import json
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

from agm.pipeline.config.schema import Dataset
from agm.pipeline.errors import AgmError
from agm.pipeline.io import unpickle
from agm.pipeline.io.source import Source
from agm.pipeline.steps.ingest.adapters.manifest import UNFIT
from agm.pipeline.steps.ingest.card import Card, Scheme
from agm.pipeline.steps.ingest.clip import Adapter, Clip, located, refuse
from agm.pipeline.steps.ingest.table import text_of

FOLDS = 5
# The series that is the test split of the scheme `speakers`.
HELD_OUT = "FRIENDS"
# The keys of an entry whose values must be texts.
TEXTS = ("utterance", "speaker", "show")
LABELS = {True: "sarcastic", False: "not sarcastic"}
# Halves of characters, which JSON can spell.
SURROGATE = re.compile("[\ud800-\udfff]")
FIX = "correct these entries (they are counted from 1)"

CARD = Card(
    title="MUStARD: is an utterance from a television series sarcastic?",
    citation="S. Castro et al.: Towards Multimodal Sarcasm Detection (An Obviously Perfect Paper). ACL 2019",
    licence="MIT (of the repository); the videos are of television series",
    source="https://github.com/soujanyaporia/MUStARD, and mmsd_raw_data.zip that it names",
    layout="data/sarcasm_data.json\ndata/split_indices.p\nutterances_final/<id>.mp4\ncontext_final/<id>_c.mp4",
    columns={
        "video": "the utterance's file (kind video; kind audio for its sound)",
        "context_video": "the file of what comes before it (kind video; kind audio for its sound)",
        "text": "the utterance (kind text)",
        "context": "what is said before it (kind text)",
    },
    annotations={
        "clips": "data/sarcasm_data.json",
        "folds": "data/split_indices.p; for the schemes `fold1` to `fold5`",
    },
    schemes={
        "speakers": Scheme(
            "Friends is held out for the test, as in the authors' speaker-independent setting; validation is drawn "
            "from the other series. No speaker is in two splits.",
            {"train": 334, "test": 356},
        )
    }
    | {
        f"fold{number}": Scheme(
            f"Fold {number} of the authors' speaker-dependent cross-validation: speakers are in training and in test. "
            "Validation is drawn from training, whole speakers at a time.",
            {"train": 552, "test": 138},
        )
        for number in range(1, FOLDS + 1)
    },
    labels={"sarcasm": "sarcastic or not sarcastic"},
    group="speaker",
    classes=len(LABELS),
)


def clips(dataset: Dataset) -> list[Clip]:
    """Read the annotations, and the fold where the scheme is one.

    Raises:
        AgmError: with all errors in them.
    """
    path = CARD.annotation(dataset, "clips")
    entries = _entries(path)
    problems = []
    for row, (name, entry) in enumerate(entries, start=1):
        problems += located(f"entry {row} ({name[:60]!r})", _errors(name, entry))
    refuse(problems, path, FIX)
    clips = []
    for row, ((name, entry), split) in enumerate(zip(entries, _splits(dataset, entries), strict=True), start=1):
        clips.append(_clip(name, entry, split, row, dataset))
    return clips


def _entries(path: str) -> list[tuple[str, Any]]:
    """Id and content of every clip, in the order of the file: the folds count clips in this order."""
    try:
        content = json.loads(text_of(path), object_pairs_hook=_object)
    except (ValueError, RecursionError) as error:
        raise AgmError(f"The annotations are not JSON: {error}", where=path, fix="download the file again") from None
    if not isinstance(content, dict) or not content:
        raise AgmError("The annotations are no JSON object of clips", where=path, fix="download the file again")
    return list(content.items())


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object with each key once; Python alone would keep the last of several values."""
    content = dict(pairs)
    if len(content) < len(pairs):
        counts = Counter(name for name, _ in pairs)
        twice = [name for name in content if counts[name] > 1]
        raise ValueError(f"the key {twice[0]!r} is there twice")
    return content


def _errors(name: str, entry: Any) -> Iterator[str]:
    if not name or UNFIT.search(name) or SURROGATE.search(name) or name.startswith("."):
        yield "its id is not fit for a file name"
    if not isinstance(entry, dict):
        yield "it is no object"
        return
    for key in TEXTS:
        if not _is_text(entry.get(key)) or not entry[key].strip():
            yield f"{key} is no text"
    context = entry.get("context")
    if not isinstance(context, list) or not all(map(_is_text, context)):
        yield "context is no list of texts"
    if not isinstance(entry.get("sarcasm"), bool):
        yield "sarcasm is neither true nor false"


def _is_text(value: Any) -> bool:
    """Whether it is text, without the halves of characters that JSON can spell and tables cannot hold."""
    return isinstance(value, str) and not SURROGATE.search(value)


def _splits(dataset: Dataset, entries: list[tuple[str, Any]]) -> list[str]:
    """The split of each entry, by the chosen scheme."""
    scheme = CARD.scheme(dataset)
    if scheme == "speakers":
        return ["test" if entry["show"] == HELD_OUT else "train" for _, entry in entries]
    path = CARD.annotation(dataset, "folds")
    folds = unpickle.load(path)
    number = int(scheme.removeprefix("fold"))
    try:
        train_half, test_half = folds[number - 1]
        train = [int(index) for index in train_half]
        test = [int(index) for index in test_half]
    except (IndexError, KeyError, TypeError, ValueError):
        raise AgmError(f"The pickle has no fold {number} of two lists", where=path, fix="download it again") from None
    # Folds of another version of the annotations would give clips to the wrong split.
    if sorted(train + test) != list(range(len(entries))):
        raise AgmError(
            f"Fold {number} does not have each of the {len(entries)} clips once: {len(set(train))} to train on, "
            f"{len(set(test))} to test on",
            where=path,
            fix="take split_indices.p and sarcasm_data.json from one version of the repository",
        )
    splits = ["train"] * len(entries)
    for index in test:
        splits[index] = "test"
    return splits


def _clip(name: str, entry: dict[str, Any], split: str, row: int, dataset: Dataset) -> Clip:
    of_columns = {
        "video": Source(f"utterances_final/{name}.mp4"),
        "context_video": Source(f"context_final/{name}_c.mp4"),
        "text": Source(text=entry["utterance"].strip()),
    }
    context = " ".join(entry["context"]).strip()
    if context:
        of_columns["context"] = Source(text=context)
    sources = {}
    for key, modality in dataset.modalities.items():
        if modality.column in of_columns:
            sources[key] = of_columns[modality.column]
    return Clip(
        clip_id=name,
        split=split,
        label=LABELS[entry["sarcasm"]],
        # With the series: bystanders have one name ("PERSON") in every series.
        group=f"{entry['speaker'].strip()} ({entry['show'].strip()})",
        sources=sources,
        row=row,
    )


ADAPTER = Adapter(clips, CARD)
