"""A lease per device: of all processes of a machine, one at a time computes on a GPU.

Neither engine assigns devices, and two checkouts, or two users, may share a machine. So whoever wants a device locks
its file in /tmp, where all users of a machine look whatever their TMPDIR says (AGM_LEASES names another folder); the
lock ends with the process, however that ends. AGM_DEVICE says which devices may be used: `cpu`, which any number of
processes may, or a list such as `cuda:0,cuda:1` (`cuda` is every GPU); what has a number is leased. Where SLURM
assigned this job its GPUs, they are its own, and nothing is leased.
"""

import errno
import hashlib
import os
import random
import re
import stat
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

from agm.pipeline.errors import AgmError
from agm.pipeline.runtime import variables
from agm.pipeline.runtime.lock import holder, lock, unlock
from agm.pipeline.runtime.progress import say

POLL_SECONDS = 0.25


@dataclass(frozen=True)
class Device:
    """A device that this process may use.

    Attributes:
        name: what torch calls it in this process, such as cuda:0.
        key: the one device of the machine that it is; None where any number of processes may use it at once.
    """

    name: str
    key: str | None = None


@dataclass
class Lease:
    """Devices that this process may compute on until it releases them or dies.

    Attributes:
        devices: their names for torch, one for each that was asked for.
    """

    devices: list[str]
    _files: list[int] = field(default_factory=list)

    def release(self) -> None:
        """Give the devices back."""
        while self._files:
            unlock(self._files.pop())


def take(count: int) -> Lease:
    """Lease `count` devices, all or none; waits until so many are free.

    Raises:
        AgmError: when there are fewer, or when something else lies where a lease's file should.
    """
    devices = usable()
    if shared := [each.name for each in devices if each.key is None]:
        return Lease([shared[number % len(shared)] for number in range(count)])
    if len(devices) < count:
        raise AgmError(
            f"{count} devices are needed, and this process may use {len(devices)}",
            where=f"AGM_DEVICE={os.environ.get('AGM_DEVICE', '')}",
            fix="set AGM_DEVICE to as many devices, or trainer.processes to fewer",
        )
    if len(devices) == count and (os.environ.get("SLURM_JOB_GPUS") or os.environ.get("SLURM_STEP_GPUS")):
        return Lease([each.name for each in devices])
    return _waited(devices, count)


def usable() -> list[Device]:
    """The devices that AGM_DEVICE allows; without it every GPU that torch can use, or the CPU."""
    # CUDA reads this when it starts: by default it puts the fastest GPU first, and nvidia-smi does not.
    os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    asked_for = variables.devices()
    names = asked_for or ["cuda"]
    seen = _of_torch() if any(name.startswith("cuda") for name in names) else {}
    if not seen and not asked_for:
        return [Device("cpu")]
    found: list[Device] = []
    for name in names:
        if name == "cuda" and seen:
            found += map(Device, seen.keys(), seen.values())
        else:
            found.append(Device(name, seen.get(name, name if ":" in name else None)))
    return list(dict.fromkeys(found))


def _of_torch() -> dict[str, str]:
    """The GPUs that torch can use, each with its identity, or its number where nvidia-smi tells none."""
    import torch  # here, because Snakemake's profile counts GPUs, and this takes seconds

    if not torch.cuda.is_available():
        return {}
    names = [f"cuda:{number}" for number in range(torch.cuda.device_count())]
    keys = visible()
    return dict(zip(names, keys if len(keys) == len(names) else names, strict=True))


def visible() -> list[str]:
    """The identities of the GPUs that CUDA_VISIBLE_DEVICES shows this process, in its order. Does not import torch."""
    every = _gpus()
    shown = os.environ.get("CUDA_VISIBLE_DEVICES")
    if shown is None:
        return every
    found = []
    for entry in map(str.strip, shown.split(",") if every else []):
        if (gpu := _named(entry, every)) is None:
            break  # and what follows is hidden too
        found.append(gpu)
    return found


def _named(entry: str, every: list[str]) -> str | None:
    """The GPU that an entry of CUDA_VISIBLE_DEVICES means: its number, the beginning of its identity, or a slice's."""
    if entry.startswith("MIG-"):
        return entry
    matching = every[int(entry) :][:1] if entry.isdecimal() else [each for each in every if each.startswith(entry)]
    return matching[0] if entry and len(matching) == 1 else None


def _gpus() -> list[str]:
    """The identities of the machine's GPUs, in the order of nvidia-smi."""
    try:
        listing = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True).stdout
    except OSError:
        return []
    return re.findall(r"^GPU \d+:.*\(UUID: (\S+)\)", listing, re.MULTILINE)


def _waited(devices: list[Device], count: int) -> Lease:
    # One in turn of those that want the same devices: many who want one do not starve one who wants two. Who wants
    # others does not queue behind it.
    wanted = hashlib.sha256("\n".join(sorted(str(each.key) for each in devices)).encode()).hexdigest()[:16]
    turn, told = _open(f"queue-{wanted}"), False
    try:
        if not lock(turn):
            told = _tell(devices, count)
            lock(turn, wait=True)
        while len(files := _attempt(devices, count)) < count:
            told = told or _tell(devices, count)
            time.sleep(POLL_SECONDS * random.uniform(0.5, 1.5))
    finally:
        unlock(turn)
    lease = Lease([each.name for each in files], list(files.values()))
    say(f"computes on {', '.join(lease.devices)}")
    return lease


def _attempt(devices: list[Device], count: int) -> dict[Device, int]:
    """The first `count` devices that are free, each with its locked file; none when they are fewer."""
    files: dict[Device, int] = {}
    for device in devices:
        descriptor = _open(str(device.key))
        if lock(descriptor):
            files[device] = descriptor
        else:
            unlock(descriptor)
        if len(files) == count:
            return files
    for descriptor in files.values():
        unlock(descriptor)
    return {}


def _tell(devices: list[Device], count: int) -> bool:
    held = [f"{each.name}{holder(os.stat(_path(str(each.key))))}" for each in devices if _path(str(each.key)).exists()]
    say(f"waiting for {count} of {len(devices)} devices: {', '.join(held)}")
    return True


def _path(key: str) -> Path:
    return variables.leases() / f"agm-lease-{re.sub(r'[^A-Za-z0-9-]', '-', key)}"


def _open(key: str) -> int:
    """Open the file of a lease, which other users may have made, in a folder where anybody may lay anything."""
    path = _path(key)
    # Nothing is read or written, no link is followed, and a pipe does not block.
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        try:
            descriptor = os.open(path, flags)
        except FileNotFoundError:
            # Only here: for a file of somebody else the kernel may refuse it. It never follows a link.
            descriptor = os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o444)
            os.fchmod(descriptor, 0o444)  # whatever the umask: others take part
    except FileExistsError:
        return _open(key)  # made by another process this very moment
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.ENXIO, errno.EACCES):
            raise
        raise _trap(path) from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise _trap(path)
    return descriptor


def _trap(path: Path) -> AgmError:
    what = "Devices are leased by a plain file that everybody may read, and something else lies in its place"
    return AgmError(what, where=path, fix="find out whose it is, and delete it")
