"""The output of a command: messages, results, and progress with an estimate of the time that is left.

Progress is a bar on a terminal, and a plain line from time to time in a log.
"""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from agm.pipeline.runtime.terminal import harmless, silence

T = TypeVar("T")
LOG_EVERY_SECONDS = 10.0


def say(message: str) -> None:
    """Tell the user something, on standard error: standard output is for results."""
    try:
        print(harmless(message), file=sys.stderr, flush=True)
    except OSError:
        # No process reads it any more, or the disk of the log is full: no reason to end the work.
        silence(sys.stderr)


def show(result: str) -> None:
    """Print a result, on standard output."""
    try:
        print(harmless(result), flush=True)
    except BrokenPipeError:
        # As in `agm datasets | head`.
        silence(sys.stdout)


def track(items: Iterable[T], total: int, label: str) -> Iterator[T]:
    """Yield `items`, showing how many of `total` are done and how long the rest will take."""
    label = harmless(label)
    if sys.stderr.isatty():
        yield from _barred(items, total, label)
    else:
        yield from _logged(items, total, label)


def _barred(items: Iterable[T], total: int, label: str) -> Iterator[T]:
    # Imported late: every command imports this module, and few of them draw a bar.
    from rich import progress
    from rich.console import Console

    columns = (
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TimeElapsedColumn(),
        progress.TimeRemainingColumn(),
    )
    with progress.Progress(*columns, console=Console(stderr=True)) as bar:
        yield from bar.track(items, total=total, description=label)


def _logged(items: Iterable[T], total: int, label: str) -> Iterator[T]:
    """Yield `items`, with a line about the progress every few seconds."""
    start = first = last = time.monotonic()
    done = 0
    for done, item in enumerate(items, start=1):
        yield item
        now = time.monotonic()
        if done == 1:
            # The time before the first item includes the start of the workers, which happens once.
            first = now
        elif now - last >= LOG_EVERY_SECONDS and done < total:
            last = now
            left = (now - first) / (done - 1) * (total - done)
            say(f"{label}: {done}/{total}, {now - start:.0f} s, about {left:.0f} s left")
    say(f"{label}: {done}/{total} in {time.monotonic() - start:.1f} s")
