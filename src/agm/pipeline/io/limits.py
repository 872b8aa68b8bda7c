"""Limits for reading one clip: a small file can claim, or unfold to, far more than the machine has.

`dataset.limits` sets the limits (`agm.pipeline.config.schema.Limits`). Code that reads a clip runs `under` them; code
that decodes calls `check` as soon as it knows a size: from the header, and again from the decoded data, because headers
lie. Where nobody sets limits, the defaults of the schema hold, so that forgetting them is safe. The memory limit stops
what no size announces: a library that asks for memory which only a damaged or hostile file needs.
"""

import math
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from agm.pipeline.config.schema import Limits

_present: ContextVar[Limits] = ContextVar("limits", default=Limits())  # noqa: B039 (it is frozen)


class Unusable(Exception):
    """A file cannot be used. The message is the reason in plain words, to be put after a colon."""


@contextmanager
def under(limits: Limits, *, memory: bool = True) -> Iterator[None]:
    """Read one clip, or several one after another, under `limits`.

    Args:
        memory: whether `limits.memory_bytes` holds too; False for a file that is read once for many clips.

    Raises:
        Unusable: when the memory limit is reached. The other limits raise it where they are checked.
    """
    token = _present.set(limits)
    try:
        with _at_most(limits.memory_bytes if memory else None):
            yield
    except MemoryError:
        if limits.memory_bytes is None or not memory:
            raise
        more = f"more than dataset.limits.memory_bytes = {limits.memory_bytes:,}"
        raise Unusable(f"to read it takes {more} bytes of memory") from None
    finally:
        _present.reset(token)


def most(name: str) -> float:
    """The present limit of that name; infinity where there is none."""
    value = getattr(_present.get(), name)
    return math.inf if value is None else value


def check(name: str, value: float, says: str) -> None:
    """Refuse a number beyond the limit `name`.

    Args:
        value: the number that the file has or needs.
        says: the message, with {} in the place of the number.

    Raises:
        Unusable: with the message, the limit and its value.
    """
    allowed = most(name)
    if value > allowed:
        raise Unusable(f"{says.format(_spelt(value))}, more than dataset.limits.{name} = {_spelt(allowed)}")


def check_picture(width: int, height: int, what: str, scaled: int | None = None) -> None:
    """Refuse a picture of too many pixels.

    Args:
        what: "image" or "video", for the message.
        scaled: the length in pixels that the short side gets; with it, the scaled picture is checked too.

    Raises:
        Unusable: when the picture has more pixels than the limit.
    """
    check("pixels", width * height, f"the {what} is {width:,} × {height:,}: {{}} pixels")
    short, long = min(width, height), max(width, height)
    if scaled is not None and short > 0:
        # The long side grows with the short one: a picture of 1 × 10,000 becomes huge when it is scaled.
        pixels = scaled * max(scaled, round(long * scaled / short))
        check("pixels", pixels, f"the {what} is {width:,} × {height:,}, and scaled to {scaled} has {{}} pixels")


def _spelt(value: float) -> str:
    """The number with separators: 12,345 or 3,600.5."""
    if isinstance(value, int) or value > 1e15:
        return f"{value:,}"
    return f"{round(value, 3):,.15g}"


@contextmanager
def _at_most(more: int | None) -> Iterator[None]:
    """Let this process take at most `more` bytes of memory beyond what it has; None sets no limit.

    Requests beyond that raise MemoryError. Mapped files do not count.
    """
    if more is None:
        yield
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    # The sixth number is the private memory that this process has asked for, in pages.
    pages = int(Path("/proc/self/statm").read_text().split()[5])
    allowed = pages * resource.getpagesize() + more
    # A limit that the system or the user set before stays, where it is lower.
    for limit in (soft, hard):
        if limit != resource.RLIM_INFINITY:
            allowed = min(allowed, limit)
    resource.setrlimit(resource.RLIMIT_DATA, (allowed, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))
