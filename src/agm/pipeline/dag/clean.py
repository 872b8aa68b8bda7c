"""List the checkpoints of runs that are not finished, or delete some of them: `agm clean`.

A run removes its checkpoints when it is finished. Only this command removes others:

  agm clean                  list them: size, time, run, and whether the run can resume from them
  agm clean --delete         delete those from which no run of this study can resume, because something has changed
  agm clean --delete NAME    delete those whose names begin with NAME, whatever their state
  agm clean --delete --all   delete all of them

The checkpoints of a run that is under way are never deleted.
"""

import shutil
from contextlib import nullcontext

from agm.pipeline.config import Params
from agm.pipeline.dag import store, unfinished
from agm.pipeline.dag.unfinished import Checkpoints
from agm.pipeline.errors import AgmError
from agm.pipeline.runtime import variables
from agm.pipeline.runtime.lock import alone
from agm.pipeline.runtime.progress import show

USELESS = (unfinished.ORPHANED, unfinished.FINISHED, unfinished.EMPTY)
"""States in which no run of the study can use the checkpoints."""
SHORT = 12
"""Characters of a folder's name that are shown: enough to distinguish it from the others."""


def clean(params: Params, names: list[str], delete: bool, everything: bool) -> None:
    """List the folders of checkpoints, and delete the chosen ones.

    Args:
        params: the parameters of the study.
        names: beginnings of the names of folders; without any, the folders that the study cannot use are chosen.
        delete: delete the chosen folders.
        everything: choose all folders, instead of names.

    Raises:
        AgmError: when no folder has one of the names.
    """
    folders = unfinished.all_checkpoints(params)
    chosen = folders if everything else _chosen(folders, names)
    # Without names all folders are listed, also those that are not chosen.
    for checkpoints in chosen if names else folders:
        show(_line(checkpoints))
    total = sum(checkpoints.size for checkpoints in folders)
    show(f"{unfinished.CHECKPOINTS}: {len(folders)} folders of checkpoints, {_size(total)}")
    show(_of_store())
    if delete:
        for checkpoints in chosen:
            _delete(checkpoints)


def _chosen(folders: list[Checkpoints], names: list[str]) -> list[Checkpoints]:
    if not names:
        return [checkpoints for checkpoints in folders if checkpoints.state in USELESS]
    # By folder, because two names may mean the same one.
    chosen = {}
    for name in names:
        matching = [checkpoints for checkpoints in folders if checkpoints.folder.name.startswith(name)]
        if not matching:
            raise AgmError(
                "There are no checkpoints of this name", where=unfinished.CHECKPOINTS / name, fix="see `agm clean`"
            )
        for checkpoints in matching:
            chosen[checkpoints.folder] = checkpoints
    return list(chosen.values())


def _line(checkpoints: Checkpoints) -> str:
    state = checkpoints.state
    if checkpoints.reason:
        state += f": {checkpoints.reason}"
    name = checkpoints.folder.name[:SHORT]
    command = f"`{checkpoints.command}`" if checkpoints.command else "–"
    return f"{name}  {_size(checkpoints.size):>9}  {checkpoints.written}  {command}: {state}"


def _delete(checkpoints: Checkpoints) -> None:
    if checkpoints.state == unfinished.RUNNING:
        show(f"not deleted: {checkpoints.folder}: {checkpoints.state}")
        return
    # A run that starts at this moment waits for the lock, and then begins from the start.
    with alone(*checkpoints.step) if checkpoints.step else nullcontext():
        shutil.rmtree(checkpoints.folder)
    show(f"deleted: {checkpoints.folder}")


def _of_store() -> str:
    """The size of the store of earlier results, in words."""
    size = sum(path.stat().st_size for path in store.STORE.rglob("*") if path.is_file())
    most = _size(variables.store_bytes())
    return f"{store.STORE}: {_size(size)} of earlier results, {most} at most ({variables.STORE})"


def _size(count: float) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
