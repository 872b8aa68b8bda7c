"""What a result was made from, and whether it still is what the parameters ask for.

Each job leaves two small files. Its index says what its outputs *are*: their checksums, and what else those that
follow need. Its record, `records/<path of the index>`, says what they were *made from*: the parameters, the code, and
the indexes of the jobs before. Who follows depends on the index alone, so that a result which is made anew and comes
out the same wakes nobody.

Comparing records with the present decides whether an output is out of date: by content alone, whatever the engines
remember and whatever the clock says. `agm record`, the report and Snakemake's keys (`agm.pipeline.dag.engines.keys`)
all ask here.
"""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from agm.pipeline import config
from agm.pipeline.config import Params
from agm.pipeline.dag import code
from agm.pipeline.dag.graph import Graph, Job
from agm.pipeline.errors import AgmError, listed
from agm.pipeline.io.files import digest, index_bytes, read_json, sha256, write_bytes, write_json

# The first step to read what no step made, unless it is a demo set.
RAW_MISSING = "for a demo set `agm generate`; for your own data `agm compose … dataset.root=/its/folder`"

DATA = ("generate", "annotations", "list", "ingest", "extract", "shard")
ABOUT = "about"
LISTED = 8
"""Jobs named in one error."""
Checksums = dict[Path, str | None]


def expected(job: Job, params: Params, checksums: Checksums | None = None) -> dict[str, Any]:
    """What `job` would be made from now, under the parameters `params`.

    An input that does not exist yet is recorded as null. Who asks about a whole graph shares `checksums`, so that an
    input of many jobs is read once.
    """
    checksums = {} if checksums is None else checksums
    for path in job.inputs:
        if path not in checksums:
            checksums[path] = digest(path) if path.exists() else None
    return {
        "parameters": config.select(params.content, list(job.parameters)),
        "code": {name: code.fingerprint(name) for name in job.code},
        "libraries": code.versions(job.step),
        # Annotations are what they say, wherever they lie.
        "inputs": {job.cell[0] if job.step == "annotations" else str(path): checksums[path] for path in job.inputs}
        | {str(path): _of_selected(path, keys) for path, keys in job.selected},
    }


def _of_selected(path: Path, keys: tuple[str, ...]) -> str | None:
    """Checksum of some keys of an index; None where there is none."""
    try:
        chosen = config.select(read_json(path), list(keys))
    except AgmError:
        return None
    return hashlib.sha256(json.dumps(chosen, sort_keys=True).encode()).hexdigest()


def write(job: Job, made_from: dict[str, Any], summary: dict[str, Any]) -> None:
    """Write the job's record, and then its index, which marks the job done.

    Args:
        summary: for the index; what it has under `ABOUT` is for the record: how the outputs were made, which no one
            compares.
    """
    about = summary.pop(ABOUT, {})
    index = index_bytes(summary)
    files = {str(path): sha256(path) for path in _files(job)}
    record = {"index": hashlib.sha256(index).hexdigest(), "files": files, "made_from": made_from, **about}
    write_json(job.record, record)
    write_bytes(job.index, index)


def recorded(job: Job) -> dict[str, Any] | None:
    """The job's record, or None where there is none of its index."""
    try:
        record = read_json(job.record)
        whole = isinstance(record["made_from"], dict) and isinstance(record["files"], dict)
        return record if whole and record["index"] == sha256(job.index) else None
    except (AgmError, OSError, KeyError, TypeError):
        return None


def outdated(job: Job, params: Params, checksums: Checksums | None = None) -> str | None:
    """Why the job's outputs are not what `params` ask for, or None where they are."""
    missing = [path for path in (job.index, *job.outputs) if not path.exists()]
    return f"{missing[0]} does not exist" if missing else changed(job, expected(job, params, checksums))


def damaged(job: Job) -> str | None:
    """Which file of the job's outputs is not the one that was written, or None where all are."""
    want = recorded(job)["files"]
    if strange := {str(path) for path in _files(job)} ^ want.keys():
        return f"{min(strange)} is missing, or was not written by `{job.command}`"
    broken = (path for path, checksum in want.items() if sha256(Path(path)) != checksum)
    return next((f"{path} is damaged: it is not the one that was written" for path in broken), None)


def _files(job: Job) -> Iterator[Path]:
    """Every file of the job's outputs, less what Snakemake leaves in a folder (.snakemake_timestamp)."""
    for output in job.outputs:
        inside = [each for each in output.rglob("*") if each.is_file() and not each.name.startswith(".")]
        yield from sorted(inside) if output.is_dir() else [output]


def changed(job: Job, wanted: dict[str, Any]) -> str | None:
    """Why those of the job's outputs that exist are not made from `wanted`, or None where they are."""
    record = recorded(job)
    if record is None:
        there = [path for path in (job.index, *job.outputs) if path.exists()]
        return f"{job.record} is missing or damaged, or of another {job.index}" if there else None
    return difference(record["made_from"], wanted, job.step)


def difference(found: dict[str, Any], wanted: dict[str, Any], step: str) -> str | None:
    """How what a result of `step` was made from differs from what it would be made from now; None where it does not."""
    if found == wanted:
        return None
    if found.keys() != wanted.keys():
        return "it was recorded by another version of agm"
    for name, want in wanted["parameters"].items():
        if (had := found["parameters"].get(name)) != want:
            return _difference(name, had, want)
    if found["parameters"] != wanted["parameters"]:
        return "it was made with parameters that no longer exist"
    for name, want in wanted["code"].items():
        if found["code"].get(name) != want:
            what = (
                f"the method '{name.removeprefix('methods/')}'" if name.startswith("methods/") else f"the step '{step}'"
            )
            return f"the source of {what} has changed"
    for name, want in wanted["libraries"].items():
        if (had := found["libraries"].get(name)) != want:
            return f"{name} was {had}, now {want}"
    for name, want in wanted["inputs"].items():
        if found["inputs"].get(name) != want:
            return f"{name} has changed"
    return "it was made from other inputs"


def _difference(name: str, had: Any, want: Any) -> str:
    """Names the innermost parameter that differs."""
    if isinstance(had, dict) and isinstance(want, dict):
        for key in {**had, **want}:
            if had.get(key) != want.get(key):
                return _difference(f"{name}.{key}", had.get(key), want.get(key))
    return f"{name} was {had}, now {want}"


def check_inputs(job: Job, graph: Graph, checksums: Checksums) -> None:
    """Refuse to start a job whose inputs are not there, or are not what the parameters ask for.

    An old result must never pass for a new one, by whatever way the files got here.

    Args:
        checksums: as `expected` has them.

    Raises:
        AgmError: naming the jobs that must run first.
    """
    problems: dict[str, str] = {}
    for path in (*job.inputs, *job.data):
        maker = graph.makers.get(path)
        if maker is None and not path.exists():
            raise AgmError(f"An input of `{job.command}` is missing", where=path, fix=RAW_MISSING)
        if maker is None or maker.command in problems:
            continue
        if not path.exists():
            problems[maker.command] = f"{path} does not exist"
        elif path != maker.index or (maker.step in DATA and not maker.record.exists()):
            continue  # shards, and what they were made from, may come from elsewhere
        elif reason := changed(maker, expected(maker, graph.params, checksums)):
            problems[maker.command] = reason
    if problems:
        lines = listed([f"`{command}`: {reason}" for command, reason in problems.items()], LISTED)
        raise AgmError(
            f"Inputs of `{job.command}` are missing or are not what the parameters ask for:\n{lines}",
            where=config.PARAMS_FILE,
            fix="`snakemake` or `dvc repro` makes them; by hand: those commands, then what depends on them",
        )
