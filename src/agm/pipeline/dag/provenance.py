"""What a result was made from, and whether it still is what the parameters ask for.

Each job writes two small files. Its index says what its outputs *are*: their checksums, and other facts that the next
jobs need. Its record, `records/<path of the index>`, says what they were *made from*: the parameters, the code, and
the indexes of the jobs before. The next jobs depend on the index alone, so that a result which is made again and comes
out the same starts no other job.

A comparison of the record with the present decides whether an output is out of date: by content alone, whatever the
engines remember and whatever the clock says. `agm record`, the report and Snakemake's keys
(`agm.pipeline.dag.engines.keys`) all use it.
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
from agm.pipeline.io.files import digest, index_bytes, read_json, read_json_or_none, sha256, write_bytes, write_json

# Only raw files are made by no step: `agm generate` makes those of a demo set.
RAW_MISSING = "for a demo set `agm generate`; for your own data `agm compose … dataset.root=/its/folder`"

# The results of these steps may come from another machine, without what they were made from.
DATA = ("generate", "annotations", "list", "ingest", "extract", "shard")
ABOUT = "about"
LISTED = 8
"""Jobs named in one error."""
Checksums = dict[Path, str | None]


def expected(job: Job, params: Params, checksums: Checksums | None = None) -> dict[str, Any]:
    """What `job` would be made from now, under the parameters `params`.

    An input that does not exist yet is recorded as null. A caller that asks about a whole graph passes the same
    `checksums` each time, so that an input of many jobs is read once.
    """
    return {
        "parameters": config.select(params.content, list(job.parameters)),
        "code": {name: code.fingerprint(name) for name in job.code},
        "libraries": code.versions(job.step),
        "inputs": _inputs(job, {} if checksums is None else checksums),
    }


def _inputs(job: Job, checksums: Checksums) -> dict[str, str | None]:
    """The checksums of a job's inputs by their names; `checksums` is filled with those that it lacks."""
    inputs: dict[str, str | None] = {}
    for path in job.inputs:
        if path not in checksums:
            checksums[path] = digest(path) if path.exists() else None
        # The content of annotations counts, not the folder in which they are stored.
        name = job.cell[0] if job.step == "annotations" else str(path)
        inputs[name] = checksums[path]
    for path, keys in job.selected:
        inputs[str(path)] = _of_selected(path, keys)
    return inputs


def _of_selected(path: Path, keys: tuple[str, ...]) -> str | None:
    """Checksum of some keys of an index; None where the index cannot be read."""
    try:
        chosen = config.select(read_json(path), list(keys))
    except AgmError:
        return None
    return hashlib.sha256(json.dumps(chosen, sort_keys=True).encode()).hexdigest()


def write(job: Job, made_from: dict[str, Any], summary: dict[str, Any]) -> None:
    """Write the job's record, and then its index, which marks the job done.

    Args:
        job: the job that has been done.
        made_from: what its outputs were made from, as `expected` gives it.
        summary: the content of the index. Its key `ABOUT` goes to the record instead: how the outputs were made, which
            is not compared.
    """
    about = summary.pop(ABOUT, {})
    index = index_bytes(summary)
    files = {str(path): sha256(path) for path in _files(job)}
    record = {"index": hashlib.sha256(index).hexdigest(), "files": files, "made_from": made_from, **about}
    write_json(job.record, record)
    write_bytes(job.index, index)


def recorded(job: Job) -> dict[str, Any] | None:
    """The job's record; None where there is no complete one that belongs to the index."""
    record = read_json_or_none(job.record)
    try:
        is_complete = isinstance(record["made_from"], dict) and isinstance(record["files"], dict)
        # The index may come from another run than the record.
        if is_complete and record["index"] == sha256(job.index):
            return record
    except (OSError, KeyError, TypeError):
        pass
    return None


def outdated(job: Job, params: Params, checksums: Checksums | None = None) -> str | None:
    """Why the job's outputs are not what `params` ask for, or None where they are."""
    for path in job.results:
        if not path.exists():
            return f"{path} does not exist"
    return changed(job, expected(job, params, checksums))


