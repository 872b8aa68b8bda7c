"""Locks that the kernel keeps: they end with their process, whatever signal ends it.

One process at a time makes a job (`alone`), whichever engine started it, also on storage that several machines share.
`agm.pipeline.runtime.lease` builds the leases of devices from the same functions.
"""

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from agm.pipeline.runtime.progress import say

LOCKS = Path(".cache/locks")
# The errors of a file system without locks.
NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS)

# A lock belongs to the open file, which a forked child has open too: it would keep the lock of a parent that has ended.
_held: set[int] = set()


def _forget() -> None:
    for descriptor in _held:
        os.close(descriptor)
    _held.clear()


os.register_at_fork(after_in_child=_forget)


@contextmanager
def alone(name: str, *cell: str) -> Iterator[bool]:
    """Hold the lock of a job in this checkout; yields whether another process held it until now.

    On a file system without locks it tells the user, and continues without a lock.
    """
    descriptor = open_file(_path(name, *cell))
    try:
        yield _wait(descriptor, " ".join(("agm", name.replace("_", "-"), *cell)))
    finally:
        unlock(descriptor)


def taken(name: str, *cell: str) -> bool:
    """Whether a process holds the lock of a job in this checkout now."""
    return held_by(name, *cell) is not None


def held_by(name: str, *cell: str) -> str | None:
    """Who holds the lock of a job in this checkout now, as `holder` says it; None where nobody does."""
    path = _path(name, *cell)
    if not path.exists():
        return None
    descriptor = open_file(path)
    try:
        return None if lock(descriptor) else holder(os.fstat(descriptor))
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        return None
    finally:
        unlock(descriptor)


def _path(name: str, *cell: str) -> Path:
    return LOCKS.joinpath(name, *cell).with_name(f"{(name, *cell)[-1]}.lock")


def open_file(path: Path) -> int:
    """Open a file to lock; it is created if it does not exist."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # For writing: shared storage gives an exclusive lock only on a file that is open for writing.
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    if os.fstat(descriptor).st_uid == os.geteuid():
        # Whatever the umask is: all users of this folder lock this file, and it has no content.
        os.fchmod(descriptor, 0o666)
    return descriptor


def _wait(descriptor: int, what: str) -> bool:
    """Lock an open file, and tell the user where that takes time; returns whether another process held the lock."""
    try:
        if lock(descriptor):
            return False
        say(f"waiting for another process that is at `{what}`{holder(os.fstat(descriptor))}")
        return lock(descriptor, wait=True)
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        say(f"this file system has no locks: nothing keeps a second process from `{what}`")
        return False


def lock(descriptor: int, wait: bool = False) -> bool:
    """Lock an open file for this process; returns whether that succeeded, which it always does with `wait`."""
    operation = fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB
    try:
        fcntl.flock(descriptor, operation)
    except BlockingIOError:
        return False
    _held.add(descriptor)
    return True


def unlock(descriptor: int) -> None:
    """Close an open file, which releases its lock."""
    _held.discard(descriptor)
    os.close(descriptor)


def holder(file: os.stat_result) -> str:
    """The process of this machine that holds the lock of a file: " (process 123: its command)", or nothing."""
    place = f"{os.major(file.st_dev):02x}:{os.minor(file.st_dev):02x}:{file.st_ino}"
    try:
        for line in Path("/proc/locks").read_text().splitlines():
            words = line.split()
            # The kind of lock, the process and the file, among other fields.
            if words[1] == "FLOCK" and words[5] == place:
                return f" (process {words[4]}{_command(words[4])})"
    except OSError:
        pass
    return ""


def _command(process: str) -> str:
    """The command line of a process: ": its command", or nothing where it has ended."""
    try:
        words = os.fsdecode(Path(f"/proc/{process}/cmdline").read_bytes()).split("\0")
    except OSError:
        return ""
    return f": {' '.join(words).strip()}"
