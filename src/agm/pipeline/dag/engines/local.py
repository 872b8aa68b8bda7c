"""What `workflow/profiles/default` says of GPUs: how many there are, and which jobs wait for them.

A job that got its cores from Snakemake and then waited for the lease of a device (`agm.pipeline.runtime.lease`) would
keep the cores from others. So Snakemake counts GPUs too; which one a job computes on, its lease decides.
"""

from typing import Any

from agm.pipeline import config
from agm.pipeline.errors import AgmError
from agm.pipeline.runtime import lease


def gpus() -> int:
    """How many GPUs jobs on this machine may use."""
    return len(lease.visible())


def resources() -> dict[str, dict[str, Any]]:
    """What Snakemake's `set-resources` takes, by step: the GPUs of one of its jobs."""
    try:
        params = config.read()
    except AgmError:
        return {}  # the Snakefile reads them too, and says what is wrong
    processes = params.get("trainer", {}).get("processes", 1)
    asked = {"train": processes, "concept": processes, "evaluate": 1, "evaluate_concept": 1}
    networks = [name for name, block in params.get("features", {}).items() if _of_a_network(block)]
    return {step: {"gpu": count} for step, count in asked.items()} | {
        "extract": {"gpu": f"1 if wildcards.modality in {networks} else 0"}
    }


def _of_a_network(features: dict[str, Any]) -> bool:
    return bool(features.get("frozen")) or str(features.get("method")).startswith("raft")
