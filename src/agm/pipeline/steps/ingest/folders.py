"""List what lies in a folder of a download."""

import os
from collections.abc import Callable
from pathlib import Path


def files_in(root: str, folder: str) -> list[str]:
    """Names of the files directly in `folder` below `root`, in order; none where the folder does not exist."""
    return _names(Path(root, folder), lambda entry: entry.is_file())


def folders_in(root: str, folder: str) -> list[str]:
    """Names of the folders directly in `folder` below `root`, in order; none where the folder does not exist."""
    return _names(Path(root, folder), lambda entry: entry.is_dir())


def _names(path: Path, wanted: Callable[[os.DirEntry[str]], bool]) -> list[str]:
    # `scandir` knows the kind of each entry without asking the file system for each, which may be far away.
    try:
        with os.scandir(path) as entries:
            return sorted(entry.name for entry in entries if wanted(entry))
    except (FileNotFoundError, NotADirectoryError):
        return []
