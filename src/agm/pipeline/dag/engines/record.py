"""`agm record`: tell DVC what Snakemake made, and save a finished study as an experiment.

Commits to DVC (`dvc commit`) the stages whose results are all there. When that is the whole study, it also becomes an
experiment beside those of `dvc exp run`. Refuses when any result is not what the parameters and the code of today would
give: run `snakemake` first.

The experiment is what `dvc exp save` makes, a commit with the present state of git's files below DVC's references. But
that command moves all edits to a stash and back, where a kill or an editor's `git status` can lose them: here git
writes the commit from an index of its own, and nothing in the folder moves.
"""

import os
import subprocess
import tempfile
from pathlib import Path

from agm.pipeline import config
from agm.pipeline.config import Params
from agm.pipeline.dag import fingerprints, provenance
from agm.pipeline.dag.engines import repository
from agm.pipeline.dag.engines.tools import leftovers
from agm.pipeline.dag.graph import Graph, Job
from agm.pipeline.errors import AgmError, listed
from agm.pipeline.io.files import sha256
from agm.pipeline.runtime.progress import say
from agm.pipeline.steps.ingest import raw

SHOWN = 8
AUTHOR = {
    f"GIT_{role}_{what}": f"agm{at}"
    for role in ("AUTHOR", "COMMITTER")
    for what, at in (("NAME", ""), ("EMAIL", "@localhost"))
}
"""Of the commit of an experiment, where git knows no other."""


def record(name: str | None) -> None:
    """Commit to DVC every stage whose results are there, and save the study under `name` when all of them are.

    Raises:
        AgmError: when results are there that the parameters or the code of today would not give, or when DVC cannot
            work here.
    """
    graph = Graph(config.load())
    repository.check(graph)
    for line in raw.check(graph.params):
        say(line)
    made = [job for job in graph.jobs if all(path.exists() for path in (job.index, *job.outputs))]
    _refuse_outdated(made, graph.params)
    complete = len(made) == len(graph.jobs)
    fingerprints.write(graph.params)
    stages = _whole(graph, made)
    if stages:
        repository.commit(None if complete else ["code", "check", *stages])
    say(f"recorded {len(made)} of {len(graph.jobs)} jobs in dvc.lock")
    _mention("not part of this study, and yet in folders that DVC compares", [str(path) for path in leftovers(graph)])
    if complete:
        _save(name or f"{graph.params.study.name}-{sha256(graph.job('report').index)[:7]}", name is None)
    else:
        _mention("not made yet", [job.command for job in graph.jobs if job not in made])


def _whole(graph: Graph, made: list[Job]) -> list[str]:
    """The stages of DVC all of whose jobs are made."""
    missing = {job.stage for job in set(graph.jobs) - set(made)}
    return list(dict.fromkeys(job.stage for job in made if job.stage not in missing))


def outdated(jobs: list[Job], params: Params) -> dict[str, str]:
    """Commands of the `jobs` whose results are not what `params` ask for, with the reason."""
    checksums: dict = {}
    reasons = {job.command: provenance.changed(job, provenance.expected(job, params, checksums)) for job in jobs}
    return {command: reason for command, reason in reasons.items() if reason}


def _refuse_outdated(made: list[Job], params: Params) -> None:
    if reasons := outdated(made, params):
        problems = [f"`{command}`: {reason}" for command, reason in reasons.items()]
        raise AgmError(f"These results are out of date:\n{listed(problems, SHOWN)}", fix="run `snakemake` first")


def _save(name: str, replace: bool) -> None:
    if _without_git():
        say("not saved as an experiment: DVC does without git here (core.no_scm)")
        return
    _git("rev-parse", "--git-dir")  # git refuses, and says why, where the folder is another user's
    if subprocess.run(["git", "rev-parse", "--quiet", "--verify", "HEAD"], capture_output=True).returncode:
        say("not saved as an experiment: git has no commit to hang it on; `git commit`, then `agm record` again")
        return
    head = _git("rev-parse", "HEAD")
    reference = f"refs/exps/{head[:2]}/{head[2:]}/{name}"
    if not replace and _git("for-each-ref", reference):
        raise AgmError("There is an experiment of this name already", where=name, fix="agm record --name ANOTHER")
    with tempfile.TemporaryDirectory(prefix="agm-record-") as folder:
        index = {"GIT_INDEX_FILE": str(Path(folder, "index"))}
        _git("read-tree", "HEAD", **index)
        _git("add", "--update", **index)
        _git("add", "--force", "dvc.lock", "params.yaml", **index)
        tree = _git("write-tree", **index)
    known = subprocess.run(["git", "var", "GIT_AUTHOR_IDENT"], capture_output=True).returncode == 0
    author = {} if known else AUTHOR
    commit = _git("commit-tree", tree, "-p", head, "-m", f"dvc: commit experiment {name}", **author)
    _git("update-ref", reference, commit)
    say(f"saved the experiment {name}")


def _without_git() -> bool:
    """Whether DVC was told to do without git."""
    with repository.opened() as repo:
        return bool(repo.config["core"].get("no_scm"))


def _git(*arguments: str, **more: str) -> str:
    """Run git; returns what it printed.

    Raises:
        AgmError: with what git said, when it fails.
    """
    environment = {**os.environ, **more}
    command = ["git", *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, encoding="utf-8", errors="replace")
    if done.returncode:
        raise AgmError(f"`git {arguments[0]}` failed:\n{done.stderr.strip()}", where=Path.cwd())
    return done.stdout.strip()


def _mention(what: str, items: list[str]) -> None:
    if items:
        say(f"{what}: {', '.join(items[:SHOWN])}{f' and {len(items) - SHOWN} more' if items[SHOWN:] else ''}")
