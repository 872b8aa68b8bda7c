"""Write the fingerprint of every step's and every method's source (`agm.pipeline.dag.code`): `agm code`.

    records/code/<step>.json              the source of a step, and the versions of libraries that decide its result
    records/code/methods/<method>.json    the source that a method of params.yaml runs besides

DVC's stages depend on these small files, not on the source itself, because a new comment is no reason to train again.
"""

from agm.pipeline.config import Params
from agm.pipeline.dag import code
from agm.pipeline.dag.graph import RECORDS
from agm.pipeline.io.files import read_json_or_none, write_json

FOLDER = RECORDS / "code"


def write(params: Params) -> None:
    """Write the fingerprints that differ from the files, and remove those of methods that params.yaml has no more."""
    names = {step: step for step in code.STEPS}
    for key, block in params.methods.items():
        names[f"methods/{key}"] = f"methods/{block.name}"
    wanted = {}
    for key, name in names.items():
        path = FOLDER / f"{key}.json"
        wanted[path] = {"source": code.fingerprint(name), "libraries": code.versions(name)}
    for path in list(FOLDER.rglob("*.json")):
        if path not in wanted:
            path.unlink()
    for path, content in wanted.items():
        # A file that is written again has a new time, which DVC would have to look at.
        if read_json_or_none(path) != content:
            write_json(path, content)
