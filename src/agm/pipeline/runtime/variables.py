"""The environment variables that a user may set.

Each is checked before any work begins; an empty variable counts as not set.

    AGM_DEVICE     devices that may be used: cpu, cuda or cuda:1, or a list such as cuda:0,cuda:1; by default the GPUs
    AGM_WORKERS    processes of a step that reads many files; by default what the engine granted, else one per core
    AGM_STORE_GB   gigabytes of earlier results to keep in .cache/store; by default 20
    AGM_TRUST_RAW  1: raw files are taken for unchanged, and not looked at
    AGM_LEASES     folder of the leases of devices, the same for all users of the machine; by default /tmp
"""

import math
import os
import re
from pathlib import Path

from agm.pipeline.errors import AgmError

DEVICE = "AGM_DEVICE"
WORKERS = "AGM_WORKERS"
STORE = "AGM_STORE_GB"
TRUST_RAW = "AGM_TRUST_RAW"
LEASES = "AGM_LEASES"

STORE_GB = 20.0
# Not TMPDIR, which may differ from user to user.
LEASES_FOLDER = "/tmp"


def check() -> None:
    """Check all variables.

    Raises:
        AgmError: naming the first variable that is wrong.
    """
    devices()
    workers()
    store_bytes()
    trusts_raw()
    leases()


def devices() -> list[str]:
    """The devices of AGM_DEVICE; none when it is not set."""
    value = os.environ.get(DEVICE)
    if not value:
        return []
    names = [name.strip() for name in value.split(",")]
    for name in names:
        if not re.fullmatch(r"(cpu|cuda)(:\d+)?", name):
            raise _error(DEVICE, "names a device that is not known here", "use cpu, cuda, cuda:N or cuda:0,cuda:1")
    return names


def workers() -> int | None:
    """The number of processes of AGM_WORKERS; None when it is not set."""
    value = os.environ.get(WORKERS)
    if not value:
        return None
    if not re.fullmatch(r"0*[1-9]\d*", value, re.ASCII):
        raise _error(WORKERS, "is not a whole number from 1", f"{WORKERS}=4, or unset it to use every core")
    return int(value)


def store_bytes() -> float:
    """The greatest number of bytes of results to keep."""
    value = os.environ.get(STORE)
    try:
        gigabytes = float(value or STORE_GB)
    except ValueError:
        gigabytes = math.nan
    # Written this way because every comparison with nan is false.
    if not gigabytes >= 0:
        raise _error(STORE, "is not a number from 0", f"{STORE}=20, or 0 to keep nothing")
    return gigabytes * 1e9


def trusts_raw() -> bool:
    """Whether raw files count as unchanged without a look at them."""
    value = os.environ.get(TRUST_RAW) or "0"
    if value not in ("0", "1"):
        raise _error(TRUST_RAW, "is neither 0 nor 1", f"{TRUST_RAW}=1, or unset it to look at the files")
    return value == "1"


def leases() -> Path:
    """The folder of the leases."""
    folder = Path(os.environ.get(LEASES) or LEASES_FOLDER)
    if not folder.is_dir():
        raise _error(LEASES, "is not a folder", "set it to one that all users of the machine may write to")
    return folder


def _error(name: str, what: str, fix: str) -> AgmError:
    return AgmError(f"{name} {what}", where=f"{name}={os.environ.get(name, '')}", fix=fix)
