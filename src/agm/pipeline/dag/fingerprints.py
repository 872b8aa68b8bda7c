"""Write the fingerprint of every step's and every method's source (`agm.pipeline.dag.code`): `agm code`.

    records/code/<step>.json              of what a step runs, and the versions of libraries that decide its result
    records/code/methods/<method>.json    of what a method of params.yaml runs besides

DVC's stages depend on these small files and not on the source, whose comments are no reason to train again.
"""

from pathlib import Path
from typing import Any

from agm.pipeline.config import Params
from agm.pipeline.dag import code
from agm.pipeline.dag.graph import RECORDS
from agm.pipeline.errors import AgmError
from agm.pipeline.io.files import read_json, write_json

FOLDER = RECORDS / "code"


def write(params: Params) -> None:
    """Write those that differ from what is there."""
    names = {step: step for step in code.STEPS}
    names |= {f"methods/{key}": f"methods/{block.name}" for key, block in params.methods.items()}
    wanted = {
        FOLDER / f"{key}.json": {"source": code.fingerprint(name), "libraries": code.versions(name)}
        for key, name in names.items()
    }
    for path in set(FOLDER.rglob("*.json")) - set(wanted):
        path.unlink()
    for path, content in wanted.items():
        if _written(path) != content:
            write_json(path, content)


def _written(path: Path) -> Any:
    """What a file says; None where there is none that can be read."""
    try:
        return read_json(path)
    except AgmError:
        return None
