"""One engine at a time in a checkout: while Snakemake runs jobs, it holds DVC's own lock on all their results.

Both engines delete what a job will make before they start it. DVC locks what its stage reads and writes; Snakemake
knows nothing of that, and so takes the same lock here, by DVC's own means. Then each refuses to start beside the
other, and says who is there. What a killed process left in DVC's list, DVC takes out when it next looks. The list
holds numbers of processes: it keeps engines apart on one machine, not on several that share a folder.
"""

import atexit
import json
import sys
from contextlib import ExitStack
from pathlib import Path

from agm.errors import AgmError
from agm.graph import Graph

LIST = Path(".dvc/tmp/rwlock")
NAME = "snakemake"


def hold(graph: Graph) -> None:
    """Take DVC's lock on all results of `graph`, until this process ends.

    Raises:
        AgmError: when DVC, or Snakemake in another process, is at work on some of them.
    """
    from dvc.exceptions import NotDvcRepoError
    from dvc.lock import LockError
    from dvc.repo import Repo
    from dvc.rwlock import rwlock

    try:
        repo = Repo()
    except NotDvcRepoError:
        return  # nobody can run DVC here
    folders = {path.parts[0] for job in graph.jobs for path in (job.index, *job.outputs)}
    write = [str(Path(repo.root_dir, name)) for name in sorted(folders)]
    linked = repo.config["core"].get("hardlink_lock", False)
    held = ExitStack()
    try:
        with repo.lock:  # which DVC has while it goes from one stage to the next
            held.enter_context(rwlock(repo.tmp_dir, repo.fs, " ".join([NAME, *sys.argv[1:]]), [], write, linked))
    except LockError as error:
        what = f"DVC or Snakemake is at work in this folder already: {error}"
        raise AgmError(what, where=repo.root_dir, fix="start it again when that has ended") from None
    finally:
        repo.close()
    atexit.register(held.close)


def snakemake_runs() -> bool:
    """Whether Snakemake runs jobs here, in another process."""
    try:
        holders = json.loads(LIST.read_text())["write"].values()
    except (OSError, ValueError, KeyError):
        return False
    return any(each["cmd"].split()[0] == NAME and Path(f"/proc/{each['pid']}").exists() for each in holders)
