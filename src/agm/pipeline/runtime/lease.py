"""A lease per device: one process of a machine at a time computes on a GPU.

Neither engine assigns devices, and two checkouts, or two users, may share a machine. So a process that wants a device
locks the device's file in /tmp, which all users of a machine share whatever their TMPDIR is (AGM_LEASES names another
folder). The lock ends with the process, however that ends. AGM_DEVICE says which devices may be used: `cpu`, which any
number of processes may use, or a list such as `cuda:0,cuda:1` (`cuda` is every GPU). Devices with a number are leased.
Where SLURM assigned GPUs to this job, no other process uses them, and nothing is leased.
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
        name: its name for torch in this process, such as cuda:0.
        key: its identity on the machine; None where any number of processes may use it at once.
    """

    name: str
    key: str | None = None


@dataclass
class Lease:
    """Devices that this process may compute on until it releases them or dies.

    Attributes:
        devices: their names for torch, one for each device that was requested.
    """

    devices: list[str]
    _files: list[int] = field(default_factory=list)

    def release(self) -> None:
        """Give the devices back."""
        while self._files:
            unlock(self._files.pop())


def take(count: int) -> Lease:
    """Lease `count` devices, all or none; waits until as many are free.

    Raises:
        AgmError: when there are fewer devices, or when something else is in the place of a lease's file.
    """
    devices = usable()
    shared = [device.name for device in devices if device.key is None]
    if shared:
        # Processes may share such a device, so that one may be given several times.
        return Lease([shared[number % len(shared)] for number in range(count)])
    if len(devices) < count:
        raise AgmError(
            f"{count} devices are needed, and this process may use {len(devices)}",
            where=f"AGM_DEVICE={os.environ.get('AGM_DEVICE', '')}",
            fix="set AGM_DEVICE to as many devices, or trainer.processes to fewer",
        )
    assigned_by_slurm = os.environ.get("SLURM_JOB_GPUS") or os.environ.get("SLURM_STEP_GPUS")
    if assigned_by_slurm and len(devices) == count:
        return Lease([device.name for device in devices])
    return _waited(devices, count)


def usable() -> list[Device]:
    """The devices that AGM_DEVICE allows; without it every GPU that torch can use, or the CPU."""
    # CUDA reads this when it starts: by default it puts the fastest GPU first, and nvidia-smi does not.
    os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    requested = variables.devices()
    names = requested or ["cuda"]
    gpus: dict[str, str] = {}
    # Only for CUDA: torch takes seconds to import.
    if any(name.startswith("cuda") for name in names):
        gpus = _of_torch()
    if not gpus and not requested:
        return [Device("cpu")]
    devices: list[Device] = []
    for name in names:
        if name == "cuda" and gpus:
            devices += [Device(gpu, key) for gpu, key in gpus.items()]
            continue
        # A device that torch does not see is still leased under its name, where it has a number.
        default = name if ":" in name else None
        devices.append(Device(name, gpus.get(name, default)))
    # Once each, where the list names a GPU twice.
    return list(dict.fromkeys(devices))


def _of_torch() -> dict[str, str]:
    """The GPUs that torch can use, each with its identity; with its name where nvidia-smi does not list it."""
    # Here, because Snakemake's profile counts GPUs with this module, and the import takes seconds.
    import torch

    if not torch.cuda.is_available():
        return {}
    names = [f"cuda:{number}" for number in range(torch.cuda.device_count())]
    keys = visible()
    if len(keys) != len(names):
        keys = names
    return dict(zip(names, keys, strict=True))


def visible() -> list[str]:
    """The identities of the GPUs that CUDA_VISIBLE_DEVICES shows this process, in its order. Does not import torch."""
    installed = _gpus()
    setting = os.environ.get("CUDA_VISIBLE_DEVICES")
    if setting is None or not installed:
        return installed
    shown = []
    for entry in setting.split(","):
        gpu = _named(entry.strip(), installed)
        # CUDA hides all GPUs after an entry that it does not understand.
        if gpu is None:
            break
        shown.append(gpu)
    return shown


