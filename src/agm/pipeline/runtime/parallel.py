"""Work distributed over processes, in order, with progress: one thread per process, for short clips."""

import multiprocessing
import os
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from agm.pipeline.errors import AgmError
from agm.pipeline.runtime import variables
from agm.pipeline.runtime.progress import say, track

T = TypeVar("T")
R = TypeVar("R")
LONGEST_FOLDER = 70
"""Bytes of the temporary folder's path: workers meet at a socket below it, and a socket's path has 107 at most."""


def workers() -> int:
    """Processes that a step may use: AGM_WORKERS, else as many as the engine granted, else one per core."""
    requested = variables.workers()
    if requested is not None:
        return requested
    granted = os.environ.get("OMP_NUM_THREADS", "")
    if granted.isdecimal():
        return max(1, int(granted))
    return len(os.sched_getaffinity(0))


def parallel_map(
    function: Callable[[T], R],
    items: Sequence[T],
    label: str,
    chunk: int = 8,
    died: Callable[[T], R] | None = None,
) -> Iterator[R]:
    """Yield `function(item)` for every item, in the order of `items`, over `workers()` processes.

    `function` must be importable from its module (not a lambda); its exceptions are raised here.

    Args:
        function: what to compute.
        items: what to compute it of.
        label: the name of the work, for the progress.
        chunk: how many items a process gets at a time.
        died: what to yield for an item that kills its process, such as a file that makes a decoder crash. A single
            worker is this process itself, which then ends too.

    Raises:
        AgmError: when a process dies and there is no `died`.
    """
    count = workers()
    if count == 1 or not items:
        yield from track(map(function, items), len(items), label)
        return
    chunks = deque(items[start : start + chunk] for start in range(0, len(items), chunk))
    yield from track(_in_order(function, chunks, min(count, len(chunks)), died), len(items), label)


def _in_order(
    function: Callable[[T], R], chunks: deque[Sequence[T]], count: int, died: Callable[[T], R] | None
) -> Iterator[R]:
    """Results in order; few chunks are under way, so that the results after one slow item do not fill the memory."""
    pool = _pool(count)
    under_way: deque[tuple[Sequence[T], Future[list[R]]]] = deque()
    try:
        while chunks or under_way:
            try:
                while chunks and len(under_way) < 4 * count:
                    under_way.append((chunks[0], pool.submit(_each, function, chunks[0])))
                    chunks.popleft()
                results = under_way[0][1].result()
                under_way.popleft()
            except BrokenProcessPool:
                # One of the items under way, but not known which: all are computed again, the oldest chunk item by
                # item.
                chunks.extendleft(items for items, _ in reversed(under_way))
                under_way.clear()
                results = [_alone(function, item, died) for item in chunks.popleft()]
                pool = _pool(count)
            yield from results
    finally:
        pool.shutdown(cancel_futures=True)


def _alone(function: Callable[[T], R], item: T, died: Callable[[T], R] | None) -> R:
    """`function(item)` in a process of its own, which it may kill."""
    try:
        with _pool(1) as pool:
            return pool.submit(function, item).result()
    except BrokenProcessPool:
        if died is None:
            what = "A worker process died: it crashed, or memory ran out"
            raise AgmError(what, fix="run it again with AGM_WORKERS=1, or with more memory") from None
        say("a worker process died; going on without the clip that it was at")
        return died(item)


def _pool(count: int) -> ProcessPoolExecutor:
    """Worker processes that have our modules imported."""
    if len(os.fsencode(tempfile.gettempdir())) > LONGEST_FOLDER:
        tempfile.tempdir = "/tmp"
    # Not fork: the parent may have threads of torch or pyarrow. The server imports our modules once for all workers,
    # because torch alone would take seconds in each.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([name for name in sys.modules if name.startswith("agm.")])
    return ProcessPoolExecutor(count, mp_context=context)


def _each(function: Callable[[T], R], items: Sequence[T]) -> list[R]:
    return [function(item) for item in items]
