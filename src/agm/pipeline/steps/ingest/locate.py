"""Find the files of a published data set where they really lie.

Users unpack downloads one folder higher or lower than officially, sort them into folders by class, or cut them from the
web into another container (.mkv, .webm). An adapter names the official path of a file. Where no file lies there, the
whole root is searched for a file of that name.
"""

import os
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path, PurePosixPath

from agm.pipeline.steps.ingest.clip import Clip

# Formats that can replace each other. MP3 is not among those of WAV: a lossy copy does not replace the sound.
FAMILIES = (
    (".mp4", ".mkv", ".webm", ".avi", ".mov", ".m4v", ".flv", ".mpg", ".mpeg", ".wmv", ".3gp", ".ts"),
    (".wav", ".flac"),
    (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"),
)
MOST_SHOWN = 8
Key = tuple[str, ...]


def elsewhere(
    root: str, clips: Sequence[Clip], missing: Sequence[str], unique: int, stem: Callable[[str], str]
) -> tuple[list[Clip], list[str]]:
    """The clips with the real paths of the missing files, and notes on which file is read instead of which.

    Args:
        missing: official paths of files that are not there.
        unique: the number of last parts of a path that distinguish its file from all others of its kind.
        stem: gives the official form of a file's name without its suffix.
    """
    if not missing:
        return list(clips), []
    wanted = {_key(path, unique, stem): path for path in missing}
    candidates: dict[str, list[str]] = defaultdict(list)
    for path in _walk(root):
        official = wanted.get(_key(path, unique, stem))
        if official is not None:
            candidates[official].append(path)
    moved: dict[str, str] = {}
    for official, paths in candidates.items():
        moved[official] = min(paths, key=partial(_rank, official=official))
    return [_moved(clip, moved) for clip in clips], list(_notes(candidates, moved))


def surroundings(root: str, expected: Sequence[str], missing: Iterable[str]) -> str | None:
    """The content of the first folder that has none of its expected files; None where every folder has some.

    Args:
        expected: all paths that the clips name.
        missing: those of them that are not there.
    """
    absent = set(missing)
    has_some: dict[str, bool] = {}
    for path in expected:
        folder = PurePosixPath(path).parent.as_posix()
        has_some[folder] = has_some.get(folder, False) or path not in absent
    empty = [folder for folder, has in has_some.items() if not has]
    if not empty:
        return None
    wanted = Path(root, empty[0])
    if wanted.is_dir():
        return f"{_below(wanted, root)} holds other names: {_content(wanted)}"
    existing = _nearest_folder(wanted)
    return f"{_below(existing, root)} has no {wanted.relative_to(existing).parts[0]}; it holds: {_content(existing)}"


def lies_there(path: Path) -> str:
    """The content of the nearest existing folder above a path that does not exist."""
    existing = _nearest_folder(path.absolute())
    return f"{existing} holds: {_content(existing)}"


def _nearest_folder(path: Path) -> Path:
    """The nearest folder above `path` that exists."""
    return next(folder for folder in path.parents if folder.is_dir())


def _below(folder: Path, root: str) -> str:
    return PurePosixPath("dataset.root", folder.relative_to(root)).as_posix()


def _content(folder: Path) -> str:
    """The first names in a folder, and the number of the others."""
    names = []
    for entry in folder.iterdir():
        names.append(f"{entry.name}/" if entry.is_dir() else entry.name)
    names.sort()
    shown = ", ".join(names[:MOST_SHOWN]) or "nothing"
    if len(names) > MOST_SHOWN:
        shown += f" and {len(names) - MOST_SHOWN:,} more"
    return shown


def _moved(clip: Clip, moved: dict[str, str]) -> Clip:
    """The clip with the real paths of its files (official path → real path)."""
    sources = dict(clip.sources)
    for name, source in clip.sources.items():
        if source.path in moved:
            sources[name] = replace(source, path=moved[source.path])
    return replace(clip, sources=sources)


def _notes(candidates: dict[str, list[str]], moved: dict[str, str]) -> Iterator[str]:
    if moved:
        first = min(moved)
        yield f"{len(moved):,} files lie elsewhere than officially, the first: {moved[first]} in place of {first}"
    several = [official for official in moved if len(candidates[official]) > 1]
    if several:
        first = min(several)
        others = ", ".join(sorted(set(candidates[first]) - {moved[first]}))
        yield f"{len(several):,} files are there more than once; for the first one {moved[first]} is read, not {others}"


def _walk(root: str) -> Iterator[str]:
    """Yield every file below the root, relative to it; links to folders are followed, hidden names are skipped."""
    seen = set()
    for folder, folders, names in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:
            folders.clear()  # a link leads back here
            continue
        seen.add(real)
        # `os.walk` enters the folders of this list, in this order.
        folders[:] = sorted(_visible(folders))
        for name in _visible(names):
            yield PurePosixPath(os.path.relpath(os.path.join(folder, name), root)).as_posix()


def _visible(names: Iterable[str]) -> list[str]:
    return [name for name in names if not name.startswith(".")]


def _key(path: str, unique: int, stem: Callable[[str], str]) -> Key:
    """What distinguishes the file: its kind, the last folders, its name; the case of letters does not count."""
    *folders, name = PurePosixPath(path).parts[-unique:]
    kind = PurePosixPath(name).suffix.lower()
    for family in FAMILIES:
        if kind in family:
            kind = family[0]
    parts = (kind, *folders, stem(PurePosixPath(name).stem))
    return tuple(unicodedata.normalize("NFC", part).casefold() for part in parts)


def _rank(path: str, official: str) -> tuple[bool, int, str]:
    """A key for sorting: the official format first, then the highest folder, then the name."""
    other_format = PurePosixPath(path).suffix.lower() != PurePosixPath(official).suffix.lower()
    return other_format, path.count("/"), path
