"""The table of workflow/profiles/slurm/config.yaml, in Snakemake's words; and which command tells how jobs do."""

import re
import subprocess
from typing import Any

import snakemake_executor_plugin_slurm

from agm.pipeline import config
from agm.pipeline.dag.code import STEPS
from agm.pipeline.errors import AgmError

COLUMNS = {"partition", "time", "mem", "cpus", "gpus", "nodes"}
OF_PROCESSES = ("train", "concept")  # the steps whose GPUs are counted for each process of a run

Row = dict[str, Any]


def resources(table: dict[str, Row], by_data_set: dict[str, dict[str, Row]], most: dict[str, Row]) -> dict[str, Row]:
    """What Snakemake's `set-resources` takes, by step: more time and memory at each attempt, up to the most.

    Args:
        table: by step, what it asks for.
        by_data_set: by data set and step, what is different there.
        most: by partition, the longest time and the largest memory that a job may ask for.

    Raises:
        AgmError: naming the row that has an unknown step, column or partition, or whose nodes do not divide the work.
    """
    params = config.read()
    processes = params.get("trainer", {}).get("processes", 1)
    return {
        step: _resources(step, row, most, processes if step in OF_PROCESSES else 1)
        for step, row in _rows(table, by_data_set, params).items()
    }


def threads(table: dict[str, Row], by_data_set: dict[str, dict[str, Row]]) -> dict[str, int]:
    """What Snakemake's `set-threads` takes: the CPUs of the steps whose rows name them."""
    rows = _rows(table, by_data_set, config.read())
    return {step: row["cpus"] for step, row in rows.items() if "cpus" in row}


def status_command() -> str:
    """`sacct` where the cluster keeps accounts, else `squeue`, and then nothing but `squeue`; either is understood."""
    _understand()
    try:
        said = subprocess.run(["scontrol", "show", "config"], capture_output=True, text=True, timeout=60).stdout
    except (OSError, subprocess.TimeoutExpired):
        said = ""
    if re.search(r"^AccountingStorageType\s*=.*slurmdbd", said, re.MULTILINE):
        return "sacct"
    _forget_sacct()
    return "squeue"


def _forget_sacct() -> None:
    """Keep Snakemake's plugin from asking `sacct` where there are no accounts.

    Told to ask `squeue`, it still asks `sacct` when the controller does not answer at once. That fails each time, in no
    time, until the attempts are used up; then the plugin forgets its jobs, and Snakemake waits for them for ever.
    """
    known = snakemake_executor_plugin_slurm.is_query_tool_available
    snakemake_executor_plugin_slurm.is_query_tool_available = lambda tool: tool != "sacct" and known(tool)


def _understand() -> None:
    """Have Snakemake's plugin see what became of every job; else it waits for some of them for ever.

    It takes "CANCELLED by 0", which `sacct` says of a job that a person cancelled, for the state of one that runs. Of
    the tasks of an array it asks `sacct` for numbers by which it does not know them: each would count as ended when the
    last one has. And those that were cancelled before they began, both commands name together.
    """
    ask = snakemake_executor_plugin_slurm.query_job_status

    async def query(command: str, logger: Any) -> tuple[dict[str, str] | None, float | None]:
        states, seconds = await ask(command.replace("JobIdRaw", "JobID"), logger)
        if states is not None:
            states = {job: state.partition(" ")[0] for jobs, state in states.items() for job in _tasks(jobs)}
        return states, seconds

    snakemake_executor_plugin_slurm.query_job_status = query


def _tasks(job: str) -> list[str]:
    """The jobs that SLURM means: of `7_[1-3,9%2]` 7_1, 7_2, 7_3 and 7_9."""
    found = re.fullmatch(r"(\d+)_\[([\d,-]+)(?:%\d+)?\]", job)
    if not found:
        return [job]
    ranges = [part.split("-") for part in found[2].split(",")]
    return [f"{found[1]}_{task}" for ends in ranges for task in range(int(ends[0]), int(ends[-1]) + 1)]


def _rows(table: dict[str, Row], by_data_set: dict[str, dict[str, Row]], params: dict[str, Any]) -> dict[str, Row]:
    """The table for the data set of `params`, checked."""
    for name, rows in {"table": table, **by_data_set}.items():
        for step, row in rows.items():
            if step not in STEPS or not set(row) <= COLUMNS:
                raise _error(
                    f"{name}: {step}", f"a row is one of {', '.join(STEPS)}, with {', '.join(sorted(COLUMNS))}"
                )
    different = by_data_set.get(params.get("dataset", {}).get("name"), {})
    return {step: {**table.get(step, {}), **different.get(step, {})} for step in {**table, **different}}


def _resources(step: str, row: Row, most: dict[str, Row], processes: int) -> Row:
    nodes = row.get("nodes", 1)
    if row["partition"] not in most:
        raise _error(f"{step}: {row['partition']}", f"the partitions are {', '.join(most)}")
    if processes % nodes:
        raise _error(f"{step}: {nodes} nodes", f"choose nodes that divide trainer.processes, which is {processes}")
    limit = most[row["partition"]]
    asked: Row = {
        "slurm_partition": row["partition"],
        "runtime": f"min({row['time']} * attempt, {limit['time']})",
        "mem_mb": f"min({row['mem']} * attempt, {limit['mem']})",
    }
    if row.get("gpus"):
        # As a GRES, which is counted on each node: `--gpus` may spread them over the nodes in any way.
        asked["gres"] = f"gpu:{row['gpus'] * processes // nodes}"
    if nodes > 1:
        # `mpi` only says that the command calls `srun` itself; else it would get one task on one of the nodes.
        asked |= {"mpi": "srun", "nodes": nodes, "tasks": nodes, "cpus_per_task": f"threads // {nodes}"}
    return asked


def _error(what: str, fix: str) -> AgmError:
    return AgmError(f"SLURM cannot be asked for this: {what}", where="workflow/profiles/slurm/config.yaml", fix=fix)
