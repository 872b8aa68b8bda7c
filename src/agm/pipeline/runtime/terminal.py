"""The streams of a command: each may be closed, a pipe that no process reads, or in another encoding than UTF-8."""

import os
import re
import sys
from typing import TextIO

# Characters that act on a terminal instead of being shown: escapes, carriage returns, changes of the writing direction;
# and surrogates, which stand for bytes of a file name that are no text. Line ends and tabs are allowed.
ACTING = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def harmless(text: str) -> str:
    r"""The text with each character that would act on a terminal written as an escape, such as \x1b."""
    return ACTING.sub(lambda character: character[0].encode("unicode_escape").decode(), text)


def prepare_streams() -> None:
    """Open the standard streams that the caller closed, and escape characters that their encoding does not have."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # This gets the lowest free number, which is the one of the stream. Otherwise the next file that is opened
            # would get the number, and with it whatever a library writes to the stream.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    if sys.stdout is None:
        sys.stdout = os.fdopen(1, "w", encoding="utf-8", closefd=False)
    if sys.stderr is None:
        sys.stderr = os.fdopen(2, "w", encoding="utf-8", closefd=False)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")


def silence(stream: TextIO) -> None:
    """Discard everything that is written to a stream from now on, and what is still in its buffer."""
    discard = os.open(os.devnull, os.O_WRONLY)
    os.dup2(discard, stream.fileno())
    os.close(discard)
