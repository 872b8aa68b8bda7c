"""Record the checksum of one annotation file, or of a folder of them.

Everything that is made from the annotations depends on this file, `data/<dataset>/annotations/<key>.json`. The
annotations are only read, and stay where they lie.
"""

from pathlib import Path
from typing import Any

from agm.pipeline.config import Params
from agm.pipeline.dag.graph import Job
from agm.pipeline.io.files import digest


def run(params: Params, job: Job) -> dict[str, Any]:
    """Returns: the checksum of the file or folder that `dataset.annotations.<key>` names."""
    (key,) = job.cell
    return {"sha256": digest(Path(params.dataset.annotations[key]))}
