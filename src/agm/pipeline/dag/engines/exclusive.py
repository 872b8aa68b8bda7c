"""One engine at a time in a checkout: while Snakemake runs jobs, it holds DVC's own lock on all their results.

DVC locks what its stage reads and writes; Snakemake knows nothing of that, and so takes the same lock here, by DVC's
own means. Then each refuses to start beside the other, and says who is there. DVC's list holds numbers of processes,
which live again after a reboot or in another container: what is left there of processes that have ended is taken out
first. The list keeps engines apart on one machine, not on several that share a folder.

Whether Snakemake runs, the kernel knows: it holds a lock of its own besides, which ends with the process.
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
            return  # nobody can run DVC here
        closing.enter_context(repository.locked(repo))
        repository.forget_ended(Path(repo.tmp_dir))
        atexit.register(_list_in_use(repo, repository.result_folders(graph)).close)


def _list_in_use(repo: "Repo", folders: list[str]) -> ExitStack:
    """Enter the folders, as being written to, in DVC's list; leaving what is returned takes them out again."""
    from dvc.lock import LockError
    from dvc.rwlock import rwlock

    write = [str(Path(repo.root_dir, name)) for name in folders]
    linked = repo.config["core"].get("hardlink_lock", False)
    held = ExitStack()
    try:
        held.enter_context(rwlock(repo.tmp_dir, repo.fs, " ".join([NAME, *sys.argv[1:]]), [], write, linked))
    except LockError as error:
        raise repository.busy(f"DVC or Snakemake is at work in this folder already: {error}") from None
    return held


def snakemake_runs() -> str | None:
    """Which process runs Snakemake's jobs here, in words; None where no other does."""
    if not RUNNING.exists():
        return None
    descriptor = open_file(RUNNING)
    try:
        return None if lock(descriptor) else f"Snakemake{holder(os.fstat(descriptor))}"
    except OSError:
        return None  # a file system without locks
    finally:
        unlock(descriptor)


def _running() -> int:
    """The lock that says that Snakemake runs here.

    Raises:
        AgmError: when another process has it.
    """
    descriptor = open_file(RUNNING)
    try:
        if not lock(descriptor):
            raise repository.busy(f"Snakemake is at work in this folder already{holder(os.fstat(descriptor))}")
    except OSError:
        pass  # a file system without locks
    return descriptor
