"""Files that are either whole or absent: every output of the DAG is written here."""

import errno
import hashlib
import io
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agm.pipeline.errors import AgmError

if TYPE_CHECKING:
    import polars as pl


# The marker stands before the target's name, so that a temporary file keeps the suffix by which libraries choose a
# format.
TEMPORARY = re.compile(r"\.(?:tmp|old)-(\d+)-(.*)", re.DOTALL)
CHECKSUM = "checksum"
"""The key of an index that holds the checksum of all its other keys."""
LONGEST = 220
"""Bytes of a target's name that its temporary name keeps: file systems allow 255 in all."""


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """Yield a temporary path beside `target`; on success flush it to disk and rename it over `target`.

    The path yielded may become a file or a folder. On any error it is removed and `target` stays as it was. The next
    process that writes `target` removes what a killed process left.

    Raises:
        OSError: naming `target`, also where a library reports a full disk by an exception of its own.
    """
    target = Path(target)
    temporary = _beside(target, "tmp")
    old = _beside(target, "old")
    try:
        _make_folder(target.parent)
        _remove_left_behind(target)
        yield temporary
        _flush(temporary)
        _swap(temporary, target, old)
        _sync(target.parent)
    except Exception as error:
        number = _system_error(error, temporary)
        if number is None:
            raise
        # A person knows `target`, not the temporary file.
        raise OSError(number, os.strerror(number), str(target)) from None
    finally:
        _remove(temporary)
        _remove(old)


def _swap(temporary: Path, target: Path, old: Path) -> None:
    if not target.is_dir():
        os.replace(temporary, target)
        return
    # A folder cannot be replaced in one go; but renamed, it is never there in part.
    os.replace(target, old)
    try:
        os.replace(temporary, target)
    except OSError:
        os.replace(old, target)
        raise


def _beside(target: Path, kind: str) -> Path:
    name = os.fsdecode(os.fsencode(target.name)[-LONGEST:])
    return target.with_name(f".{kind}-{os.getpid()}-{name}")


def _remove_left_behind(target: Path) -> None:
    """Remove the temporary files of `target` that no running process of this machine writes."""
    name = TEMPORARY.fullmatch(_beside(target, "tmp").name)[2]
    for path in target.parent.iterdir():
        match = TEMPORARY.fullmatch(path.name)
        if match is None or match[2] != name:
            continue
        process = int(match[1])
        # This process itself is about to write `target`: what has its number is a leftover too.
        if process == os.getpid() or not _runs(process):
            _remove(path)


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass  # the process of another user, which may not be signalled, but runs
    return True


def _system_error(error: Exception, temporary: Path) -> int | None:
    """The number of the system error behind `error`; None where there is none, or `error` names another file already.

    Arrow, polars and safetensors raise exceptions of their own, and write the number into the message.
    """
    if isinstance(error, OSError) and error.errno is not None:
        names_no_other = error.filename in (None, str(temporary))
        return error.errno if names_no_other else None
    match = re.search(r"\b(?:os error|errno) (\d+)\b", str(error))
    return int(match[1]) if match else None


def write_json(target: Path, content: Any) -> None:
    """Write `content` as readable JSON, atomically; equal content gives equal bytes."""
    write_bytes(target, _json(content))


def index_bytes(content: dict[str, Any]) -> bytes:
    """The JSON of a job's index, with a checksum of its content, which `read_json` compares."""
    return _json({**content, CHECKSUM: _checksum(content)})


def write_bytes(target: Path, content: bytes) -> None:
    """Write `content`, atomically."""
    with replacing(target) as temporary:
        temporary.write_bytes(content)


