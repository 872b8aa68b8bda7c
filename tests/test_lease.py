"""Leases of devices, by real processes: AGM_DEVICE=cpu:0,cpu:1 stands for a machine with two GPUs."""

import fcntl
import os
import random
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing import get_context
from pathlib import Path
from typing import IO

import pytest

from agm.pipeline.errors import AgmError
from agm.pipeline.runtime import lease, lock
from clone import ROOT, Clone
from forked import Forked

PAIR = "cpu:0,cpu:1"
# Takes a lease, says on which devices, and keeps it until it is killed.
HOLDER = """
import subprocess, sys, time, os
from agm.pipeline.runtime import lease, lock
held = lease.take(int(sys.argv[1]))
child = None
if "with-children" in sys.argv:
    subprocess.Popen(["sleep", "60"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, close_fds=False)
    if os.fork() == 0:
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, 1), os.dup2(null, 2)
        time.sleep(60)
print(*held.devices, flush=True)
time.sleep(60)
"""
NVIDIA_SMI = """#!/bin/sh
echo "GPU 0: NVIDIA H200 (UUID: GPU-aaaa-0)"
echo "  MIG 1g.18gb     Device  0: (UUID: MIG-cccc-0)"
echo "GPU 1: NVIDIA H200 (UUID: GPU-bbbb-1)"
"""


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of leases of its own, as if no other process of this machine took part; ends what was started."""
    monkeypatch.setenv("AGM_LEASES", str(tmp_path))
    monkeypatch.setenv("AGM_DEVICE", PAIR)
    for name in ("CUDA_VISIBLE_DEVICES", "SLURM_JOB_GPUS", "SLURM_STEP_GPUS", "AGM_LEASED"):
        monkeypatch.delenv(name, raising=False)
    yield tmp_path
    for process in started:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    started.clear()


started: list[subprocess.Popen[str]] = []


def start(program: str, *arguments: object, **environment: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", program, *map(str, arguments)],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    started.append(process)
    return process


def devices(process: subprocess.Popen[str]) -> list[str]:
    """What a HOLDER holds; waits until it does."""
    return line(process.stdout).split()


def waits(process: subprocess.Popen[str]) -> str:
    """What a process says that waits for a device."""
    said = line(process.stderr)
    assert said.startswith("waiting for "), said
    return said


def line(stream: IO[str]) -> str:
    assert select.select([stream], [], [], 60)[0], "nothing was said for a minute"
    return stream.readline()


def take_again_and_again(count: int, rounds: int, folder: Path) -> None:
    """Each time write a file for each device: a second holder finds it there."""
    for _ in range(rounds):
        held = lease.take(count)
        assert len(set(held.devices)) == count
        marks = [folder / each for each in held.devices]
        for mark in marks:
            mark.touch(exist_ok=False)
        time.sleep(random.uniform(0, 0.02))
        for mark in marks:
            mark.unlink()
        held.release()


def test_never_two_holders_and_no_deadlock(machine: Path) -> None:
    marks = machine / "marks"
    marks.mkdir()
    process = get_context("fork").Process
    workers = [process(target=take_again_and_again, args=(count, 6, marks), daemon=True) for count in (1, 2, 1, 2, 2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(timeout=120)
        assert worker.exitcode == 0


def test_a_killed_process_gives_its_lease_back(machine: Path) -> None:
    holder = start(HOLDER, 2, "with-children")
    assert devices(holder) == ["cpu:0", "cpu:1"]
    waiting = start(HOLDER, 2)
    assert f"cpu:0 (process {holder.pid}: {sys.executable} -c" in waits(waiting)
    os.kill(holder.pid, signal.SIGKILL)  # its children live on
    assert devices(waiting) == ["cpu:0", "cpu:1"]


def test_one_of_two(machine: Path) -> None:
    first, second = start(HOLDER, 1), start(HOLDER, 1)
    assert sorted(devices(first) + devices(second)) == ["cpu:0", "cpu:1"]
    third = start(HOLDER, 1)
    waits(third)
    second.kill()
    assert len(devices(third)) == 1


def test_who_wants_two_is_not_overtaken(machine: Path) -> None:
    first, second = start(HOLDER, 1), start(HOLDER, 1)
    devices(first), devices(second)
    both = start(HOLDER, 2)
    waits(both)
    late = start(HOLDER, 1)
    waits(late)
    first.kill()
    time.sleep(1)
    assert not select.select([late.stdout], [], [], 0)[0], "a device is free, and yet not for who came later"
    second.kill()
    assert devices(both) == ["cpu:0", "cpu:1"]


def test_leases_lie_where_all_users_look(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SLURM and many machines give each user a TMPDIR of his own."""
    monkeypatch.delenv("AGM_LEASES")
    device = f"cpu:{os.getpid()}"  # of nobody else
    path = Path(f"/tmp/agm-lease-cpu-{os.getpid()}")
    assert devices(start(HOLDER, 1, AGM_DEVICE=device, TMPDIR=str(machine))) == [device]
    try:
        assert path.exists()
        assert f"waiting for 1 of 1 devices: {device} (process " in waits(start(HOLDER, 1, AGM_DEVICE=device))
    finally:
        path.unlink(missing_ok=True)


