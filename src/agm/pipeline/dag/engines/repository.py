"""DVC's repository of this folder, and checks that DVC can work in it."""

import json
import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agm.extras import require
from agm.pipeline.dag.graph import Graph
from agm.pipeline.errors import AgmError
from agm.pipeline.io.files import replacing, write_json
from agm.pipeline.runtime.progress import track

if TYPE_CHECKING:
    from dvc.repo import Repo
    from dvc.stage import Stage

LOCK = Path("dvc.lock")


@contextmanager
def opened() -> Iterator["Repo"]:
    """DVC's repository of this folder.

    Raises:
        AgmError: when there is none.
        MissingExtra: when DVC is not installed.
    """
    require("dvc", "dvc")
    from dvc.exceptions import DvcException, NotDvcRepoError
    from dvc.repo import Repo
    from dvc.scm import SCMError

    # Otherwise DVC shows a progress bar for each folder.
    logging.getLogger("dvc").setLevel(logging.CRITICAL)
    try:
        repository = Repo()
    except NotDvcRepoError:
        raise AgmError("DVC is not set up here", where=Path.cwd(), fix="`dvc init`, in the project's root") from None
    except SCMError as error:
        raise AgmError(
            f"DVC keeps its versions in git's, and git cannot be used here: {error}",
            where=Path.cwd(),
            fix="`git init`, or `dvc config --local core.no_scm true` to do without git and experiments",
        ) from None
    except DvcException as error:
        raise AgmError(
            f"DVC cannot work here: {error}", where=".dvc/config", fix="`dvc config --list` shows what is set"
        ) from None
    try:
        yield repository
    finally:
        repository.close()


def check(graph: Graph) -> None:
    """Check that DVC can work in this folder, and repair its list of running processes.

    Raises:
        AgmError: with the reason why DVC cannot work.
    """
    check_links(graph)
    with opened() as repository:
        _check_lock_file(repository)
        with locked(repository):
            forget_ended(Path(repository.tmp_dir))


def commit(names: list[str] | None) -> None:
    """Record results in dvc.lock, and put them in DVC's cache: those of the stages `names`, or of all stages.

    This does what `dvc commit --force --no-relink` does, but reads params.yaml once: the command reads it twice for
    every stage, which takes most of its time in a large study. (Relinking would give every file a new time, and copy
    each file.)

    Raises:
        AgmError: with DVC's message, when it fails.
    """
    from dvc.exceptions import DvcException

    with opened() as repository, locked(repository), _parameters_read_once():
        stages = [stage for stage in repository.index.stages if names is None or stage.name in names]
        try:
            for stage in track(iter(stages), len(stages), "record"):
                stage.save()
                stage.commit(relink=False)
            _write_lock_file(repository, stages)
        except DvcException as error:
            raise AgmError(f"DVC cannot record the results: {error}", where=LOCK) from None


def _write_lock_file(repository: "Repo", stages: list["Stage"]) -> None:
    """Write dvc.lock whole or not at all: DVC itself writes it in place, and cannot read what a kill leaves."""
    from dvc.dvcfile import Lockfile

    with replacing(LOCK) as temporary:
        if LOCK.exists():
            shutil.copyfile(LOCK, temporary)
        Lockfile(repository, str(temporary)).dump_stages(stages)


def changed() -> list[str]:
    """The stages that `dvc status` shows as changed."""
    from dvc.exceptions import DvcException

    with opened() as repository, _parameters_read_once():
        try:
            return list(repository.status())
        except DvcException as error:
            raise AgmError(f"DVC cannot say what has changed: {error}", where=LOCK) from None


@contextmanager
def _parameters_read_once() -> Iterator[None]:
    """Let DVC read each file of parameters once."""
    from dvc.dependency import param

    load = param.load_path
    contents: dict[str, Any] = {}

    def load_once(path: str, *rest: Any, **more: Any) -> Any:
        if path not in contents:
            contents[path] = load(path, *rest, **more)
        return contents[path]

    param.load_path = load_once
    try:
        yield
    finally:
        param.load_path = load


def check_links(graph: Graph) -> None:
    """Check that no folder of results is a link to another place, which Snakemake follows and DVC refuses.

    Raises:
        AgmError: naming the first such folder.
    """
    root = Path.cwd().resolve()
    for name in result_folders(graph):
        target = Path(name).resolve()
        if not target.is_relative_to(root):
            raise AgmError(
                f"'{name}' is a link out of this folder, and DVC refuses what lies behind it",
                where=f"{name} -> {target}",
                fix="work with Snakemake alone; or move the whole project there; or make it a folder again, and keep "
                "only DVC's cache there: `dvc cache dir --local /THE/CACHE`, `dvc config --local cache.type symlink`",
            )


def result_folders(graph: Graph) -> list[str]:
    """The folders of the root that hold results."""
    folders = set()
    for job in graph.jobs:
        folders.update(path.parts[0] for path in (*job.results, job.record))
    return sorted(folders)


def _check_lock_file(repository: "Repo") -> None:
    """Check that dvc.lock can be read: a full disk may have cut it short."""
    from dvc.dvcfile import LOCK_FILE, Lockfile
    from dvc.exceptions import DvcException

    if not LOCK.exists():
        return
    try:
        Lockfile(repository, LOCK_FILE).load()
    except DvcException as error:
        raise AgmError(
            f"The file in which DVC records results is damaged: {error}",
            where=LOCK,
            fix=f"`git checkout {LOCK}` takes back the last version; or delete it, and `agm record` writes it again",
        ) from None


@contextmanager
def locked(repository: "Repo") -> Iterator[None]:
    """Hold the lock that DVC holds between two stages.

    Raises:
        AgmError: when DVC holds it for longer than a moment.
    """
    from dvc.lock import LockError

    try:
        with repository.lock:
            yield
    except LockError as error:
        raise busy(f"DVC is at work in this folder already: {error}") from None


def busy(what: str) -> AgmError:
    """The error that names the process that is at work."""
    return AgmError(what, where=Path.cwd(), fix="start it again when that has ended")


def forget_ended(folder: Path) -> None:
    """Remove the entries of processes that have ended from DVC's list, in its temporary `folder`.

    A list that a full disk cut short starts empty again.
    """
    path = folder / "rwlock"
    try:
        written, text = path.stat().st_mtime, path.read_text(encoding="utf-8")
        entries = json.loads(text or "{}")
    except FileNotFoundError:
        return
    except ValueError:
        written, text, entries = 0.0, "", {}
    # A file has one process that writes it, or several that read it.
    write, read = {}, {}
    for name, process in entries.get("write", {}).items():
        if _lives(process, written):
            write[name] = process
    for name, processes in entries.get("read", {}).items():
        living = [process for process in processes if _lives(process, written)]
        if living:
            read[name] = living
    living_entries = {"write": write, "read": read}
    if not text or living_entries != entries:
        write_json(path, living_entries)


def _lives(entry: dict[str, Any], written: float) -> bool:
    """Whether the process of an entry that was written at the time `written` still runs."""
    import psutil

    try:
        # A process that began later has taken over the number of one that has ended.
        return psutil.Process(entry["pid"]).create_time() <= written
    except psutil.Error:
        return False
