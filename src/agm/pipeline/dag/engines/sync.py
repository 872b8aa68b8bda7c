"""`agm sync`: after DVC restored results (checkout, pull, apply), bring Snakemake's view of them up to date.

Refuses when `dvc status` shows a change, or when results do not follow from the parameters and the code of today.
"""

from pathlib import Path

from agm.pipeline import config
from agm.pipeline.dag.engines import keys, repository
from agm.pipeline.dag.engines.record import outdated
from agm.pipeline.dag.engines.tools import call, leftovers
from agm.pipeline.dag.graph import Graph
from agm.pipeline.errors import AgmError
from agm.pipeline.runtime.progress import say
from agm.pipeline.steps.ingest import raw

INCOMPLETE = Path(".snakemake/incomplete")
"""Where Snakemake marks the outputs of jobs that did not end."""


def sync() -> None:
    """Make Snakemake take the results for what they are: up to date.

    Raises:
        AgmError: when they are not, in the eyes of DVC or by what they record of themselves.
    """
    graph = Graph(config.load())
    repository.check(graph)
    for line in raw.check(graph.params):
        say(line)
    if changed := repository.changed():
        raise AgmError(f"DVC has changes in: {', '.join(changed)}", where="dvc.lock", fix=_remedy(graph))
    if reasons := outdated(list(graph.jobs), graph.params):
        lines = "\n".join(f"  `{command}`: {reason}" for command, reason in reasons.items())
        raise AgmError(f"DVC is content, but these results are out of date:\n{lines}", fix="run `snakemake`")
    keys.refresh(graph)
    # The keys are enough, but for the marks of a run that was killed.
    if INCOMPLETE.is_dir() and any(INCOMPLETE.iterdir()):
        call("snakemake", "--touch", "--quiet", "rules", "progress")
    say(f"{len(graph.jobs)} jobs are up to date for both engines")


def _remedy(graph: Graph) -> str:
    remedy = "`dvc checkout` or `dvc pull` restores what was recorded, `dvc repro` makes it anew"
    if strays := leftovers(graph):
        remedy += f";\n         not part of this study, delete if unwanted: {', '.join(map(str, strays))}"
    return remedy