def test_others_devices_are_not_waited_for(machine: Path) -> None:
    first = start(HOLDER, 1, AGM_DEVICE="cpu:0")
    devices(first)
    waits(start(HOLDER, 1, AGM_DEVICE="cpu:0"))
    assert devices(start(HOLDER, 1, AGM_DEVICE="cpu:1")) == ["cpu:1"]


def test_a_cpu_is_not_leased(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGM_DEVICE", "cpu")
    assert [lease.take(2).devices, lease.take(1).devices] == [["cpu", "cpu"], ["cpu"]]
    assert not list(machine.iterdir())


def test_more_than_there_are(machine: Path) -> None:
    with pytest.raises(AgmError, match="3 devices are needed, and this process may use 2"):
        lease.take(3)


def test_slurm_has_assigned(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    devices(start(HOLDER, 2))
    monkeypatch.setenv("SLURM_JOB_GPUS", "0,1")
    assert lease.take(2).devices == ["cpu:0", "cpu:1"]


# --- which GPU is meant ---


@pytest.mark.parametrize(
    ("shown", "meant"),
    [
        (None, ["GPU-aaaa-0", "GPU-bbbb-1"]),
        ("", []),
        ("1", ["GPU-bbbb-1"]),
        ("1,0", ["GPU-bbbb-1", "GPU-aaaa-0"]),
        ("GPU-bb", ["GPU-bbbb-1"]),
        ("GPU", []),
        ("0,-1,1", ["GPU-aaaa-0"]),
        ("7,0", []),
        ("MIG-cccc-0", ["MIG-cccc-0"]),
    ],
)
def test_visible(machine: Path, monkeypatch: pytest.MonkeyPatch, shown: str | None, meant: list[str]) -> None:
    gpus(machine, monkeypatch)
    if shown is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", shown)
    assert lease.visible() == meant


def test_leases_are_of_the_device_that_is_meant(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """cuda:0 of one process is not cuda:0 of another."""
    gpus(machine, monkeypatch)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: len(lease.visible()))
    seen = {}
    for shown in ("0", "1", "1,0", "GPU-bbbb-1"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", shown)
        monkeypatch.setenv("AGM_DEVICE", "cuda:0")
        [seen[shown]] = lease.usable()
    assert {each.name for each in seen.values()} == {"cuda:0"}
    assert seen["0"].key == "GPU-aaaa-0"
    assert seen["1"].key == seen["1,0"].key == seen["GPU-bbbb-1"].key == "GPU-bbbb-1"

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,0")
    monkeypatch.setenv("AGM_DEVICE", "cuda")
    assert [(each.name, each.key) for each in lease.usable()] == [("cuda:0", "GPU-bbbb-1"), ("cuda:1", "GPU-aaaa-0")]


def test_counting_gpus_does_not_import_torch() -> None:
    program = (
        "import sys; from agm.pipeline.dag.engines.local import *; gpus(); resources(); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "False\n", done.stderr


def test_snakemake_counts_gpus(forked: Forked, machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clone = Clone.make(machine / "clone", "study=demo", forked=forked)
    for rules in (clone.folder / "workflow/rules").glob("*.smk"):  # in whose place a plan shows the resources
        rules.write_text(re.sub(r" +message:\n.*\n", "", rules.read_text()))
    assert "gpu=" not in clone.snakemake("-n")
    gpus(machine, monkeypatch)
    jobs = re.findall(
        r"^rule (\w+):\n(?:    .*\n)*?    resources: .*?(?:gpu=(\d))?\n", clone.snakemake("-n"), re.MULTILINE
    )
    assert {each for each in jobs if each[0] in ("train", "concept", "evaluate", "evaluate_concept")} == {
        ("train", "1"),
        ("concept", "1"),
        ("evaluate", "1"),
        ("evaluate_concept", "1"),
    }
    assert {count for step, count in jobs if step == "extract"} == {"0"}


def gpus(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lay an nvidia-smi that lists two GPUs."""
    tool = folder / "bin/nvidia-smi"
    tool.parent.mkdir()
    tool.write_text(NVIDIA_SMI)
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tool.parent}:{os.environ['PATH']}")


# --- a folder where anybody may lay anything ---


def leased(folder: Path) -> Path:
    """The file of the lease of cpu:0."""
    with_file = lease.take(1)
    with_file.release()
    return folder / "agm-lease-cpu-0"


def test_a_link_is_not_followed(machine: Path) -> None:
    path, precious = leased(machine), machine / "precious"
    path.unlink()
    path.symlink_to(precious)
    with pytest.raises(AgmError, match="something else lies in its place") as error:
        lease.take(1)
    assert str(path) in str(error.value) and not precious.exists()


@pytest.mark.parametrize("lay", [os.mkfifo, os.mkdir])
def test_something_else_in_its_place(machine: Path, lay: Callable[[Path], None]) -> None:
    path = leased(machine)
    path.unlink()
    lay(path)
    with pytest.raises(AgmError, match="something else lies in its place"):
        lease.take(1)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
def test_another_users_file(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a folder like /tmp, where the kernel may refuse to create what is somebody else's already."""
    shared = Path(tempfile.mkdtemp(dir="/tmp"))
    monkeypatch.setenv("AGM_LEASES", str(shared))
    shared.chmod(0o1777)
    before = os.umask(0o077)
    try:
        path = leased(shared)
        assert as_user(65534), "whatever the umask of who made it"
        os.chown(path, 1234, 1234)
        assert as_user(65534)
        with open(path) as held:  # the first user has it
            fcntl.flock(held, fcntl.LOCK_EX)
            assert not as_user(65534)
    finally:
        os.umask(before)
        shutil.rmtree(shared)


def as_user(user: int) -> bool:
    """Whether a process of another user gets cpu:0, rather than cpu:1."""
    if (child := os.fork()) == 0:
        with suppress(BaseException):
            os.setgid(user)
            os.setuid(user)
            os._exit(PAIR.split(",").index(lease.take(1).devices[0]))
        os._exit(2)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, 1), "it got none"
    return status == 0


# --- both engines ---

TINY = [
    "method=[joint]",
    "~dataset.modalities.text",
    "~features.text",
    "~encoders.text",
    "dial.clips=60",
    "num_parts=1",
    "study.seeds=[0,1]",
    "trainer.epochs=2",
    "features.video.frames=1",
]


@pytest.mark.heavy
def test_both_engines_take_part(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Local Snakemake and two workers of DVC's queue, which run in folders of their own, beside each other."""
    clone = Clone.make(machine / "clone", *TINY)
    clone.snakemake("--cores", "2", "data/dial/shards.json")
    clone.agm("record")
    clone.commit()
    concepts = [("audio", 0), ("audio", 1), ("video", 0), ("video", 1)]
    stages = [f"concept@late_concat-{modality}" for modality in ("audio", "video")]
    rates = (0.02, 0.03)
    for rate in rates:
        clone.dvc("exp", "run", "--queue", f"--set-param=trainer.optimizer.lr={rate}", *stages)
    indexes = [f"runs/dial/late_concat/concepts/{modality}/seed-{seed}/run.json" for modality, seed in concepts]
    commands = (["dvc", "queue", "start", "--jobs", "2"], ["snakemake", "--cores", "2", *indexes])
    try:
        # The workers keep open what they are given to write to.
        _, snakemake = [
            subprocess.Popen(
                [sys.executable, "-m", *command],
                cwd=clone.folder,
                env=clone.environment,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            for command in commands
        ]
        with watched(machine) as looks:
            while snakemake.poll() is None or re.search("Running|Queued", clone.dvc("queue", "status")):
                time.sleep(10)
        assert snakemake.returncode == 0
        status = clone.dvc("queue", "status")
        assert status.count("Success") == 2, status
    finally:
        clone.dvc("queue", "stop", "--kill")
    processes = {process for look in looks for process in look.values()}
    assert len(processes) == len(concepts) + len(rates) * len(stages), "every command of either engine held one"
    assert all(len(look) == len(set(look.values())) for look in looks), "and no more than one at a time"
    assert {device for look in looks for device in look} == {"agm-lease-cpu-0", "agm-lease-cpu-1"}


@contextmanager
def watched(folder: Path) -> Iterator[list[dict[str, str]]]:
    """The processes that are seen to hold the leases of devices, look by look; without a pause: a run may be short."""
    looks: list[dict[str, str]] = []
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(0.02):
            holders = {path.name: lock.holder(path.stat()) for path in folder.glob("agm-lease-cpu-*")}
            found = {name: re.match(r" \(process (\d+): ", holder) for name, holder in holders.items()}
            looks.append({name: match[1] for name, match in found.items() if match})

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield looks
    finally:
        ended.set()
        watcher.join()
