"""Commands that meet real faults, without the seconds that importing torch takes each time.

A server imports everything once and then forks for each command. There a command can be killed at any of its steps on
the file system, or in the middle of writing a file. Where the machine lets its users mount, the server's folder is a
disk of its own in memory, which can be full at any byte, and which nobody else sees.
"""

import gc
import importlib
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from forked import LIBRARIES

LATE = ("agm.", "torch", "matplotlib", "polars", "pyarrow", "sklearn", "scipy", "PIL", "av.")
STORE = ".cache/store"
TIMES = ".cache/raw"
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


@dataclass(frozen=True)
class Ended:
    """How a command ended.

    Attributes:
        status: its exit status, or minus the number of the signal that killed it.
        events: how many changes it made to the files of its folder.
        writes: what it put in its place, in order.
        said: its output on both streams.
    """

    status: int
    events: int
    writes: list["Write"]
    said: str

    @property
    def killed(self) -> bool:
        return self.status in (-signal.SIGKILL, -signal.SIGXFSZ)


@dataclass(frozen=True)
class Write:
    """A file or folder that a command put in its place.

    Attributes:
        begun: how many renames came before it was written; one more may make way for it.
        renames: how many renames came before its own.
        before: bytes that the command has taken up on the disk before, as far as they are not free again.
        used: bytes that it takes up itself.
        largest: bytes of the file, or of the largest one in the folder.
    """

    begun: int
    renames: int
    before: int
    used: int
    largest: int


