"""The exceptions that a person is meant to read, and words that several messages share."""

import os
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from pathlib import Path

from agm.extras import MissingExtra


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


def of_system(error: OSError) -> AgmError:
    """An error of the system in our words; of a file that may not be written to, whose it is."""
    where, fix = Path(error.filename or Path.cwd()), None
    if isinstance(error, PermissionError):
        there = next(path for path in (where, *where.absolute().parents) if os.path.exists(path))
        fix = f"{there} belongs to the user {_owner(there)}"
        if there.absolute().is_relative_to(Path.cwd()):
            fix += ", who shares this project by `chmod -R g+w .`, and by `umask 002` before each command"
    return AgmError(f"cannot read or write: {error.strerror or error}", where=where, fix=fix)


def of_extra(error: MissingExtra) -> AgmError:
    """The error of a package that is not installed, as other errors are shown."""
    return AgmError(error.what, where=error.where, fix=error.fix)


def _owner(path: Path) -> str:
    try:
        return path.owner()
    except KeyError:  # a user of another machine
        return str(path.stat().st_uid)


def meant(name: str, known: Iterable[str], prefix: str = "") -> str:
    """What a message says behind an unknown name: the known one that is most alike, if any is, behind `prefix`."""
    alike = get_close_matches(name, known, n=1)
    return f" (did you mean {prefix + alike[0]!r}?)" if alike else ""
