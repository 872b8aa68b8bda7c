"""Work spread over processes, in order, with progress: one thread a process, for short clips."""

import multiprocessing
import os
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from agm.errors import AgmError
from agm.progress import track

T = TypeVar("T")
R = TypeVar("R")


def workers() -> int:
    """Processes that a step may use: AGM_WORKERS, else what the engine granted, else every core."""
    granted = os.environ.get("AGM_WORKERS") or os.environ.get("OMP_NUM_THREADS") or ""
    return max(1, int(granted)) if granted.isdecimal() else len(os.sched_getaffinity(0))


def parallel_map(function: Callable[[T], R], items: Sequence[T], label: str, chunk: int = 8) -> Iterator[R]:
    """Yield `function(item)` for every item, in the order of `items`, over `workers()` processes.

    `function` must be importable from its module (not a lambda); its exceptions are raised here.
    """
    count = min(workers(), max(1, len(items) // chunk))
    if count == 1:
        yield from track(map(function, items), len(items), label)
        return
    # Not fork: the parent may hold threads of torch or pyarrow. What it has imported of ours is imported once for all
    # workers, for torch alone takes seconds in each.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([name for name in sys.modules if name.startswith("agm.")])
    with ProcessPoolExecutor(count, mp_context=context) as pool:
        yield from track(_in_order(pool, function, items, chunk, ahead=4 * count), len(items), label)


def _in_order(
    pool: ProcessPoolExecutor, function: Callable[[T], R], items: Sequence[T], chunk: int, ahead: int
) -> Iterator[R]:
    """Results in order, with at most `ahead` chunks under way: one slow item must not pile up the others' results."""
    waiting: deque[Future[list[R]]] = deque()
    try:
        for start in range(0, len(items), chunk):
            if len(waiting) == ahead:
                yield from waiting.popleft().result()
            waiting.append(pool.submit(_each, function, items[start : start + chunk]))
        while waiting:
            yield from waiting.popleft().result()
    except BrokenProcessPool:
        what = "A worker process died: a decoder crashed, or memory ran out"
        raise AgmError(what, fix="run it again with AGM_WORKERS=1 in the environment, or with more memory") from None


def _each(function: Callable[[T], R], items: Sequence[T]) -> list[R]:
    return [function(item) for item in items]
