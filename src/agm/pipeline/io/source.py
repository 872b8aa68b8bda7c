"""Where one modality of one clip lies: a file, a part of a file, or a text of the annotations."""

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import polars as pl

from agm.pipeline.errors import AgmError


@dataclass(frozen=True, slots=True)
class Source:
    """Where one modality of one clip lies.

    Attributes:
        path: the file, relative to the data set's root; None for a text that the annotations hold.
        stream: index of the stream in a video or sound file; known after the file was probed.
        member: the part of a file that holds many clips (`agm.pipeline.io.packed`): the row of an array in a .npy
            file, a path of keys in an HDF5 file or a pickle.
        start: seconds from the beginning of the file's earliest stream to that of the clip; None where both are equal.
        end: seconds from there to the end of the clip; None for the file's end.
        half: "left" or "right": the half of the shown picture that shows the clip; None for all of it.
        text: the text, where the annotations hold it.
        identity: what distinguishes the file's content from any other (`agm.pipeline.steps.ingest.raw`); known after
            the files were listed.
    """

    path: str | None = None
    stream: int | None = None
    member: str | None = None
    start: float | None = None
    end: float | None = None
    half: str | None = None
    text: str | None = None
    identity: str | None = None

    @property
    def key(self) -> str:
        """JSON that is equal for two sources if and only if they are the same, with the same content."""
        fields = asdict(self)
        if self.text is not None:
            # A text may be long; its checksum serves as well.
            fields["text"] = hashlib.sha256(self.text.encode()).hexdigest()
        return json.dumps(fields)

    def below(self, root: str | Path) -> "Source":
        """The same with the file's path below `root`.

        Raises:
            AgmError: when the path leads out of it: `agm list` accepts none, so something else wrote the table.
        """
        if self.path is None:
            return self
        if outside(self.path):
            raise AgmError(f"A path leaves the data set's folder: {self.path!r}", where=root, fix="run `agm list`")
        return replace(self, path=str(Path(root, self.path)))


def outside(path: str) -> bool:
    """Whether a path, joined to a folder, can lead out of that folder or be no path at all; links are not followed."""
    return path.startswith("/") or ".." in path.split("/") or "\0" in path


STRUCT = pl.Struct(
    {
        "path": pl.String,
        "stream": pl.Int64,
        "member": pl.String,
        "start": pl.Float64,
        "end": pl.Float64,
        "half": pl.String,
        "text": pl.String,
        "identity": pl.String,
    }
)
"""A `Source` in a table: the type of a column that is named after its modality."""
