"""The streams of a command: any of them may be closed, a pipe that nobody reads, or in another encoding than UTF-8."""

import os
import re
import sys
from typing import TextIO

# Signs that act on a terminal instead of being shown: escapes, carriage returns, changes of the writing direction; and
# halves of a sign, which stand for bytes of a file name that are no text. Line ends and tabs are left.
ACTING = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def harmless(text: str) -> str:
    r"""The text with each sign that would act on a terminal spelled out, such as \x1b."""
    return ACTING.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def prepare_streams() -> None:
    """Open the standard streams that the caller closed, and let no sign be one that they cannot take."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # The lowest number that is free, so this one. Else the next file to be opened would get it, and what any
            # library writes to the stream.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    if sys.stdout is None:
        sys.stdout = os.fdopen(1, "w", encoding="utf-8", closefd=False)
    if sys.stderr is None:
        sys.stderr = os.fdopen(2, "w", encoding="utf-8", closefd=False)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")


def silence(stream: TextIO) -> None:
    """Let what is written to a stream go nowhere from now on, what is still in its buffer too."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)
