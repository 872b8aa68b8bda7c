"""`agm sync`: after DVC restored results (checkout, pull, apply), bring Snakemake's view of them up to date.

Refuses when `dvc status` shows a change, or when results do not follow from the present parameters and code.
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
    """Make Snakemake treat the results as up to date.

    Raises:
        AgmError: when they are not, according to DVC or to their records.
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
    # The keys are enough, except where a run was killed and left marks.
    if INCOMPLETE.is_dir() and any(INCOMPLETE.iterdir()):
        call("snakemake", "--touch", "--quiet", "rules", "progress")
    say(f"{len(graph.jobs)} jobs are up to date for both engines")


def _remedy(graph: Graph) -> str:
    """What the user can do about results that DVC sees as changed."""
    remedy = "`dvc checkout` or `dvc pull` restores what was recorded, `dvc repro` makes it again"
    if strays := leftovers(graph):
        remedy += f";\n         not part of this study, delete if unwanted: {', '.join(map(str, strays))}"
    return remedy
