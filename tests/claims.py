"""What a folder claims: the checksums of all results that are up to date, with all that they follow from."""

import json
import sys

from agm.pipeline import cli, config
from agm.pipeline.dag import provenance
from agm.pipeline.dag.graph import Graph
from agm.pipeline.steps.ingest import raw


def main() -> None:
    """Print a JSON object: the jobs that are not up to date, and {path: SHA-256} for the files of the others.

    With the argument `make`, they are all made first, one after the other.
    """
    graph = Graph(config.load())
    for job in graph.jobs if "make" in sys.argv else ():
        if status := cli.main(job.command.split()[1:]):
            sys.exit(status)
    list(raw.check(graph.params))
    stale: set[str] = set()
    files: dict[str, str] = {}
    for job in graph.jobs:
        above = {graph.makers[path].command for path in (*job.inputs, *job.data) if path in graph.makers}
        if above & stale or provenance.outdated(job, graph.params) or provenance.damaged(job):
            stale.add(job.command)
        else:
            files |= provenance.recorded(job)["files"]
    print(json.dumps({"stale": sorted(stale), "files": files}))
