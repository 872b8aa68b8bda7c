"""Read annotation files: any line ends, quoted fields, UTF-8 or the encoding that a byte order mark names.

A table with a header may have commas, semicolons, tabs or bars between its cells. The delimiter that gives the required
columns is used, and a message names it where it is not the comma. Rows of blank cells, which table programs leave, are
skipped.
"""

import csv
import io
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from agm.pipeline.errors import AgmError
from agm.pipeline.io.encoding import as_text, encoding_of
from agm.pipeline.runtime.progress import say
from agm.pipeline.steps.ingest.clip import refuse

DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
# A cell may be as long as the memory allows: `dataset.limits.text_bytes` limits texts, and other columns are not read.
csv.field_size_limit(2**31 - 1)
FIX = "correct these rows (a row's number is its line in the file; the header is row 1)"


class Row(dict[str, str]):
    """One row: column → cell without the spaces around it; `number` is the line where it begins."""

    number: int


def rows(path: str, required: Sequence[str]) -> Iterator[Row]:
    """Yield the rows below the header; rows of blank cells are skipped.

    Raises:
        AgmError: when the file is not a CSV in a known encoding, lacks a required column or has no row, or (after the
            last row) for rows with too many or too few cells.
    """
    delimiter, encoding = _form(path, required)
    if (delimiter, encoding) != (",", "UTF-8"):
        say(f"{path} is read as {encoding} with {DELIMITERS[delimiter]} between the cells")
    lines = cells(path, delimiter)
    header = _header(lines)
    _check_names(header, required, path, delimiter)
    empty = True
    problems = []
    for number, values in lines:
        empty = False
        if len(values) != len(header):
            problems.append(f"row {number}: it has {len(values)} cells, the header has {len(header)}")
            continue
        row = Row(zip(header, map(str.strip, values), strict=True))
        row.number = number
        yield row
    refuse(problems, path, FIX)
    if empty:
        raise AgmError("The annotations have no rows", where=path, fix="add one row for each clip below the header")


def check_header(path: str, required: Sequence[str]) -> None:
    """Refuse a table without one of the `required` columns.

    Raises:
        AgmError: as `rows` does for the header.
    """
    delimiter, _ = _form(path, required)
    _check_names(_header(cells(path, delimiter)), required, path, delimiter)


def _form(path: str, required: Sequence[str]) -> tuple[str, str]:
    """The first delimiter that gives the header all required columns, or else the comma; and the encoding."""
    _, encoding = encoding_of(_bytes(path))
    for delimiter in DELIMITERS:
        try:
            header = _header(cells(path, delimiter))
        except AgmError:  # a header in quotes is no CSV when read with the wrong delimiter
            continue
        # The order of the columns is free, and others may stand between them.
        if set(required) <= set(header):
            return delimiter, encoding
    return ",", encoding


def _header(lines: Iterator[tuple[int, list[str]]]) -> list[str]:
    """The names of the columns."""
    _, header = next(lines, (1, []))
    return [name.strip() for name in header]


def text_of(path: str) -> str:
    """The text of a file in UTF-8, or in the encoding that its byte order mark names, without the mark.

    Raises:
        AgmError: with the row that is not in that encoding.
    """
    content = _bytes(path)
    try:
        return as_text(content)
    except UnicodeDecodeError as error:
        _, encoding = encoding_of(content)
        row = content.count(b"\n", 0, error.start) + 1
        what = f"The annotations are not {encoding}: row {row} has the byte {content[error.start]:#04x}"
        raise AgmError(what, where=path, fix="save the file as UTF-8") from None


def _bytes(path: str) -> bytes:
    return Path(path).read_bytes()


def lines(path: str) -> Iterator[tuple[int, str]]:
    """Yield number and text of every line that is not blank, without the spaces around it.

    Raises:
        AgmError: with the row that is not UTF-8.
    """
    for number, line in enumerate(io.StringIO(text_of(path)), start=1):
        if line.strip():
            yield number, line.strip()


def cells(path: str, delimiter: str = ",") -> Iterator[tuple[int, list[str]]]:
    """Yield line number and cells of every row of a CSV, the header included; rows of blank cells are skipped.

    Raises:
        AgmError: with the row that is not UTF-8, or not CSV.
    """
    text = text_of(path)
    place = text.find("\0")
    if place >= 0:
        row = text.count("\n", 0, place) + 1
        what = f"The annotations are not a CSV: row {row} has a NUL character"
        fix = "save the file as UTF-8; UTF-16 without a byte order mark has many of them"
        raise AgmError(what, where=path, fix=fix)
    reader = csv.reader(io.StringIO(text, newline=""), strict=True, delimiter=delimiter)
    # A quoted cell may hold line ends: the row is named by the line where it begins.
    start = 1
    try:
        for values in reader:
            if any(cell.strip() for cell in values):
                yield start, values
            start = reader.line_num + 1
    except csv.Error as error:
        raise AgmError(f"The annotations are not a CSV: row {start}: {error}", where=path, fix=FIX) from None


def _check_names(header: list[str], required: Sequence[str], path: str, delimiter: str) -> None:
    """Refuse a header with a name twice, or without one of the `required` columns."""
    twice = [name for name, count in Counter(header).items() if count > 1 and name]
    if twice:
        raise AgmError(f"Row 1 names a column twice: {', '.join(twice)}", where=path, fix="rename one of them")
    missing = [repr(name) for name in required if name not in header]
    if missing:
        _, encoding = encoding_of(_bytes(path))
        present = ", ".join(map(repr, header)) or "none"
        raise AgmError(
            f"Row 1 lacks the column {', '.join(missing)}; it has {present}, read as {encoding} with "
            f"{DELIMITERS[delimiter]} between the cells",
            where=path,
            fix="add it, or name the right columns in dataset.modalities.<name>.column and dataset.group",
        )
