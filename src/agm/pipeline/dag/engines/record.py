"""`agm record`: enter in DVC what Snakemake made, and save a finished study as an experiment.

Commits to DVC (`dvc commit`) the stages whose results all exist. Where these are the whole study, it also becomes an
experiment beside those of `dvc exp run`. Refuses when a result is not what the present parameters and code would give:
run `snakemake` first.

The experiment is what `dvc exp save` makes, a commit with the present state of git's files below DVC's references. But
that command moves all edits to a stash and back, and a kill or an editor's `git status` can lose them. Here git writes
the commit from an index of its own, and no file in the folder moves.
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
    "GIT_AUTHOR_NAME": "agm",
    "GIT_AUTHOR_EMAIL": "agm@localhost",
    "GIT_COMMITTER_NAME": "agm",
    "GIT_COMMITTER_EMAIL": "agm@localhost",
}
"""The author of an experiment's commit where git does not know the user."""


def record(name: str | None) -> None:
    """Commit to DVC every stage whose results exist; save the study under `name` when all results do.

    Raises:
        AgmError: when results exist that the present parameters or code would not give, or when DVC cannot work here.
    """
    graph = Graph(config.load())
    repository.check(graph)
    for line in raw.check(graph.params):
        say(line)
    made, missing = [], []
    for job in graph.jobs:
        if all(path.exists() for path in job.results):
            made.append(job)
        else:
            missing.append(job)
    _refuse_outdated(made, graph.params)
    fingerprints.write(graph.params)
    stages = _complete_stages(made, missing)
    if stages:
        # None stands for all stages of dvc.yaml.
        repository.commit(["code", "check", *stages] if missing else None)
    say(f"recorded {len(made)} of {len(graph.jobs)} jobs in dvc.lock")
    _mention("not part of this study, and yet in folders that DVC compares", [str(path) for path in leftovers(graph)])
    if missing:
        _mention("not made yet", [job.command for job in missing])
        return
    # The default name follows from the results: the same study is one experiment, saved again.
    default = f"{graph.params.study.name}-{sha256(graph.job('report').index)[:7]}"
    _save(name or default, replace=name is None)


def _complete_stages(made: list[Job], missing: list[Job]) -> list[str]:
    """The stages of DVC of which all jobs are made."""
    incomplete = {job.stage for job in missing}
    stages = [job.stage for job in made if job.stage not in incomplete]
    # Once each: a stage has many jobs.
    return list(dict.fromkeys(stages))


def outdated(jobs: list[Job], params: Params) -> dict[str, str]:
    """Commands of the `jobs` whose results are not what `params` ask for, with the reason."""
    checksums: provenance.Checksums = {}
    reasons = {}
    for job in jobs:
        if reason := provenance.changed(job, provenance.expected(job, params, checksums)):
            reasons[job.command] = reason
    return reasons


def _refuse_outdated(made: list[Job], params: Params) -> None:
    if reasons := outdated(made, params):
        problems = [f"`{command}`: {reason}" for command, reason in reasons.items()]
        raise AgmError(f"These results are out of date:\n{listed(problems, SHOWN)}", fix="run `snakemake` first")


def _save(name: str, replace: bool) -> None:
    """Save the present state of the folder as an experiment."""
    if _without_git():
        say("not saved as an experiment: DVC does without git here (core.no_scm)")
        return
    # git refuses here, with the reason, where the folder belongs to another user.
    _git("rev-parse", "--git-dir")
    if subprocess.run(["git", "rev-parse", "--quiet", "--verify", "HEAD"], capture_output=True).returncode:
        say("not saved as an experiment: git has no commit to hang it on; `git commit`, then `agm record` again")
        return
    head = _git("rev-parse", "HEAD")
    reference = f"refs/exps/{head[:2]}/{head[2:]}/{name}"
    if not replace and _git("for-each-ref", reference):
        raise AgmError("There is an experiment of this name already", where=name, fix="agm record --name ANOTHER")
    # An index of its own: what the user has staged stays as it is.
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
    """Whether DVC is configured to work without git."""
    with repository.opened() as repo:
        return bool(repo.config["core"].get("no_scm"))


def _git(*arguments: str, **more: str) -> str:
    """Run git with the environment variables `more`; returns what it printed.

    Raises:
        AgmError: with git's message, when it fails.
    """
    environment = {**os.environ, **more}
    command = ["git", *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, encoding="utf-8", errors="replace")
    if done.returncode:
        raise AgmError(f"`git {arguments[0]}` failed:\n{done.stderr.strip()}", where=Path.cwd())
    return done.stdout.strip()


def _mention(what: str, items: list[str]) -> None:
    """Tell the user of the first of some items, and of the number of the others."""
    if not items:
        return
    more = f" and {len(items) - SHOWN} more" if len(items) > SHOWN else ""
    say(f"{what}: {', '.join(items[:SHOWN])}{more}")
