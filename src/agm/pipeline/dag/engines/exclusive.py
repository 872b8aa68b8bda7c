"""One engine at a time in a checkout: while Snakemake runs jobs, it holds DVC's own lock on all their results.

DVC locks the files that its stage reads and writes. Snakemake takes the same lock here, with DVC's own functions. So
each engine refuses to start while the other one runs, and names it. DVC's list of locks holds numbers of processes,
which belong to other processes after a reboot or in another container: entries of processes that have ended are removed
first. The list separates engines on one machine, not on several machines that share a folder.

Snakemake holds a lock of the kernel besides, which ends with the process: it shows whether Snakemake runs.
"""

import atexit
import os
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from agm.extras import MissingExtra
from agm.pipeline.dag.engines import repository
from agm.pipeline.dag.graph import Graph
from agm.pipeline.errors import AgmError
from agm.pipeline.runtime.lock import LOCKS, holder, lock, open_file, unlock

if TYPE_CHECKING:
    from dvc.repo import Repo

NAME = "snakemake"
RUNNING = LOCKS / "snakemake.lock"


def hold(graph: Graph) -> None:
    """Take DVC's lock on all results of `graph`, until this process ends.

    Raises:
        AgmError: when DVC, or Snakemake in another process, is at work on some of them.
    """
    atexit.register(unlock, _running())
    with ExitStack() as closing:
        try:
            repo = closing.enter_context(repository.opened())
        except (AgmError, MissingExtra):
            # DVC cannot run here, so there is nothing to lock against.
            return
        closing.enter_context(repository.locked(repo))
        repository.forget_ended(Path(repo.tmp_dir))
        atexit.register(_list_in_use(repo, repository.result_folders(graph)).close)


def _list_in_use(repo: "Repo", folders: list[str]) -> ExitStack:
    """Enter the folders in DVC's list as being written to; closing the returned stack removes them again."""
    from dvc.lock import LockError
    from dvc.rwlock import rwlock

    command = " ".join([NAME, *sys.argv[1:]])
    write = [str(Path(repo.root_dir, name)) for name in folders]
    linked = repo.config["core"].get("hardlink_lock", False)
    held = ExitStack()
    try:
        held.enter_context(rwlock(repo.tmp_dir, repo.fs, command, [], write, linked))
    except LockError as error:
        raise repository.busy(f"DVC or Snakemake is at work in this folder already: {error}") from None
    return held


def snakemake_runs() -> str | None:
    """The process that runs Snakemake's jobs here, in words; None where no other process does."""
    if not RUNNING.exists():
        return None
    descriptor = open_file(RUNNING)
    try:
        if lock(descriptor):
            return None
        return f"Snakemake{holder(os.fstat(descriptor))}"
    except OSError:
        # A file system without locks.
        return None
    finally:
        unlock(descriptor)


def _running() -> int:
    """Take the lock that shows that Snakemake runs here; returns its open file.

    Raises:
        AgmError: when another process holds it.
    """
    descriptor = open_file(RUNNING)
    try:
        if not lock(descriptor):
            raise repository.busy(f"Snakemake is at work in this folder already{holder(os.fstat(descriptor))}")
    except OSError:
        # A file system without locks.
        pass
    return descriptor
