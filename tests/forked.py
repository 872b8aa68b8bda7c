"""The engines and `agm` as commands that start at once: forked from a process that has imported the libraries.

Importing torch, Snakemake and DVC takes most of the time of a short command. A server imports them once, and forks for
each command; agm's own modules are imported anew from the source of the command's folder, which may have been edited,
and where it has none from that of this checkout. What the commands start themselves comes here too: a folder of small
clients stands first in their PATH, and in the place of their Python.
"""

import atexit
import contextlib
import fcntl
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

LIBRARIES = (
    "torch",
    "torch.distributed.run",
    "polars",
    "pyarrow.parquet",
    "pydantic",
    "yaml",
    "hydra",
    "omegaconf",
    "safetensors.torch",
    "safetensors.numpy",
    "sklearn.linear_model",
    "scipy.stats",
    "matplotlib.figure",
    "jinja2",
    "av",
    "PIL.Image",
    "torchvision",
    "torchaudio",
    "rich.progress",
    "psutil",
    "torch._dynamo",
)
"""What the steps of agm import."""
ENGINES = (
    "dvc.cli",
    "dvc.repo",
    "dvc.commands.repro",
    "dvc.commands.commit",
    "dvc.commands.status",
    "dvc.repo.experiments",
    "snakemake.cli",
    "snakemake.api",
    "snakemake.workflow",
)
MODULES = {"agm": "agm.pipeline.cli", "dvc": "dvc.cli", "snakemake": "snakemake.cli", "claims": "claims"}
MEMBER = "agm.pipeline.steps.train.member"
"""A process of a run of several, which torchrun starts with Python's `-m`."""
CLIENT = """\
#!{python} -IS
import array, json, os, socket, sys
name, arguments = os.path.basename(sys.argv[0]), sys.argv[1:]
if name == "python":
    place = arguments.index("-m") if "-m" in arguments else -1
    known = {{"agm.pipeline.cli": "agm", "dvc": "dvc", "snakemake": "snakemake", {member!r}: {member!r}}}
    if place < 0 or arguments[place + 1] not in known:
        os.execv({python!r}, [{python!r}, *arguments])
    name, arguments = known[arguments[place + 1]], arguments[place + 2:]
told = json.dumps([name, arguments, os.getcwd(), dict(os.environ)]).encode()
with socket.socket(socket.AF_UNIX) as server:
    server.connect({address!r})
    rights = array.array("i", [0, 1, 2])
    server.sendmsg([len(told).to_bytes(4, "big")], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
    server.sendall(told)
    status = server.recv(1)
sys.exit(status[0] if status else 1)
"""


@contextlib.contextmanager
def one_at_a_time(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder in which the worker of pytest-xdist that comes first makes something for all."""
    with open(folder / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


class Forked:
    """The server, and the folder of its clients: the same ones for all workers of pytest-xdist.

    Args:
        folder: of the server, which whoever comes first starts.
        owner: the process with which the server ends.
    """

    def __init__(self, folder: Path, owner: int) -> None:
        folder.mkdir(exist_ok=True)
        self.bin = folder / "bin"
        with one_at_a_time(folder):
            if not self.bin.is_dir():
                self._serve(str(folder / "socket"), owner)

    def _serve(self, address: str, owner: int) -> None:
        # agm is imported by the forked commands alone, each from its own folder.
        command = [sys.executable, __file__, address, str(self.bin), str(owner)]
        server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert server.stdout.readline() == "ready\n"
        self.bin.mkdir()
        for name in (*MODULES, "python"):
            client = self.bin / name
            client.write_text(CLIENT.format(python=sys.executable, address=address, member=MEMBER))
            client.chmod(0o755)

    def start(self, folder: Path, *command: str, **environment: str) -> subprocess.Popen[str]:
        """Start a command in `folder`; the process is its client, with which it is killed."""
        return subprocess.Popen(
            [self.bin / command[0], *command[1:]],
            cwd=folder,
            env={**os.environ, "PATH": f"{self.bin}{os.pathsep}{os.environ['PATH']}", **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, folder: Path, *command: str, **environment: str) -> tuple[int, str]:
        """Run a command in `folder`; returns its status and what it said on both streams."""
        process = self.start(folder, *command, **environment)
        said = process.communicate()[0]
        return process.returncode, said


def serve(address: str, clients: Path, owner: int) -> None:
    """Answer clients for as long as the process `owner` lives."""
    for name in (*LIBRARIES, *ENGINES):
        importlib.import_module(name)
    server = socket.socket(socket.AF_UNIX)
    server.bind(address)
    server.listen(64)
    print("ready", flush=True)
    while Path(f"/proc/{owner}").exists():
        if not select.select([server], [], [], 1)[0]:
            continue
        connection, _ = server.accept()
        if os.fork() == 0:
            server.close()
            _attend(connection, clients)
            os._exit(0)
        connection.close()
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass


def _attend(connection: socket.socket, clients: Path) -> None:
    """Run the command of one client; kill it when the client dies."""
    head, streams, _, _ = socket.recv_fds(connection, 4, 3)
    told = b""
    while len(told) < int.from_bytes(head, "big"):
        told += connection.recv(1 << 20)
    child = os.fork()
    if child == 0:
        os.setsid()
        connection.close()
        _command(streams, clients, *json.loads(told))
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            code = os.waitstatus_to_exitcode(status)
            with contextlib.suppress(OSError):
                connection.send(bytes([code if code >= 0 else 128 - code]))
            return
        if select.select([connection], [], [], 0.005)[0] and not connection.recv(1):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return


def _command(
    streams: list[int], clients: Path, name: str, arguments: list[str], folder: str, environment: dict
) -> None:
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w"), open(2, "w")  # noqa: SIM115
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    time.tzset()
    sys.executable = str(clients / "python")
    if (source := Path(folder, "src")).is_dir():
        sys.path[:] = [str(source), *(each for each in sys.path if not each.endswith("/src"))]
    sys.argv = [name, *arguments]
    status: object = 1
    try:
        if name == MEMBER:
            status = importlib.import_module(MEMBER).main(*arguments)
        else:
            status = importlib.import_module(MODULES[name]).main()
    except SystemExit as ended:
        status = ended.code
    except BaseException:
        import traceback

        traceback.print_exc()
    if isinstance(status, str):
        print(status, file=sys.stderr)
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(status if isinstance(status, int) else int(status is not None))


if __name__ == "__main__":
    serve(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
