"""Corrections of Snakemake's SLURM plugin, in its running process, for the versions that need them.

Without them the plugin waits for ever for some jobs. The profile calls `correct`, before the plugin asks after its
first job. `tests/test_slurm_plugin.py` fails when the plugin's own code has changed: then it is time to see which of
these corrections are still needed.
"""

import re
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from agm.extras import require
from agm.pipeline.errors import AgmError

if TYPE_CHECKING:
    from types import ModuleType

DISTRIBUTION = "snakemake-executor-plugin-slurm"
CORRECTED = ("2.8",)
"""Series of the plugin's versions that these corrections are made for and tested with; pyproject.toml has the same."""


def correct(accounts: bool) -> None:
    """Make the plugin see the end of every job.

    Args:
        accounts: whether the cluster keeps accounts, that is whether `sacct` answers.

    Raises:
        AgmError: when another version of the plugin is installed.
        MissingExtra: when none is installed.
    """
    plugin = require("snakemake_executor_plugin_slurm", "slurm")
    check_version(version(DISTRIBUTION))
    understand_states(plugin)
    if not accounts:
        never_ask_sacct(plugin)


def check_version(installed: str) -> None:
    """Refuse a version of the plugin that the corrections are not made for.

    Raises:
        AgmError: with the versions that will do.
    """
    series = ".".join(installed.split(".")[:2])
    if series not in CORRECTED:
        fitting = " or ".join(f"{supported}.*" for supported in CORRECTED)
        raise AgmError(
            f"Snakemake's SLURM plugin has version {installed}, and its corrections are made for {fitting}",
            where="agm.pipeline.dag.engines.slurm_plugin",
            fix=f'pip install "{DISTRIBUTION}=={CORRECTED[-1]}.*"',
        )


def understand_states(plugin: "ModuleType") -> None:
    """Replace the plugin's `query_job_status` by one that understands all that SLURM says of jobs.

    The plugin's own function has three faults:

    - It takes "CANCELLED by 0", which `sacct` says of a job that a person cancelled, for the state of one that runs.
    - Of the tasks of an array it asks `sacct` for numbers by which it does not know them. Each would count as ended
      when the last one has.
    - Tasks that were cancelled before they began, both `sacct` and `squeue` name together: `7_[1-3]`.
    """
    original = plugin.query_job_status

    async def query_job_status(command: str, logger: Any) -> tuple[dict[str, str] | None, float | None]:
        printed, seconds = await original(command.replace("JobIdRaw", "JobID"), logger)
        if printed is None:
            return None, seconds
        states = {}
        for jobs, state in printed.items():
            for job in _tasks(jobs):
                states[job] = state.partition(" ")[0]
        return states, seconds

    plugin.query_job_status = query_job_status


def never_ask_sacct(plugin: "ModuleType") -> None:
    """Replace the plugin's `is_query_tool_available` by one that says that there is no `sacct`.

    Told to ask `squeue`, the plugin still asks `sacct` when the controller does not answer at once. Where the cluster
    keeps no accounts that fails each time, in no time, until the attempts are used up; then the plugin forgets its
    jobs, and Snakemake waits for them for ever.
    """
    original = plugin.is_query_tool_available

    def is_query_tool_available(tool: str) -> bool:
        return tool != "sacct" and original(tool)

    plugin.is_query_tool_available = is_query_tool_available


def _tasks(job: str) -> list[str]:
    """The jobs that SLURM means: of `7_[1-3,9%2]` 7_1, 7_2, 7_3 and 7_9."""
    match = re.fullmatch(r"(\d+)_\[([\d,-]+)(?:%\d+)?\]", job)
    if match is None:
        return [job]
    tasks = []
    for part in match[2].split(","):
        first, _, last = part.partition("-")
        for number in range(int(first), int(last or first) + 1):
            tasks.append(f"{match[1]}_{number}")
    return tasks
