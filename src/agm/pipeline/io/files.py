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


# Before a target's own name, so that a temporary file has the suffix that libraries go by.
TEMPORARY = re.compile(r"\.(?:tmp|old)-(\d+)-(.*)", re.DOTALL)
CHECKSUM = "checksum"
"""Where an index says what the rest of it must be."""
LONGEST = 220
"""Bytes of a target's name that its temporary one takes over: file systems allow 255 in all."""


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """Yield a temporary path beside `target`; on success flush it to disk and rename it over `target`.

    The path yielded may become a file or a folder. On any error it is removed and `target` stays as it was. What a
    killed process left there is removed by the next one that writes `target`.

    Raises:
        OSError: naming `target`, also where a library reports a full disk by an exception of its own.
    """
    target = Path(target)
    temporary, old = (_beside(target, kind) for kind in ("tmp", "old"))
    try:
        _make_folder(target.parent)
        _remove_left_behind(target)
        yield temporary
        _flush(temporary)
        _swap(temporary, target, old)
        _sync(target.parent)
    except Exception as error:
        if (number := _system_error(error, temporary)) is not None:
            raise OSError(number, os.strerror(number), str(target)) from None
        raise
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
    """Remove the temporary files of `target` that no running process of this machine is at."""
    name = TEMPORARY.fullmatch(_beside(target, "tmp").name)[2]
    for path in target.parent.iterdir():
        found = TEMPORARY.fullmatch(path.name)
        if found and found[2] == name and (int(found[1]) == os.getpid() or not _runs(int(found[1]))):
            _remove(path)


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass  # somebody else's
    return True


def _system_error(error: Exception, temporary: Path) -> int | None:
    """The number of the system's error behind `error`, where that does not yet name a file that a person knows.

    Arrow, polars and safetensors each raise something else, and have the number in their words.
    """
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno if error.filename in (None, str(temporary)) else None
    found = re.search(r"\b(?:os error|errno) (\d+)\b", str(error))
    return int(found[1]) if found else None


def write_json(target: Path, content: Any) -> None:
    """Write `content` as readable JSON, atomically; equal content gives equal bytes."""
    write_bytes(target, _json(content))


def index_bytes(content: dict[str, Any]) -> bytes:
    """The JSON of a job's index, with a checksum of what it says, which `read_json` compares."""
    return _json({**content, CHECKSUM: _checksum(content)})


def write_bytes(target: Path, content: bytes) -> None:
    """Write `content`, atomically."""
    with replacing(target) as temporary:
        temporary.write_bytes(content)


def _json(content: Any) -> bytes:
    return (json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()


def _checksum(content: Any) -> str:
    """Of the meaning, which is the same before it is written and after it is read."""
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def write_parquet(target: Path, table: "pl.DataFrame") -> None:
    """Write a table as Parquet, atomically; equal tables give equal bytes."""
    # By way of the memory: what polars raises when the disk is full does not always say so.
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
    if isinstance(content, dict) and (want := content.pop(CHECKSUM, None)) not in (None, _checksum(content)):
        what = f"its checksum is {_checksum(content)}, and {want} was recorded"
        raise AgmError(f"A file of an earlier step is damaged: {what}", where=path, fix=fix)
    return content


def read_index(path: Path, rebuild: str, *names: str) -> Any:
    """Read a job's index, of which the data files `names`, or else all, must be as it says.

    Raises:
        AgmError: when one of them is missing or damaged, or the index is; `rebuild` is the command that makes them.
    """
    index = read_json(path, rebuild)
    try:
        expected = {name: index["sha256"][name] for name in names or index["sha256"]}
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
    found = hashlib.sha256()
    for each in sorted(each for each in path.rglob("*") if each.is_file()):
        found.update(f"{each.relative_to(path).as_posix()}\0{sha256(each)}\0".encode(errors="surrogateescape"))
    return found.hexdigest()


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
        if (found := sha256(path)) != want:
            raise AgmError(
                f"A data file is damaged: its checksum is {found}, and {want} was recorded",
                where=path,
                fix=f"delete it and run `{rebuild}`",
            )


def remove(path: Path) -> None:
    """Remove a file, if it is there, for good: a power cut does not bring it back beside newer ones."""
    if path.exists() or path.is_symlink():
        path.unlink()
        _sync(path.parent)


def _make_folder(folder: Path) -> None:
    """Make a folder and those above it, as lasting as what will be put there."""
    new = [each for each in (folder, *folder.parents) if not each.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for each in new:
        _sync(each.parent)


def _flush(path: Path) -> None:
    """Force a file, or a folder and all that is in it, to disk."""
    for each in [*sorted(path.rglob("*")), path] if path.is_dir() else [path]:
        if each.is_dir() or each.is_file():
            _sync(each)


def _sync(path: Path) -> None:
    """Force a file's content, or a folder's names, to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network file systems do not know this for folders, and have nothing to flush there.
        if error.errno != errno.EINVAL or not path.is_dir():
            raise
    finally:
        os.close(descriptor)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
