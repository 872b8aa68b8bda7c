"""Put on record which annotations there are: the checksum of one annotation file, or of a folder of them.

Everything that is made from the annotations depends on this record, `data/<dataset>/annotations/<key>.json`. They are
only ever read, wherever they lie.
"""

from pathlib import Path
from typing import Any

from agm.pipeline.config import Params
from agm.pipeline.dag.graph import Job
from agm.pipeline.io.files import digest


def run(params: Params, job: Job) -> dict[str, Any]:
    """Returns: the checksum of what `dataset.annotations.<key>` names."""
    return {"sha256": digest(Path(params.dataset.annotations[job.cell[0]]))}