def _json(content: Any) -> bytes:
    return (json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()


def _checksum(content: Any) -> str:
    """Checksum of the values, which are the same before they are written and after they are read."""
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def write_parquet(target: Path, table: "pl.DataFrame") -> None:
    """Write a table as Parquet, atomically; equal tables give equal bytes."""
    # The table is written to memory first: the error that polars raises on a full disk does not always say so.
    content = io.BytesIO()
    table.write_parquet(content)
    with replacing(target) as temporary:
        temporary.write_bytes(content.getbuffer())


def read_json(path: Path, rebuild: str | None = None) -> Any:
    """Read a JSON file of the DAG.

    Raises:
        AgmError: when it is missing, broken, or an index that says something else than was written; `rebuild` is the
            command that makes it.
    """
    fix = f"run `{rebuild}`" if rebuild else None
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise AgmError("A file of an earlier step is missing", where=path, fix=fix) from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise AgmError(f"A file of an earlier step is damaged ({error})", where=path, fix=fix) from None
    if isinstance(content, dict) and CHECKSUM in content:
        recorded = content.pop(CHECKSUM)
        actual = _checksum(content)
        if recorded not in (None, actual):
            what = f"its checksum is {actual}, and {recorded} was recorded"
            raise AgmError(f"A file of an earlier step is damaged: {what}", where=path, fix=fix)
    return content


def read_json_or_none(path: Path) -> Any:
    """The content of a JSON file of the DAG; None where it is missing, damaged or unreadable."""
    try:
        return read_json(path)
    except (AgmError, OSError):
        return None


def read_index(path: Path, rebuild: str, *names: str) -> Any:
    """Read a job's index, and compare the data files `names`, or all of them, with the checksums that it holds.

    Raises:
        AgmError: when one of them is missing or damaged, or the index is; `rebuild` is the command that makes them.
    """
    index = read_json(path, rebuild)
    try:
        recorded = index["sha256"]
        expected = {name: recorded[name] for name in names or recorded}
    except (KeyError, TypeError):
        what = "A file of an earlier step does not say what belongs to it"
        raise AgmError(what, where=path, fix=f"run `{rebuild}`") from None
    verify(Path(path).parent, expected, rebuild)
    return index


def sha256(path: Path) -> str:
    """Checksum of one file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest(path: Path) -> str:
    """Checksum of a file, or of the names and contents of every file below a folder."""
    if not path.is_dir():
        return sha256(path)
    total = hashlib.sha256()
    for member in sorted(path.rglob("*")):
        if member.is_file():
            name = member.relative_to(path).as_posix()
            # Names may be no UTF-8: the system allows any bytes.
            total.update(f"{name}\0{sha256(member)}\0".encode(errors="surrogateescape"))
    return total.hexdigest()


def checksums(folder: Path, names: list[str]) -> dict[str, str]:
    """Checksums of the files `names` below `folder`, for an index to record."""
    return {name: sha256(folder / name) for name in names}


def verify(folder: Path, expected: dict[str, str], rebuild: str) -> None:
    """Compare files with the checksums that their index recorded.

    Raises:
        AgmError: naming the file, both checksums, and `rebuild`, the command that makes it again.
    """
    for name, want in expected.items():
        path = folder / name
        if not path.exists():
            raise AgmError("A data file is missing", where=path, fix=f"run `{rebuild}`")
        actual = sha256(path)
        if actual != want:
            raise AgmError(
                f"A data file is damaged: its checksum is {actual}, and {want} was recorded",
                where=path,
                fix=f"delete it and run `{rebuild}`",
            )


def remove(path: Path) -> None:
    """Remove a file, if it exists, and flush that to disk: a power cut does not bring it back beside newer files."""
    if path.exists() or path.is_symlink():
        path.unlink()
        _sync(path.parent)


def _make_folder(folder: Path) -> None:
    """Make a folder and its parents, and flush their names to disk: a power cut must not lose what is put there."""
    new = [parent for parent in (folder, *folder.parents) if not parent.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for made in new:
        _sync(made.parent)


def _flush(path: Path) -> None:
    """Force a file, or a folder and all that is in it, to disk."""
    members = sorted(path.rglob("*")) if path.is_dir() else []
    for member in (*members, path):
        if member.is_dir() or member.is_file():
            _sync(member)


def _sync(path: Path) -> None:
    """Force a file's content, or a folder's names, to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network file systems refuse this for folders; they have nothing to flush there.
        if error.errno != errno.EINVAL or not path.is_dir():
            raise
    finally:
        os.close(descriptor)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
