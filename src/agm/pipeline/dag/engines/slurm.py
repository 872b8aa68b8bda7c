"""What workflow/profiles/slurm/config.yaml asks for: its table in Snakemake's words, and how to ask after jobs."""

import re
import subprocess
from functools import cache
from typing import Any

from agm.pipeline import config
from agm.pipeline.dag.code import STEPS
from agm.pipeline.dag.engines import slurm_plugin
from agm.pipeline.dag.engines.tools import errors_explained
from agm.pipeline.errors import AgmError

COLUMNS = {"partition", "time", "mem", "cpus", "gpus", "nodes"}
OF_PROCESSES = ("train", "concept")
"""The steps whose GPUs are counted for each process of a run."""

Row = dict[str, Any]


def resources(table: dict[str, Row], by_data_set: dict[str, dict[str, Row]], most: dict[str, Row]) -> dict[str, Row]:
    """The `set-resources` of Snakemake by step: more time and memory at each attempt, up to the limits.

    Args:
        table: for each step, what it asks for.
        by_data_set: for each data set and step, what differs from the table.
        most: for each partition, the longest time and the largest memory that a job may ask for.

    Raises:
        AgmError: naming the row that has an unknown step, column or partition, or whose nodes do not divide the work.
    """
    params = config.read()
    processes = params.get("trainer", {}).get("processes", 1)
    asked = {}
    for step, row in _rows(table, by_data_set, params).items():
        asked[step] = _resources(step, row, most, processes if step in OF_PROCESSES else 1)
    return asked


def threads(table: dict[str, Row], by_data_set: dict[str, dict[str, Row]]) -> dict[str, int]:
    """The `set-threads` of Snakemake: the CPUs of the steps whose rows name them."""
    rows = _rows(table, by_data_set, config.read())
    return {step: row["cpus"] for step, row in rows.items() if "cpus" in row}


def correct_plugin() -> None:
    """Correct Snakemake's plugin where it would wait for ever (`slurm_plugin` says in what).

    Ends Snakemake, with the reason and what to do, when no plugin is installed or one of another version. An error
    would be shown at the end of a page about Snakemake's arguments.
    """
    with errors_explained():
        slurm_plugin.correct(accounts=keeps_accounts())


def status_command() -> str:
    """The command by which the plugin asks after its jobs: `sacct` where the cluster keeps accounts, else `squeue`."""
    return "sacct" if keeps_accounts() else "squeue"


@cache
def keeps_accounts() -> bool:
    """Whether the cluster keeps accounts, by its configuration."""
    try:
        done = subprocess.run(["scontrol", "show", "config"], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return re.search(r"^AccountingStorageType\s*=.*slurmdbd", done.stdout, re.MULTILINE) is not None


def _rows(table: dict[str, Row], by_data_set: dict[str, dict[str, Row]], params: dict[str, Any]) -> dict[str, Row]:
    """The table for the data set of `params`, checked."""
    for name, rows in {"table": table, **by_data_set}.items():
        for step, row in rows.items():
            if step not in STEPS or not set(row) <= COLUMNS:
                fix = f"a row is one of {', '.join(STEPS)}, with {', '.join(sorted(COLUMNS))}"
                raise _error(f"{name}: {step}", fix)
    different = by_data_set.get(params.get("dataset", {}).get("name"), {})
    # A row of the data set replaces single columns of the table's row.
    return {step: table.get(step, {}) | different.get(step, {}) for step in table | different}


def _resources(step: str, row: Row, most: dict[str, Row], processes: int) -> Row:
    """The resources of one step in Snakemake's words, from its row of the table."""
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
        # A GRES is counted on each node; `--gpus` may distribute the GPUs over the nodes in any way.
        asked["gres"] = f"gpu:{row['gpus'] * processes // nodes}"
    if nodes > 1:
        # `mpi` says that the command calls `srun` itself; without it the job gets one task on one of the nodes.
        asked |= {"mpi": "srun", "nodes": nodes, "tasks": nodes, "cpus_per_task": f"threads // {nodes}"}
    return asked


def _error(what: str, fix: str) -> AgmError:
    return AgmError(f"SLURM cannot be asked for this: {what}", where="workflow/profiles/slurm/config.yaml", fix=fix)
