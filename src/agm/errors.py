"""The exceptions that a person is meant to read, and how one lists much."""

from collections.abc import Sequence


class AgmError(Exception):
    """Something the user can put right.

    Args:
        what: what is wrong, in one sentence.
        where: the file, row or parameter concerned.
        fix: what to do about it.
    """

    def __init__(self, what: str, *, where: object = None, fix: str | None = None) -> None:
        self.what, self.where, self.fix = what, where, fix
        lines = [what]
        if where is not None:
            lines.append(f"  where: {where}")
        if fix is not None:
            lines.append(f"  fix:   {fix}")
        super().__init__("\n".join(lines))


class Stopped(Exception):
    """A command stopped because it was told to, with nothing lost.

    Args:
        what: what is kept, and how to go on.
        signal: the number of the signal.
    """

    def __init__(self, what: str, signal: int) -> None:
        self.signal = signal
        super().__init__(what)


def listed(problems: Sequence[str], most: int) -> str:
    """The first `most` problems, a line each, and the number of the others."""
    lines = [f"  {problem}" for problem in problems[:most]]
    if len(problems) > most:
        lines.append(f"  … and {len(problems) - most} more")
    return "\n".join(lines)
