"""The device of a run, and the settings that make a run repeatable on it."""

import os
import platform
from functools import cache
from importlib.metadata import version
from typing import Any

import torch

from agm import __version__
from agm.pipeline.errors import AgmError
from agm.pipeline.runtime import lease


def prepare_device(threads: int) -> torch.device:
    """Choose the device (AGM_DEVICE, else a GPU if there is one) and make torch deterministic on it.

    A GPU is leased first (`agm.pipeline.runtime.lease`), until the process ends: waits until one is free.

    Raises:
        AgmError: when AGM_DEVICE names a device that torch cannot use.
    """
    # cuBLAS reads this when CUDA starts: it must be set before.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.set_num_threads(threads)
    name = _leased(os.environ.get("AGM_DEVICE"))
    try:
        device = torch.zeros((), device=name).device
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise AgmError(
            f"torch cannot use this device: {reason}",
            where=f"AGM_DEVICE={name}",
            fix="use cpu, cuda or cuda:N",
        ) from None
    if device.type != "cpu":
        # Not on a CPU: with a fixed number of threads its results repeat anyway, and this switch imports the compiler,
        # which takes seconds. An operation without a deterministic form only warns, so that training is possible.
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.backends.cudnn.benchmark = False
    return device


@cache
def _leased(setting: str | None) -> str:
    """The device that this process holds from now on; a second one only where AGM_DEVICE changes, as in tests."""
    # The process that started this one holds the lease.
    if os.environ.get("AGM_LEASED"):
        return lease.usable()[0].name
    # Nothing releases this lease: it lasts until the process ends.
    return lease.take(1).devices[0]


def environment(device: torch.device) -> dict[str, Any]:
    """The versions, the device and the threads that a run was computed with."""
    return {
        "python": platform.python_version(),
        "agm": __version__,
        **{name: version(name) for name in ("torch", "torchvision", "numpy")},
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "machine": platform.machine(),
        "threads": torch.get_num_threads(),
    }
