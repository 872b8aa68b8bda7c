"""Files that are either whole or absent: every output of the DAG is written here."""

import hashlib
import io
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agm.errors import AgmError

if TYPE_CHECKING:
    import polars as pl


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """Yield a temporary path beside `target`; on success flush it to disk and rename it over `target`.

    The path yielded may become a file or a folder. On any error it is removed and `target` stays as it was.

    Raises:
        OSError: naming `target`, also where a library reports a full disk by an exception of its own.
    """
    target = Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    _remove(temporary)
    try:
        yield temporary
        _flush(temporary)
        if target.is_dir():
            shutil.rmtree(target)
        os.replace(temporary, target)
    except Exception as error:
        if (number := _system_error(error)) is not None:
            raise OSError(number, os.strerror(number), str(target)) from None
        raise
    finally:
        _remove(temporary)


def _system_error(error: Exception) -> int | None:
    """The number of the system's error behind `error`, where that does not yet name a file.

    Arrow, polars and safetensors each raise something else, and have the number in their words.
    """
    if isinstance(error, OSError) and error.errno is not None:
        return None if error.filename else error.errno
    found = re.search(r"\b(?:os error|errno) (\d+)\b", str(error))
    return int(found[1]) if found else None


def write_json(target: Path, content: Any) -> None:
    """Write `content` as readable JSON, atomically; equal content gives equal bytes."""
    with replacing(target) as temporary:
        temporary.write_text(json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


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
        AgmError: when it is missing or broken; `rebuild` is the command that makes it.
    """
    fix = f"run `{rebuild}`" if rebuild else None
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise AgmError("A file of an earlier step is missing", where=path, fix=fix) from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise AgmError(f"A file of an earlier step is damaged ({error})", where=path, fix=fix) from None


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


def _flush(path: Path) -> None:
    """Force a file, or every file of a folder, to disk."""
    for each in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if each.is_file():
            descriptor = os.open(each, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)


def _remove(path: Path) -> None:
    remove: Callable[[Path], Any] = shutil.rmtree if path.is_dir() else os.unlink
    if path.exists() or path.is_symlink():
        remove(path)
