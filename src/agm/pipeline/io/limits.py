"""What reading one clip may take: a small file can claim, or unfold to, far more than the machine has.

`dataset.limits` sets the limits (`agm.pipeline.config.schema.Limits`). Who reads a clip does so `under` them; the code
that decodes asks `check` as soon as it knows a size, from the header and again from what really comes out, for headers
lie. Where nobody set any, the schema's own limits hold, so that forgetting them is safe. What no size tells, as when a
library asks for memory that only a damaged or hostile file needs, ends at the memory limit.
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
    """Why a file cannot be used: words that a person understands, to be put after a colon."""


@contextmanager
def under(limits: Limits, *, memory: bool = True) -> Iterator[None]:
    """Read one clip, or several one after another, under `limits`.

    Args:
        memory: whether `limits.memory_bytes` holds as well; not for what is read once for many clips.

    Raises:
        Unusable: when the memory limit is reached. The others raise it where they are checked.
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


def check(name: str, found: float, says: str) -> None:
    """Refuse what is beyond the limit `name`.

    Args:
        says: what was found, with {} in the place of the number.

    Raises:
        Unusable: with what was found, the limit and its value.
    """
    if found > most(name):
        raise Unusable(f"{says.format(_spelt(found))}, more than dataset.limits.{name} = {_spelt(most(name))}")


def check_picture(width: int, height: int, what: str, scaled: int | None = None) -> None:
    """Refuse a picture of too many pixels; with `scaled`, also one that has them when its short side is so long.

    Raises:
        Unusable: when it has.
    """
    check("pixels", width * height, f"the {what} is {width:,} × {height:,}: {{}} pixels")
    if scaled is not None and min(width, height) > 0:
        pixels = scaled * max(scaled, round(max(width, height) * scaled / min(width, height)))
        check("pixels", pixels, f"the {what} is {width:,} × {height:,}, and scaled to {scaled} has {{}} pixels")


def _spelt(value: float) -> str:
    """12,345 or 3,600.5"""
    return f"{value:,}" if isinstance(value, int) or value > 1e15 else f"{round(value, 3):,.15g}"


@contextmanager
def _at_most(more: int | None) -> Iterator[None]:
    """Let this process take so many bytes of memory more, and no others: what asks for them is told that there are
    none. Mapped files do not count, nor what was taken before."""
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if more is None:
        yield
        return
    bounds = [_taken() + more, *(each for each in (soft, hard) if each != resource.RLIM_INFINITY)]
    resource.setrlimit(resource.RLIMIT_DATA, (min(bounds), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def _taken() -> int:
    """Bytes of private memory that this process has asked for."""
    return int(Path("/proc/self/statm").read_text().split()[5]) * resource.getpagesize()
