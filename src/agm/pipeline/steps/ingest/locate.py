"""Where the files of a published data set really lie.

Downloads are unpacked one folder higher or lower than officially, sorted into folders by class, or cut from the web in
another container (.mkv, .webm). An adapter names the official place of a file; where there is none, the whole root is
looked through for a file of that name.
"""

import os
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from agm.pipeline.steps.ingest.clip import Clip

# Formats that hold the same thing. MP3 is none of WAV's: sound is not replaced by what was lost of it.
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
    """The clips with the places where the missing files lie, and notes on what is read in the place of what.

    Args:
        missing: official paths of files that are not there.
        unique: how many of the last parts of a path tell its file from all others of its kind.
        stem: the official form of a file's name without its suffix.
    """
    wanted = {_key(path, unique, stem): path for path in missing}
    found: dict[str, list[str]] = defaultdict(list)
    for path in _walk(root) if missing else ():
        if (official := wanted.get(_key(path, unique, stem))) is not None:
            found[official].append(path)
    moved = {official: min(paths, key=lambda path: _rank(path, official)) for official, paths in found.items()}
    return [_moved(clip, moved) for clip in clips], list(_notes(found, moved))


def surroundings(root: str, expected: Sequence[str], missing: Iterable[str]) -> str | None:
    """What lies where files should be, for the first folder that has none of them; None where every one has some.

    Args:
        expected: all paths that the clips name.
        missing: those of them that are not there.
    """
    absent = set(missing)
    has_some: dict[str, bool] = {}
    for path in expected:
        folder = PurePosixPath(path).parent.as_posix()
        has_some[folder] = has_some.get(folder, False) or path not in absent
    empty = next((folder for folder, has in has_some.items() if not has), None)
    if empty is None:
        return None
    wanted = Path(root, empty)
    if wanted.is_dir():
        return f"{_below(wanted, root)} holds other names: {_content(wanted)}"
    there = next(each for each in wanted.parents if each.is_dir())
    return f"{_below(there, root)} has no {wanted.relative_to(there).parts[0]}; it holds: {_content(there)}"


def lies_there(path: Path) -> str:
    """What the nearest folder above a path holds that is not there."""
    there = next(each for each in path.absolute().parents if each.is_dir())
    return f"{there} holds: {_content(there)}"


def _below(folder: Path, root: str) -> str:
    return PurePosixPath("dataset.root", folder.relative_to(root)).as_posix()


def _content(folder: Path) -> str:
    """The first names in a folder, and the number of the others."""
    names = sorted(f"{each.name}/" if each.is_dir() else each.name for each in folder.iterdir())
    more = f" and {len(names) - MOST_SHOWN:,} more" if len(names) > MOST_SHOWN else ""
    return (", ".join(names[:MOST_SHOWN]) or "nothing") + more


def _moved(clip: Clip, moved: dict[str, str]) -> Clip:
    sources = {
        name: replace(source, path=moved[source.path]) if source.path in moved else source
        for name, source in clip.sources.items()
    }
    return replace(clip, sources=sources)


def _notes(found: dict[str, list[str]], moved: dict[str, str]) -> Iterator[str]:
    if moved:
        first = min(moved)
        yield f"{len(moved):,} files lie elsewhere than officially, the first: {moved[first]} in place of {first}"
    if several := [official for official in moved if len(found[official]) > 1]:
        first = min(several)
        others = ", ".join(sorted(set(found[first]) - {moved[first]}))
        yield f"{len(several):,} files are there more than once: of the first {moved[first]} is read, not {others}"


def _walk(root: str) -> Iterator[str]:
    """Every file below the root, relative to it; links to folders are followed, hidden names are not read."""
    seen = set()
    for folder, folders, names in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:
            folders.clear()  # a link that leads back
            continue
        seen.add(real)
        folders[:] = sorted(_visible(folders))
        for name in _visible(names):
            yield PurePosixPath(os.path.relpath(os.path.join(folder, name), root)).as_posix()


def _visible(names: Iterable[str]) -> Iterator[str]:
    return (name for name in names if not name.startswith("."))


def _key(path: str, unique: int, stem: Callable[[str], str]) -> Key:
    """What tells the file from others: its kind, the last folders, its name; the case of letters does not count."""
    *folders, name = PurePosixPath(path).parts[-unique:]
    suffix = PurePosixPath(name).suffix.lower()
    kind = next((family[0] for family in FAMILIES if suffix in family), suffix)
    parts = (kind, *folders, stem(PurePosixPath(name).stem))
    return tuple(unicodedata.normalize("NFC", part).casefold() for part in parts)


def _rank(path: str, official: str) -> tuple[bool, int, str]:
    """The official format first, then the highest folder."""
    return PurePosixPath(path).suffix.lower() != PurePosixPath(official).suffix.lower(), path.count("/"), path
