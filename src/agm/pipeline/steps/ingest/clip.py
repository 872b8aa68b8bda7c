"""One clip as the annotations describe it, and what an adapter is."""

from collections.abc import Callable, Sequence
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
        split: one of `agm.pipeline.io.tables.SPLITS`, or None where the annotations leave it to the program.
        label: the class: a name, or an integer as canonical decimal digits.
        group: what should not be in two splits (a speaker, say); None where the data set names no groups.
        sources: where each modality lies; a modality that the clip lacks is absent.
        row: line of the annotation file, for messages.
        left_out: why the clip is not to be used although the annotations have it; None for nearly all.
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
    """How one kind of raw folder is read.

    Attributes:
        clips: reads the annotations; raises AgmError with row numbers for what is wrong with them.
        card: what is known about a published data set; None for anybody's own data. A file of a published data set
            that is not there quarantines its clip: downloads are never complete. In one's own list it is an error.
        made_by: the command that makes the folder, or None for data that the user brings.
        unique: how many of the last parts of a path tell its file from all others of its kind, wherever a download is
            unpacked (`agm.pipeline.steps.ingest.locate`).
        stem: the official form of a file's name without its suffix, where downloads spell it in other ways.
        check_columns: raises AgmError for a column that the configuration names and the annotations lack, by a look at
            their header; None where the configuration names none.
    """

    clips: Callable[[Dataset], list[Clip]]
    card: Card | None = None
    made_by: str | None = None
    unique: int = 1
    stem: Callable[[str], str] = str
    check_columns: Callable[[Dataset], None] | None = None


def refuse(problems: Sequence[str], where: object, fix: str) -> None:
    """Refuse annotations for all their problems at once; no problems, no error.

    Raises:
        AgmError: with the first problems and the number of the others.
    """
    if problems:
        raise AgmError(f"The annotations cannot be used:\n{listed(problems, SHOWN)}", where=where, fix=fix)
