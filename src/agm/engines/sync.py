"""`agm sync`: after DVC restored results (checkout, pull, apply), bring Snakemake's view of them up to date.

Refuses when `dvc status` shows a change, or when results do not follow from the parameters and the code of today.
"""

import json

from agm import config
from agm.engines import keys
from agm.engines.record import outdated
from agm.engines.tools import call, leftovers
from agm.errors import AgmError
from agm.graph import Graph
from agm.progress import say


def sync() -> None:
    """Make Snakemake take the results for what they are: up to date.

    Raises:
        AgmError: when they are not, in the eyes of DVC or by what they record of themselves.
    """
    content = config.read()
    graph = Graph(config.check(content, config.PARAMS_FILE))
    if changed := json.loads(call("dvc", "status", "--json")):
        raise AgmError(f"DVC has changes in: {', '.join(changed)}", where="dvc.lock", fix=_remedy(graph))
    if reasons := outdated(list(graph.jobs), content):
        lines = "\n".join(f"  `{command}`: {reason}" for command, reason in reasons.items())
        raise AgmError(f"DVC is content, but these results are out of date:\n{lines}", fix="run `snakemake`")
    keys.refresh(graph, content)
    # The keys are enough for results that are whole; this also clears the marks of a run that was killed.
    call("snakemake", "--touch", "--quiet", "rules", "progress")
    say(f"{len(graph.jobs)} jobs are up to date for both engines")


def _remedy(graph: Graph) -> str:
    remedy = "`dvc checkout` or `dvc pull` restores what was recorded, `dvc repro` makes it anew"
    if strays := leftovers(graph):
        remedy += f";\n         not part of this study, delete if unwanted: {', '.join(map(str, strays))}"
    return remedy
