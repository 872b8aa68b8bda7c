"""What an output was made from, and whether it still is what the parameters ask for.

Every job's index file records the parameters, the code and the inputs that it was made from. Comparing that record
with the present decides whether an output is out of date: by content alone, whatever the engines remember and
whatever the clock says. `agm record`, the report and Snakemake's keys (`agm.engines.keys`) all ask `outdated`.
"""

import hashlib
from functools import cache
from pathlib import Path
from typing import Any

import agm
from agm import config
from agm.errors import AgmError
from agm.files import digest, read_json
from agm.graph import Job

RECORD = "made_from"
# The first step to read what no step made, unless it is a demo set.
RAW_MISSING = "for a demo set `agm generate`; for your own data `agm compose … dataset.root=/its/folder`"


def expected(job: Job, content: dict[str, Any], checksums: dict[Path, str | None] | None = None) -> dict[str, Any]:
    """The record that `job` would write now, under raw parameters `content`.

    An input that does not exist yet is recorded as null. Who asks about a whole graph shares `checksums`, so that an
    input of many jobs is read once.
    """
    checksums = {} if checksums is None else checksums
    for path in job.inputs:
        if path not in checksums:
            checksums[path] = digest(path) if path.exists() else None
    return {
        "parameters": config.select(content, list(job.parameters)),
        "code": fingerprint(job.code),
        "inputs": {str(path): checksums[path] for path in job.inputs},
    }


def recorded(job: Job) -> dict[str, Any] | None:
    """The record in the job's index, or None where the job has not run (or left something broken)."""
    try:
        return read_json(job.index)[RECORD]
    except (AgmError, KeyError, TypeError):
        return None


def outdated(job: Job, content: dict[str, Any]) -> str | None:
    """Why the job's outputs are not what `content` asks for, or None where they are."""
    missing = [path for path in (job.index, *job.outputs) if not path.exists()]
    return f"{missing[0]} does not exist" if missing else changed(job, expected(job, content))


def changed(job: Job, wanted: dict[str, Any]) -> str | None:
    """Why those of the job's outputs that exist are not what the record `wanted` says, or None where they are."""
    found = recorded(job)
    if found is None:
        there = [path for path in (job.index, *job.outputs) if path.exists()]
        return f"{job.index} is damaged, or does not say what it was made from" if there else None
    for name, want in wanted["parameters"].items():
        if (had := found["parameters"].get(name)) != want:
            return _difference(name, had, want)
    if found["parameters"] != wanted["parameters"]:
        return "it was made with parameters that no longer exist"
    if found["code"] != wanted["code"]:
        return f"the source of the step '{job.step}' has changed"
    for name, want in wanted["inputs"].items():
        if found["inputs"].get(name) != want:
            return f"{name} has changed"
    return None if found == wanted else "it was made from other inputs"


def _difference(name: str, had: Any, want: Any) -> str:
    """Names the innermost parameter that differs."""
    if isinstance(had, dict) and isinstance(want, dict):
        for key in {**had, **want}:
            if had.get(key) != want.get(key):
                return _difference(f"{name}.{key}", had.get(key), want.get(key))
    return f"{name} was {had}, now {want}"


def check_inputs(job: Job) -> None:
    """Refuse to start a job whose inputs are not there.

    Raises:
        AgmError: naming the first missing file.
    """
    for path in (*job.inputs, *job.data):
        if not path.exists():
            raise AgmError(
                f"An input of `{job.command}` is missing",
                where=path,
                fix=RAW_MISSING if job.step == "annotations" else "run the earlier steps: `snakemake` or `dvc repro`",
            )


@cache
def fingerprint(code: tuple[str, ...]) -> str:
    """Checksum over the Python source (and templates) below the given paths of the package."""
    package = Path(agm.__file__).parent
    digest = hashlib.sha256()
    for name in code:
        path = package / name
        for each in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if each.is_file() and "__pycache__" not in each.parts:
                digest.update(each.relative_to(package).as_posix().encode() + b"\0" + each.read_bytes() + b"\0")
    return digest.hexdigest()
