"""List the checkpoints of runs that are not finished, or delete some of them: `agm clean`.

A run removes its checkpoints when it is finished; nothing else removes any, except

  agm clean                  list them: size, time, run, and whether the run can go on from them
  agm clean --delete         delete those that no run of this study goes on from any more, as something has changed
  agm clean --delete NAME    delete these, by the beginning of their names, whatever their state
  agm clean --delete --all   delete all of them

Those of a run that is under way are never deleted.
"""

import shutil
from contextlib import nullcontext

from agm.pipeline.config import Params
from agm.pipeline.dag import store, unfinished
from agm.pipeline.dag.unfinished import Kept
from agm.pipeline.errors import AgmError
from agm.pipeline.runtime import variables
from agm.pipeline.runtime.lock import alone
from agm.pipeline.runtime.progress import show

USELESS = (unfinished.ORPHANED, unfinished.FINISHED, unfinished.EMPTY)
SHORT = 12
"""Signs of a folder's name that are shown, which are enough to tell it from the others."""


def clean(params: Params, names: list[str], delete: bool, everything: bool) -> None:
    """List the folders of checkpoints, and delete those that were asked for.

    Args:
        names: beginnings of the names of folders; without any, those that are of no use to the study.
        everything: all folders, in the place of names.

    Raises:
        AgmError: when a name is of no folder.
    """
    kept = unfinished.found(params)
    chosen = kept if everything else _chosen(kept, names)
    for each in chosen if names else kept:
        show(_line(each))
    show(f"{unfinished.CHECKPOINTS}: {len(kept)} folders of checkpoints, {_size(sum(each.size for each in kept))}")
    show(_of_store())
    if delete:
        for each in chosen:
            _delete(each)


def _chosen(kept: list[Kept], names: list[str]) -> list[Kept]:
    if not names:
        return [each for each in kept if each.state in USELESS]
    chosen = {}
    for name in names:
        matching = [each for each in kept if each.folder.name.startswith(name)]
        if not matching:
            raise AgmError(
                "There are no checkpoints of this name", where=unfinished.CHECKPOINTS / name, fix="see `agm clean`"
            )
        chosen |= {each.folder: each for each in matching}
    return list(chosen.values())


def _line(each: Kept) -> str:
    state = f"{each.state}: {each.reason}" if each.reason else each.state
    command = f"`{each.command}`" if each.command else "–"
    return f"{each.folder.name[:SHORT]}  {_size(each.size):>9}  {each.written}  {command}: {state}"


def _delete(each: Kept) -> None:
    if each.state == unfinished.RUNNING:
        show(f"not deleted: {each.folder}: {each.state}")
        return
    # A run that starts this moment waits, and then begins anew.
    with alone(*each.step) if each.step else nullcontext():
        shutil.rmtree(each.folder)
    show(f"deleted: {each.folder}")


def _of_store() -> str:
    size = sum(path.stat().st_size for path in store.STORE.rglob("*") if path.is_file())
    most = _size(variables.store_bytes())
    return f"{store.STORE}: {_size(size)} of earlier results, {most} at most ({variables.STORE})"


def _size(count: float) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
