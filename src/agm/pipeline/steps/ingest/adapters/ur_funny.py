"""UR-FUNNY: is a punchline of a talk funny? The official raw videos and word-aligned features.

The features are word by word: OpenFace and COVAREP in a pickle of their own, GloVe as numbers of rows of one list.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from agm.pipeline.config.schema import Dataset
from agm.pipeline.errors import AgmError
from agm.pipeline.io import unpickle
from agm.pipeline.io.source import Source
from agm.pipeline.steps.ingest.card import Card, Scheme
from agm.pipeline.steps.ingest.clip import Adapter, Clip, refuse

SPLITS = {"train": "train", "dev": "val", "test": "test"}
LABELS = (0, 1)
FIX = "download the pickle again: see `agm datasets ur_funny`"

CARD = Card(
    title="UR-FUNNY: is a punchline funny (1) or not (0)?",
    citation="M. K. Hasan et al.: UR-FUNNY: A Multimodal Language Dataset for Understanding Humor. EMNLP-IJCNLP 2019",
    licence="none stated; the videos are TED talks",
    source="https://github.com/ROC-HCI/UR-FUNNY: raw videos and extracted features of version 2",
    layout="data_folds.pkl\n"
    "humor_label_sdk.pkl\n"
    "language_sdk.pkl\n"
    "word_embedding_list.pkl\n"
    "openface_features_sdk.pkl\n"
    "covarep_features_sdk.pkl\n"
    "urfunny2_videos/<id>.mp4",
    columns={
        "video": "the punchline's video (kind video; kind audio for its sound)",
        "text": "the punchline (kind text)",
        "context": "the sentences before it (kind text)",
        "openface": "371 numbers about the face for each word of the punchline (kind sequence)",
        "covarep": "81 numbers about the sound of each word of the punchline (kind sequence)",
        "glove": "300 numbers, the GloVe vector, for each word of the punchline (kind sequence)",
    },
    annotations={
        "folds": "data_folds.pkl",
        "labels": "humor_label_sdk.pkl",
        "language": "language_sdk.pkl; for the columns text, context and glove only",
    },
    schemes={"official": Scheme("The authors' train, dev and test: no speaker is in two of them, as they say.")},
    labels={"humor": "1 where the audience laughs, 0 where it does not"},
    group=None,
    classes=2,
)


def clips(dataset: Dataset) -> list[Clip]:
    """Read the folds, the labels and, where a modality needs it, what is said.

    Raises:
        AgmError: with everything that is wrong with them.
    """
    labels = _mapping(dataset, "labels")
    columns = {name: modality.column for name, modality in dataset.modalities.items()}
    spoken = _mapping(dataset, "language") if {"text", "context", "glove"} & set(columns.values()) else {}
    found, problems, seen = [], [], set()
    for row, (split, name) in enumerate(_folds(dataset), start=1):
        wrong = list(_wrong(name, labels, seen))
        problems += [f"{split}: {each}" for each in wrong]
        seen.add(str(name))
        if not wrong:
            sources = {key: _source(str(name), column, spoken.get(name)) for key, column in columns.items()}
            there = {key: source for key, source in sources.items() if source is not None}
            found.append(Clip(str(name), SPLITS[split], str(int(labels[name])), None, there, row))
    refuse(problems, CARD.annotation(dataset, "folds"), FIX)
    return found


def _folds(dataset: Dataset) -> Iterator[tuple[str, Any]]:
    """Split and id of every clip."""
    folds = _mapping(dataset, "folds")
    for split in SPLITS:
        if not isinstance(folds.get(split), list | tuple):
            path = CARD.annotation(dataset, "folds")
            raise AgmError(f"The pickle has no list of ids under {split!r}", where=path, fix=FIX)
        yield from ((split, name) for name in folds[split])


def _mapping(dataset: Dataset, key: str) -> dict[Any, Any]:
    path = CARD.annotation(dataset, key)
    found = unpickle.load(path)
    if not isinstance(found, dict):
        raise AgmError(f"The pickle holds a {type(found).__name__}, not a dict", where=path, fix=FIX)
    return found


def _wrong(name: Any, labels: Mapping[Any, Any], seen: set[str]) -> Iterator[str]:
    if isinstance(name, bool) or not isinstance(name, int | str) or not str(name).replace("_", "").isalnum():
        yield f"{str(name)[:60]!r} is no id"
    elif str(name) in seen:
        yield f"the id {name!r} is there already"
    elif name not in labels:
        yield f"the id {name!r} has no label in humor_label_sdk.pkl"
    elif isinstance(labels[name], list | tuple | dict) or labels[name] not in LABELS:
        yield f"the id {name!r} has the label {str(labels[name])[:60]!r}, not 0 or 1"


def _source(name: str, column: str, spoken: Any) -> Source | None:
    """Where the modality lies; None where language_sdk.pkl lacks it."""
    match column:
        case "video":
            return Source(f"urfunny2_videos/{name}.mp4")
        case "openface" | "covarep":
            return Source(f"{column}_features_sdk.pkl", member=f"{name}/punchline_features")
        case "glove":
            indexes = _of(spoken, "punchline_embedding_indexes")
            rows = [str(int(index)) for index in indexes] if _whole(indexes) else []
            return Source("word_embedding_list.pkl", member=",".join([*rows, ""])) if rows else None
        case "text":
            sentence = _joined(_of(spoken, "punchline_sentence"))
        case "context":
            sentence = _joined(_of(spoken, "context_sentences"))
    return Source(text=sentence) if sentence else None


def _of(spoken: Any, key: str) -> Any:
    return spoken.get(key) if isinstance(spoken, dict) else None


def _whole(indexes: Any) -> bool:
    return isinstance(indexes, list | tuple) and all(isinstance(each, int | float) and each >= 0 for each in indexes)


def _joined(sentences: Any) -> str:
    """A sentence, or the words or sentences of a list of lists, in order."""
    if isinstance(sentences, list | tuple):
        return " ".join(filter(None, map(_joined, sentences)))
    return sentences.encode(errors="replace").decode() if isinstance(sentences, str) else ""


ADAPTER = Adapter(clips, CARD)