def _named(entry: str, installed: list[str]) -> str | None:
    """The GPU that an entry of CUDA_VISIBLE_DEVICES means: a number, the beginning of an identity, or a slice (MIG)."""
    if entry.startswith("MIG-"):
        return entry
    if not entry:
        return None
    if entry.isdecimal():
        number = int(entry)
        return installed[number] if number < len(installed) else None
    matching = [identity for identity in installed if identity.startswith(entry)]
    return matching[0] if len(matching) == 1 else None


def _gpus() -> list[str]:
    """The identities of the machine's GPUs, in the order of nvidia-smi."""
    try:
        listing = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True).stdout
    except OSError:
        return []
    return re.findall(r"^GPU \d+:.*\(UUID: (\S+)\)", listing, re.MULTILINE)


def _waited(devices: list[Device], count: int) -> Lease:
    """Lease `count` of the devices, when as many are free."""
    # Processes that want the same devices queue: many that want one device do not starve one that wants two. Processes
    # that want other devices have another queue.
    keys = sorted(str(device.key) for device in devices)
    name = hashlib.sha256("\n".join(keys).encode()).hexdigest()[:16]
    queue = _open(f"queue-{name}")
    has_said_so = False
    try:
        if not lock(queue):
            _say_waiting(devices, count)
            has_said_so = True
            lock(queue, wait=True)
        while len(files := _attempt(devices, count)) < count:
            if not has_said_so:
                _say_waiting(devices, count)
                has_said_so = True
            # At random, so that two queues do not try at the same moments.
            time.sleep(POLL_SECONDS * random.uniform(0.5, 1.5))
    finally:
        unlock(queue)
    lease = Lease([device.name for device in files], list(files.values()))
    say(f"computes on {', '.join(lease.devices)}")
    return lease


def _attempt(devices: list[Device], count: int) -> dict[Device, int]:
    """The first `count` devices that are free, each with its locked file; none when fewer are free."""
    files: dict[Device, int] = {}
    for device in devices:
        descriptor = _open(str(device.key))
        if lock(descriptor):
            files[device] = descriptor
        else:
            unlock(descriptor)
        if len(files) == count:
            return files
    # All or none: a process that keeps one device while it waits for the second would block others.
    for descriptor in files.values():
        unlock(descriptor)
    return {}


def _say_waiting(devices: list[Device], count: int) -> None:
    """Tell the user which devices are held, and by which processes."""
    held = []
    for device in devices:
        path = _path(str(device.key))
        if path.exists():
            held.append(f"{device.name}{holder(os.stat(path))}")
    say(f"waiting for {count} of {len(devices)} devices: {', '.join(held)}")


def _path(key: str) -> Path:
    return variables.leases() / f"agm-lease-{re.sub(r'[^A-Za-z0-9-]', '-', key)}"


def _open(key: str) -> int:
    """Open the file of a lease, which another user may have made, in a folder where everybody may write."""
    path = _path(key)
    # Nothing is read or written, no link is followed, and a pipe does not block.
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        try:
            descriptor = os.open(path, flags)
        except FileNotFoundError:
            # Not at the first attempt: the kernel may refuse O_CREAT for a file of another user. O_EXCL never follows
            # a link.
            descriptor = os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o444)
            # Whatever the umask is: other users lock this file too.
            os.fchmod(descriptor, 0o444)
    except FileExistsError:
        # Another process made it at this moment.
        return _open(key)
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.ENXIO, errno.EACCES):
            raise
        raise _trap(path) from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise _trap(path)
    return descriptor


def _trap(path: Path) -> AgmError:
    """The error about something that is not a lease's file: it may be there to do harm."""
    what = "Devices are leased by a plain file that everybody may read, and something else lies in its place"
    return AgmError(what, where=path, fix="find out whose it is, and delete it")