def damaged(job: Job) -> str | None:
    """Which file of the job's outputs is not the one that was written, or None where all are."""
    written = recorded(job)["files"]
    there = {str(path) for path in _files(job)}
    # On one side only: a file that is missing, or one that the job did not write.
    if strange := there ^ written.keys():
        return f"{min(strange)} is missing, or was not written by `{job.command}`"
    for path, checksum in written.items():
        if sha256(Path(path)) != checksum:
            return f"{path} is damaged: it is not the one that was written"
    return None


def _files(job: Job) -> Iterator[Path]:
    """Every file of the job's outputs, without those that Snakemake adds to a folder (.snakemake_timestamp)."""
    for output in job.outputs:
        if not output.is_dir():
            yield output
            continue
        for path in sorted(output.rglob("*")):
            if path.is_file() and not path.name.startswith("."):
                yield path


def changed(job: Job, wanted: dict[str, Any]) -> str | None:
    """Why the existing outputs of the job are not made from `wanted`, or None where they are."""
    record = recorded(job)
    if record is not None:
        return difference(record["made_from"], wanted, job.step)
    if any(path.exists() for path in job.results):
        return f"{job.record} is missing or damaged, or of another {job.index}"
    return None


def difference(made_from: dict[str, Any], wanted: dict[str, Any], step: str) -> str | None:
    """The first difference between what a result of `step` was made from and what it would be made from now."""
    if made_from == wanted:
        return None
    if made_from.keys() != wanted.keys():
        return "it was recorded by another version of agm"
    for name, want in wanted["parameters"].items():
        had = made_from["parameters"].get(name)
        if had != want:
            return _parameter_difference(name, had, want)
    if made_from["parameters"] != wanted["parameters"]:
        return "it was made with parameters that no longer exist"
    for name, want in wanted["code"].items():
        if made_from["code"].get(name) != want:
            method = name.removeprefix("methods/")
            what = f"the step '{step}'" if method == name else f"the method '{method}'"
            return f"the source of {what} has changed"
    for name, want in wanted["libraries"].items():
        had = made_from["libraries"].get(name)
        if had != want:
            return f"{name} was {had}, now {want}"
    for name, want in wanted["inputs"].items():
        if made_from["inputs"].get(name) != want:
            return f"{name} has changed"
    return "it was made from other inputs"


def _parameter_difference(name: str, had: Any, want: Any) -> str:
    """The innermost parameter that differs, with its two values."""
    if isinstance(had, dict) and isinstance(want, dict):
        for key in had | want:
            if had.get(key) != want.get(key):
                return _parameter_difference(f"{name}.{key}", had.get(key), want.get(key))
    return f"{name} was {had}, now {want}"


def check_inputs(job: Job, graph: Graph, checksums: Checksums) -> None:
    """Refuse to start a job whose inputs are missing, or are not what the parameters ask for.

    An old result must never be taken for a new one, however the files came here.

    Args:
        job: the job to start.
        graph: the graph of the study.
        checksums: checksums of inputs, as for `expected`.

    Raises:
        AgmError: naming the jobs that must run first.
    """
    problems: dict[str, str] = {}
    for path in (*job.inputs, *job.data):
        maker = graph.makers.get(path)
        if maker is None:
            if not path.exists():
                raise AgmError(f"An input of `{job.command}` is missing", where=path, fix=RAW_MISSING)
            continue
        if maker.command in problems:
            continue
        if not path.exists():
            problems[maker.command] = f"{path} does not exist"
            continue
        # The index stands for all outputs of its job.
        from_elsewhere = maker.step in DATA and not maker.record.exists()
        if path != maker.index or from_elsewhere:
            continue
        if reason := changed(maker, expected(maker, graph.params, checksums)):
            problems[maker.command] = reason
    if problems:
        lines = listed([f"`{command}`: {reason}" for command, reason in problems.items()], LISTED)
        raise AgmError(
            f"Inputs of `{job.command}` are missing or are not what the parameters ask for:\n{lines}",
            where=config.PARAMS_FILE,
            fix="`snakemake` or `dvc repro` makes them; by hand: those commands, then what depends on them",
        )
