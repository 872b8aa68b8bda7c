"""What made the report: the revision of the source, the libraries and the hardware, without times and host names."""

import os
import platform
import re
import subprocess
from collections import Counter
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

from agm import __version__
from agm.extras import DISTRIBUTION
from agm.pipeline.steps.report.collect import Study

GIGABYTE = 1e9


def revision() -> str:
    """The git commit of the current folder and whether it was changed since."""
    commit = _output("git", "rev-parse", "HEAD")
    if commit is None:
        return "not a git checkout, or one without a commit"
    if _output("git", "status", "--porcelain"):
        return f"{commit} with uncommitted changes"
    return commit


def libraries() -> dict[str, str]:
    """Versions of Python, of agm, and of those of its libraries that are installed, optional ones included."""
    versions = {"python": platform.python_version(), "agm": __version__}
    for name in sorted(_declared()):
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue  # it belongs to an extra that is not installed
    return versions


def _declared() -> set[str]:
    """Names of the libraries that agm and its extras need, without those for work on the source."""
    names = set()
    for line in metadata.requires(DISTRIBUTION) or []:
        if 'extra == "dev"' not in line:
            names.add(Requirement(line).name)
    return names - {DISTRIBUTION}  # its extras name each other


def hardware() -> dict[str, str]:
    """Processor, memory and accelerators of this machine."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / GIGABYTE
    # torch knows them too, but would take seconds and start the device.
    accelerators = _output("nvidia-smi", "--query-gpu=name", "--format=csv,noheader") or "none found"
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cores": f"{len(os.sched_getaffinity(0))} usable of {os.cpu_count()}",
        "memory": f"{memory:.0f} GB",
        "accelerators": ", ".join(accelerators.splitlines()),
    }


def training(study: Study) -> list[dict[str, str]]:
    """The different environments that the runs recorded, each with its number of networks."""
    counted = Counter(tuple(run.environment.items()) for run in study.runs)
    environments = []
    for items, runs in counted.items():
        versions = {name: str(value) for name, value in items}
        environments.append({"networks": str(runs), **versions})
    return environments


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    text = cpuinfo.read_text() if cpuinfo.exists() else ""
    model = re.search(r"^model name\s*:\s*(.+)$", text, flags=re.MULTILINE)
    if model:
        return model.group(1)
    return platform.processor() or "unknown"


def _output(*command: str) -> str | None:
    """What a command prints; None where the command is missing or fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
