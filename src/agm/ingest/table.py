"""Read annotation files: any line ends, quoted fields, a byte order mark or none; UTF-8 only."""

import csv
import io
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from agm.errors import AgmError
from agm.ingest.clip import refuse

FIX = "correct these rows (a row's number is its line in the file; the header is row 1)"


class Row(dict[str, str]):
    """One row: column → cell without the spaces around it; `number` is the line on which it begins."""

    number: int


def rows(path: str, required: Sequence[str]) -> Iterator[Row]:
    """Yield the rows below the header; empty lines are passed over.

    Raises:
        AgmError: when the file is not a UTF-8 CSV, lacks a required column or any row, or (after the last row) for
            rows with too many or too few cells.
    """
    lines = cells(path)
    _, header = next(lines, (1, []))
    header = [name.strip() for name in header]
    _check_header(header, required, path)
    empty, problems = True, []
    for number, found in lines:
        empty = False
        if len(found) != len(header):
            problems.append(f"row {number}: it has {len(found)} cells, the header has {len(header)}")
            continue
        row = Row(zip(header, map(str.strip, found), strict=True))
        row.number = number
        yield row
    refuse(problems, path, FIX)
    if empty:
        raise AgmError("The annotations have no rows", where=path, fix="add one row for each clip below the header")


def text_of(path: str) -> str:
    """The text of a UTF-8 file, without a byte order mark.

    Raises:
        AgmError: with the row that is not UTF-8.
    """
    try:
        return Path(path).read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        byte = error.object[error.start]
        raise AgmError(
            f"The annotations are not UTF-8: row {line} has the byte {byte:#04x}",
            where=path,
            fix="save the file as UTF-8",
        ) from None


def lines(path: str) -> Iterator[tuple[int, str]]:
    """Number and text of every line that is not blank, without the spaces around it.

    Raises:
        AgmError: with the row that is not UTF-8.
    """
    for number, line in enumerate(io.StringIO(text_of(path)), start=1):
        if line.strip():
            yield number, line.strip()


def cells(path: str) -> Iterator[tuple[int, list[str]]]:
    """Line number and cells of every line of a CSV that is not empty, the header included if there is one.

    Raises:
        AgmError: with the row that is not UTF-8, or not CSV.
    """
    reader = csv.reader(io.StringIO(text_of(path), newline=""), strict=True)
    start = 1
    try:
        for found in reader:
            if found:
                yield start, found
            start = reader.line_num + 1
    except csv.Error as error:
        raise AgmError(f"The annotations are not a CSV: row {start}: {error}", where=path, fix=FIX) from None


def _check_header(header: list[str], required: Sequence[str], path: str) -> None:
    if twice := [name for name, count in Counter(header).items() if count > 1 and name]:
        raise AgmError(f"Row 1 names a column twice: {', '.join(twice)}", where=path, fix="rename one of them")
    if missing := [name for name in required if name not in header]:
        raise AgmError(
            f"Row 1 lacks the column {', '.join(map(repr, missing))}; it has {', '.join(map(repr, header)) or 'none'}",
            where=path,
            fix="add it, or name the right columns in dataset.modalities.<name>.column and dataset.group",
        )