class Warm:
    """Runs commands in `folder`, as this process cannot: it has threads, which no fork survives.

    Attributes:
        disk: whether the folder is a disk of its own.
    """

    def __init__(self, folder: Path) -> None:
        mount = ["mount", "-t", "tmpfs", "-o", "size=1g", "tmpfs", str(folder)]
        private = ["unshare", "--user", "--map-root-user", "--mount"]
        self.disk = subprocess.run([*private, *mount], capture_output=True).returncode == 0
        script = f'cp -a "$1" "$1.copy" && {" ".join(mount)} && cp -a "$1.copy/." "$1" && exec "$0" "$2" "$1"'
        shell = [*private, "sh", "-c", script] if self.disk else ["sh", "-c", 'exec "$0" "$2" "$1"']
        environment = {**os.environ, "AGM_WORKERS": "1", "OMP_NUM_THREADS": "1", "AGM_DEVICE": "cpu"}
        self._server = subprocess.Popen(
            [*shell, sys.executable, str(folder), __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            text=True,
        )
        assert self._server.stdout.readline() == "ready\n"

    def close(self) -> None:
        self._server.stdin.close()
        self._server.wait()

    def run(
        self, command: str, kill: int | None = None, after: int | None = None, cut: tuple[int, int] | None = None
    ) -> Ended:
        """Run a command of agm.

        Args:
            kill: the number of the change before which it is killed.
            after: the number of renames behind which it is killed.
            cut: (number, size): after so many renames it is killed when it writes to a file beyond that size.
        """
        found = self._ask(do="run", command=command.split()[1:], kill=kill, after=after, cut=cut)
        return Ended(found["status"], found["events"], [Write(*each) for each in found["writes"]], found["said"])

    def contents(self) -> dict[str, str]:
        """Checksums of the folder's files, locks, the store, and the times of raw files apart."""
        return self._ask(do="contents")

    def remove(self, paths: Sequence[Path]) -> None:
        """Remove the outputs of a job, as engines do before they start it."""
        self._ask(do="remove", paths=list(map(str, paths)))

    def flip(self, name: str, place: float, bit: int) -> None:
        """Change one bit of a file: that byte of it at `place`, from 0 (the first) to 1 (the last)."""
        self._ask(do="flip", name=name, place=place, bit=bit)

    def digit(self, name: str, place: float) -> None:
        """Put another digit in the place of the first one from `place` on, and, done again, the old one."""
        self._ask(do="digit", name=name, place=place)

    def room(self, free: int | None) -> None:
        """Leave so many bytes on the disk; None: more than enough."""
        self._ask(do="room", free=free)

    def writable(self, yes: bool) -> None:
        """Make the disk writable or not."""
        self._ask(do="writable", yes=yes)

    def _ask(self, **request: Any) -> Any:
        self._server.stdin.write(json.dumps(request) + "\n")
        self._server.stdin.flush()
        return json.loads(self._server.stdout.readline())


# --- the server ---


def contents() -> dict[str, str]:
    files = (path for path in Path().rglob("*") if path.is_file() and path.suffix != ".lock")
    kept = [path for path in files if not path.is_relative_to(STORE) and not path.is_relative_to(TIMES)]
    return {str(path): sha256(path.read_bytes()).hexdigest() for path in kept}


def remove(paths: list[str]) -> None:
    for path in map(Path, paths):
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def flip(name: str, place: float, bit: int) -> None:
    content = bytearray(Path(name).read_bytes())
    content[round(place * (len(content) - 1))] ^= 1 << bit
    Path(name).write_bytes(content)


def digit(name: str, place: float) -> None:
    content = Path(name).read_bytes()
    at = re.compile(rb"\d").search(content, round(place * len(content))).start()
    Path(name).write_bytes(content[:at] + b"%d" % (int(content[at : at + 1]) ^ 1) + content[at + 1 :])


def taken() -> int:
    """Bytes of the disk that are not free."""
    mounted = os.statvfs(".")
    return (mounted.f_blocks - mounted.f_bfree) * mounted.f_frsize


def room(free: int | None) -> None:
    size = 1 << 30 if free is None else taken() + free
    subprocess.run(["mount", "-o", f"remount,size={size}", "."], check=True)


def writable(yes: bool) -> None:
    subprocess.run(["mount", "-o", "remount,rw" if yes else "remount,ro", "."], check=True)


class Hook:
    """Counts what a command changes in its folder, and kills it there."""

    def __init__(self, kill: int | None, after: int | None, cut: tuple[int, int] | None) -> None:
        self.kill, self.after, self.cut = kill, after, cut
        self.events, self.renames = 0, 0
        self.writes: list[tuple[int, int, int, int, int]] = []
        self.written, self.taken = 0, taken()
        self._limit()
        sys.addaudithook(self._audit)
        self._sync, os.fsync = os.fsync, self._fsync

    def _audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and arguments[2] & WRITING:
            self._happened(arguments[0])
        elif event == "os.rename" and self._happened(arguments[0]):
            new = os.path.basename(arguments[0]).startswith(".tmp-")
            # What cannot be kept in the store is no failure of the command.
            if new and not str(arguments[0]).startswith(STORE):
                used, largest = sizes(Path(arguments[0]))
                self.writes.append((self.written, self.renames, taken() - self.taken - used, used, largest))
                self.written = self.renames + 1
            self.renames += 1
            self._limit()
        elif event in ("os.remove", "os.rmdir", "os.mkdir"):
            path, folder = arguments[0], arguments[-1]
            if folder >= 0:
                path = os.path.join(os.readlink(f"/proc/self/fd/{folder}"), path)
            # What is there already cannot be made, and what is not there cannot be removed.
            if os.path.lexists(path) != (event == "os.mkdir") and os.path.exists(os.path.dirname(path) or "."):
                self._happened(path)

    def _fsync(self, descriptor: int) -> None:
        self._happened(os.readlink(f"/proc/self/fd/{descriptor}"))
        self._sync(descriptor)

    def _happened(self, path: Any) -> bool:
        """Whether this is a change in the command's folder; it may be its last."""
        if isinstance(path, int) or os.path.relpath(os.fsdecode(path)).startswith(".."):
            return False
        if self.events == self.kill or self.renames == self.after:
            os.kill(os.getpid(), signal.SIGKILL)
        self.events += 1
        return True

    def _limit(self) -> None:
        if self.cut and self.renames == self.cut[0]:
            resource.setrlimit(resource.RLIMIT_FSIZE, (self.cut[1], resource.RLIM_INFINITY))


def sizes(path: Path) -> tuple[int, int]:
    """Bytes that a file or folder takes on the disk, and bytes of its largest file; links to other files take none."""
    files = [each.stat() for each in (path.rglob("*") if path.is_dir() else [path])]
    new = [each for each in files if each.st_nlink == 1]
    return sum(512 * each.st_blocks for each in new), max((each.st_size for each in new), default=0)


def run(command: list[str], **fault: Any) -> dict[str, Any]:
    """Run one command in a child; what it says and how it ended come through a pipe."""
    out, into = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(out)
        _child(command, fault, into)
    os.close(into)
    with os.fdopen(out, encoding="utf-8") as pipe:
        said, _, told = pipe.read().partition("\0")
    _, ended = os.waitpid(child, 0)
    found = json.loads(told) if told else {"events": 0, "writes": [], "modules": []}
    for name in found.pop("modules"):
        # What a command imported late is there at once for those that follow.
        importlib.import_module(name)
    return {"status": os.waitstatus_to_exitcode(ended), "said": said, **found}


def _child(command: list[str], fault: dict[str, Any], into: int) -> None:
    from agm.pipeline import cli

    status = 70
    try:
        os.dup2(into, 1)
        os.dup2(into, 2)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        # Python ignores this signal, which then is an error of the write instead.
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        known = set(sys.modules)
        hook = Hook(**fault)
        status = cli.main(command)
        sys.stdout.flush()
        late = [name for name in sys.modules if name not in known and name.startswith(LATE)]
        os.write(into, b"\0" + json.dumps({"events": hook.events, "writes": hook.writes, "modules": late}).encode())
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(status)


def main(folder: str) -> None:
    import agm.pipeline.cli
    import agm.pipeline.dag.make
    import agm.pipeline.steps
    from agm.pipeline import config
    from agm.pipeline.dag import code
    from agm.pipeline.dag.graph import Graph

    for name in (*agm.pipeline.steps.MODULES.values(), *LIBRARIES):
        importlib.import_module(name)
    os.chdir(folder)
    # What the commands ask for again and again: the parameters, and the source of each step.
    for job in Graph(config.load()).jobs:
        for name in job.code:
            code.fingerprint(name)
    # What is there now is no garbage: a child that looked for some would copy every page.
    gc.freeze()
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    print("ready", file=answers, flush=True)
    operations = {each.__name__: each for each in (run, contents, remove, flip, digit, room, writable)}
    for line in sys.stdin:
        request = json.loads(line)
        print(json.dumps(operations[request.pop("do")](**request)), file=answers, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
