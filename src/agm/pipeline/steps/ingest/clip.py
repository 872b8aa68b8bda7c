"""One clip as the annotations describe it, and the interface of an adapter."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from agm.pipeline.config.schema import Dataset
from agm.pipeline.errors import AgmError, listed
from agm.pipeline.io.source import Source
from agm.pipeline.steps.ingest.card import Card

SHOWN = 10


@dataclass(frozen=True, slots=True)
class Clip:
    """One clip of the annotations.

    Attributes:
        split: one of `agm.pipeline.io.tables.SPLITS`, or None where the program draws the split.
        label: the class: a name, or an integer as canonical decimal digits.
        group: what must not be in two splits, for example a speaker; None where the data set names no groups.
        sources: where each modality lies; a modality that the clip lacks is absent.
        row: line of the annotation file, for messages.
        left_out: the reason why the clip is not used although the annotations have it; None for nearly all clips.
    """

    clip_id: str
    split: str | None
    label: str
    group: str | None
    sources: dict[str, Source]
    row: int
    left_out: str | None = None


@dataclass(frozen=True)
class Adapter:
    """The reader of one kind of raw folder.

    Attributes:
        clips: reads the annotations; raises AgmError with the row numbers of all errors in them.
        card: what is known about a published data set; None for a user's own data. Where a file of a published data
            set is missing, its clip is quarantined: downloads are never complete. In a user's own list it is an error.
        made_by: the command that makes the folder, or None for data that the user brings.
        unique: the number of last parts of a path that distinguish its file from all others of its kind, wherever a
            download is unpacked (`agm.pipeline.steps.ingest.locate`).
        stem: gives the official form of a file's name without its suffix, where downloads spell it in other ways.
        check_columns: reads the header of the annotations, and raises AgmError for a column that the configuration
            names and they lack; None where the configuration names no columns.
    """

    clips: Callable[[Dataset], list[Clip]]
    card: Card | None = None
    made_by: str | None = None
    unique: int = 1
    stem: Callable[[str], str] = str
    check_columns: Callable[[Dataset], None] | None = None


def located(place: str, errors: Iterable[str]) -> list[str]:
    """The errors with their place: 'row 3: the label is empty'."""
    return [f"{place}: {error}" for error in errors]


def refuse(problems: Sequence[str], where: object, fix: str) -> None:
    """Refuse annotations for all their problems at once; do nothing where there are none.

    Raises:
        AgmError: with the first problems and the number of the others.
    """
    if problems:
        raise AgmError(f"The annotations cannot be used:\n{listed(problems, SHOWN)}", where=where, fix=fix)
