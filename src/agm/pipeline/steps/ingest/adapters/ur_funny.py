"""UR-FUNNY: is a punchline of a talk funny? The official raw videos and word-aligned features.

There is a vector of features for each word: OpenFace and COVAREP have a pickle each, and GloVe is stored as numbers of
rows of one list.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from agm.pipeline.config.schema import Dataset
from agm.pipeline.errors import AgmError
from agm.pipeline.io import unpickle
from agm.pipeline.io.source import Source
from agm.pipeline.steps.ingest.card import Card, Scheme
from agm.pipeline.steps.ingest.clip import Adapter, Clip, located, refuse

# Name in the pickle → split.
SPLITS = {"train": "train", "dev": "val", "test": "test"}
SPOKEN = {"text", "context", "glove"}
"""The columns that language_sdk.pkl holds."""
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
    """Read the folds, the labels and, where a modality needs it, the spoken words.

    Raises:
        AgmError: with all errors in them.
    """
    labels = _mapping(dataset, "labels")
    columns = {name: modality.column for name, modality in dataset.modalities.items()}
    needs_words = not SPOKEN.isdisjoint(columns.values())
    spoken = _mapping(dataset, "language") if needs_words else {}
    clips: list[Clip] = []
    problems: list[str] = []
    seen: set[str] = set()
    for row, (split, name) in enumerate(_folds(dataset), start=1):
        errors = list(_errors(name, labels, seen))
        seen.add(str(name))
        if errors:
            problems += located(split, errors)
            continue
        sources = {}
        for key, column in columns.items():
            source = _source(str(name), column, spoken.get(name))
            if source is not None:
                sources[key] = source
        clips.append(Clip(str(name), SPLITS[split], str(int(labels[name])), None, sources, row))
    refuse(problems, CARD.annotation(dataset, "folds"), FIX)
    return clips


def _folds(dataset: Dataset) -> Iterator[tuple[str, Any]]:
    """Yield split and id of every clip."""
    folds = _mapping(dataset, "folds")
    for split in SPLITS:
        names = folds.get(split)
        if not isinstance(names, list | tuple):
            path = CARD.annotation(dataset, "folds")
            raise AgmError(f"The pickle has no list of ids under {split!r}", where=path, fix=FIX)
        for name in names:
            yield split, name


def _mapping(dataset: Dataset, key: str) -> dict[Any, Any]:
    """The dictionary in one of the pickles."""
    path = CARD.annotation(dataset, key)
    content = unpickle.load(path)
    if not isinstance(content, dict):
        raise AgmError(f"The pickle holds a {type(content).__name__}, not a dict", where=path, fix=FIX)
    return content


def _errors(name: Any, labels: Mapping[Any, Any], seen: set[str]) -> Iterator[str]:
    if isinstance(name, bool) or not isinstance(name, int | str) or not str(name).replace("_", "").isalnum():
        yield f"{str(name)[:60]!r} is no id"
    elif str(name) in seen:
        yield f"the id {name!r} is there already"
    elif name not in labels:
        yield f"the id {name!r} has no label in humor_label_sdk.pkl"
    elif isinstance(labels[name], list | tuple | dict) or labels[name] not in LABELS:
        yield f"the id {name!r} has the label {str(labels[name])[:60]!r}, not 0 or 1"


def _source(name: str, column: str, spoken: Any) -> Source | None:
    """Where the modality lies; None where language_sdk.pkl lacks it.

    Args:
        spoken: the entry of the clip in language_sdk.pkl, which may be anything.
    """
    sentence = ""
    match column:
        case "video":
            return Source(f"urfunny2_videos/{name}.mp4")
        case "openface" | "covarep":
            return Source(f"{column}_features_sdk.pkl", member=f"{name}/punchline_features")
        case "glove":
            return _vectors(_of(spoken, "punchline_embedding_indexes"))
        case "text":
            sentence = _joined(_of(spoken, "punchline_sentence"))
        case "context":
            sentence = _joined(_of(spoken, "context_sentences"))
    return Source(text=sentence) if sentence else None


def _of(spoken: Any, key: str) -> Any:
    return spoken.get(key) if isinstance(spoken, dict) else None


def _vectors(indexes: Any) -> Source | None:
    """The word vectors at these places of the list; None where they are no places, or none."""
    if not isinstance(indexes, list | tuple) or not indexes:
        return None
    member = ""
    for index in indexes:
        if not (isinstance(index, int | float) and index >= 0):  # NaN too is no place
            return None
        # The comma behind the last number makes a single one a list too.
        member += f"{int(index)},"
    return Source("word_embedding_list.pkl", member=member)


def _joined(sentences: Any) -> str:
    """A sentence, or the words or sentences of a list of lists, in order."""
    if isinstance(sentences, list | tuple):
        return " ".join(filter(None, map(_joined, sentences)))
    if isinstance(sentences, str):
        # Tables hold UTF-8 only, and a pickle may hold halves of characters.
        return sentences.encode(errors="replace").decode()
    return ""


ADAPTER = Adapter(clips, CARD)
