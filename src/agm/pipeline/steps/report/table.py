"""A table of the report: rows of cells, ready to be shown on the page or printed as plain text."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Cell:
    """One field of a table.

    Attributes:
        text: what it says.
        note: smaller lines below it.
        method: the method whose colour marks the field.
        shade: strength of the background from 0 to 1; None for no background.
    """

    text: str
    note: str = ""
    method: str | None = None
    shade: float | None = None


@dataclass(frozen=True)
class Table:
    """A table; the first column names the rows, the others hold numbers unless they are among `words`."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    words: frozenset[int] = frozenset()
    foot: str = ""
    """Below the table in a terminal, where the page has smaller lines in the fields."""

    def plain(self) -> str:
        """The table as text for a terminal, without the smaller lines."""
        lines = [self.columns]
        # A terminal has no room for the notes.
        for row in self.rows:
            lines.append(tuple(cell.text for cell in row))
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        text = [self.title]
        for line in lines:
            text.append(f"  {self._aligned(line, widths)}")
        if self.foot:
            text.append(f"  {self.foot}")
        return "\n".join(text)

    def _aligned(self, line: tuple[str, ...], widths: list[int]) -> str:
        """One line: words start at the left of their column, numbers end at its right."""
        fields = []
        for place, (field, width) in enumerate(zip(line, widths, strict=True)):
            is_word = place == 0 or place in self.words
            fields.append(field.ljust(width) if is_word else field.rjust(width))
        return "  ".join(fields).rstrip()
