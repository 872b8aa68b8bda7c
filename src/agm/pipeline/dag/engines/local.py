"""The GPUs in `workflow/profiles/default`: how many there are, and which jobs wait for them.

A job that got its cores from Snakemake and then waited for the lease of a device (`agm.pipeline.runtime.lease`) would
block these cores. So Snakemake counts GPUs too; the lease decides which one a job computes on.
"""

from typing import Any

from agm.pipeline import config
from agm.pipeline.errors import AgmError
from agm.pipeline.runtime import lease


def gpus() -> int:
    """How many GPUs jobs on this machine may use."""
    return len(lease.visible())


def resources() -> dict[str, dict[str, Any]]:
    """The `set-resources` of Snakemake: for each step the GPUs of one of its jobs."""
    try:
        params = config.read()
    except AgmError:
        # The Snakefile reads the parameters too, and reports what is wrong.
        return {}
    processes = params.get("trainer", {}).get("processes", 1)
    # A frozen network or RAFT computes the features of these modalities.
    networks = [name for name, block in params.get("features", {}).items() if _needs_gpu(block)]
    return {
        "train": {"gpu": processes},
        "concept": {"gpu": processes},
        "evaluate": {"gpu": 1},
        "evaluate_concept": {"gpu": 1},
        "extract": {"gpu": f"1 if wildcards.modality in {networks} else 0"},
    }


def _needs_gpu(features: dict[str, Any]) -> bool:
    return bool(features.get("frozen")) or str(features.get("method")).startswith("raft")
