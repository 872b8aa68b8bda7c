"""Read the array of one clip from a file that holds many clips.

`Source.member` names the part of the file:

    .npy              the number of a row
    .h5 .hdf5         a path of keys; behind the name of a data set, the number of its row ("avadataset/17")
    .csd              (of the CMU multimodal SDK) the key of a video, of which the steps between the source's `start`
                      and `end` are taken
    .pkl .p .pickle   a path of keys and numbers ("train/text/17"); several numbers at its end are several elements,
                      in that order ("words/4,0,4"); a comma behind a single number makes a list of one ("words/4,")

COVAREP writes numbers that are not finite for sound without a voice into .csd files and pickles. They are read as 0, as
in the published loaders.
"""

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from agm.pipeline.errors import AgmError
from agm.pipeline.io import hdf5, limits, unpickle
from agm.pipeline.io.media import Unusable, message_of, opened_array
from agm.pipeline.io.source import Source

if TYPE_CHECKING:
    import h5py


def opened(source: Source) -> np.ndarray:
    """The array of one clip, numbers only.

    Raises:
        Unusable: when the file has no such part, is damaged, or the part is no array of numbers or one of too many.
    """
    path = Path(source.path)
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise Unusable(f"files of many clips are {', '.join(READERS)}, not {path.suffix or 'without a suffix'}")
    array = reader(path, source)
    if array.dtype.kind not in "fiub":
        raise Unusable(f"{source.member!r} holds {array.dtype}, not numbers")
    if 0 in array.shape:
        raise Unusable(f"{source.member!r} is empty: its shape is {list(array.shape)}")
    limits.check("numbers", array.size, f"{source.member!r} has {{}} numbers")
    return array


def in_pickle(source: Source) -> bool:
    """Whether the clip lies in a file that can only be read whole. One process reads it: others would hold it too."""
    return source.member is not None and READERS.get(Path(source.path).suffix.lower()) is _of_pickle


def _of_npy(path: Path, source: Source) -> np.ndarray:
    return _row(opened_array(path), source.member, source)


def _row(rows: Any, number: str, source: Source) -> Any:
    """One row of an array, a list or a tuple."""
    return rows[_place(rows, number, source)]


def _place(rows: Any, number: str, source: Source) -> int:
    if not (number.isascii() and number.isdecimal()) or int(number) >= len(rows):
        raise Unusable(f"the file has no {source.member!r}: {len(rows)} elements are numbered from 0")
    return int(number)


# --- HDF5 -----------------------------------------------------------------------------------------------------------


def _of_hdf5(path: Path, source: Source) -> np.ndarray:
    file = _hdf5(path, path.stat().st_mtime_ns)
    try:
        return _part(file, source)
    except (OSError, RuntimeError, ValueError, TypeError, KeyError) as error:
        raise Unusable(f"{source.member!r} cannot be read: {message_of(error)}") from None


def _part(file: "h5py.File", source: Source) -> np.ndarray:
    """The data set that the member names, or the row of one where the last part is its number."""
    whole = hdf5.dataset(file, source.member)
    if whole is not None:
        return hdf5.numbers(whole)
    parent, _, row = source.member.rpartition("/")
    rows = hdf5.dataset(file, parent)
    if rows is not None and rows.ndim:
        return hdf5.numbers(rows, _place(rows, row, source))
    raise Unusable(f"the file has no {source.member!r}")


def _of_csd(path: Path, source: Source) -> np.ndarray:
    """The steps of a video whose intervals overlap the clip. The SDK aligns in the same way."""
    file = _hdf5(path, path.stat().st_mtime_ns)
    try:
        video = hdf5.child(hdf5.only_child(file), f"data/{source.member}")  # each file holds one feature
        stored_intervals = hdf5.dataset(video, "intervals")
        stored_features = hdf5.dataset(video, "features")
        if stored_intervals is None or stored_features is None:
            raise Unusable(f"the file has no {source.member!r}")
        intervals = hdf5.numbers(stored_intervals)
        features = hdf5.numbers(stored_features)
    except (OSError, RuntimeError, ValueError, TypeError, KeyError) as error:
        raise Unusable(f"{source.member!r} cannot be read: {message_of(error)}") from None
    if intervals.shape != (*features.shape[:1], 2):
        raise Unusable(f"{source.member!r} has features {list(features.shape)} and intervals {list(intervals.shape)}")
    start = -np.inf if source.start is None else source.start
    end = np.inf if source.end is None else source.end
    overlaps = (intervals[:, 0] < end) & (intervals[:, 1] > start)
    return _finite(features[overlaps])


@lru_cache(maxsize=4)
def _hdf5(path: Path, mtime_ns: int) -> "h5py.File":
    """Open a file once in each process; one that was written anew has another time and is opened again."""
    try:
        return hdf5.opened(path)
    except OSError as error:
        raise Unusable(f"not an HDF5 file, truncated or damaged: {message_of(error)}") from None


# --- pickles --------------------------------------------------------------------------------------------------------


def _of_pickle(path: Path, source: Source) -> np.ndarray:
    value = _pickle(path, path.stat().st_mtime_ns)
    *keys, last = source.member.split("/")
    for key in keys:
        value = _element(value, key, source)
    if "," in last:
        value = [_element(value, key, source) for key in last.removesuffix(",").split(",")]
    else:
        value = _element(value, last, source)
    return _finite(_numbers(value, source))


@lru_cache(maxsize=1)
def _pickle(path: Path, mtime_ns: int) -> Any:
    """The content of a pickle. Only the last one is kept: it may fill much of the memory."""
    try:
        return unpickle.load(path)
    except AgmError as error:
        raise Unusable(error.what) from None


def _element(container: Any, key: str, source: Source) -> Any:
    """What a dictionary has under `key`, or a list, a tuple or an array at that place."""
    if isinstance(container, dict):
        if key in container:
            return container[key]
        # Some pickles have integers as keys.
        if key.isascii() and key.isdecimal() and int(key) in container:
            return container[int(key)]
    elif isinstance(container, list | tuple) or (isinstance(container, np.ndarray) and container.ndim):
        return _row(container, key, source)
    raise Unusable(f"the file has no {source.member!r}")


def _numbers(value: Any, source: Source) -> np.ndarray:
    """An array as it is; lists of numbers, and lists of such lists, as float32."""
    if isinstance(value, np.ndarray):
        return value
    try:
        array = unpickle.asarray(value)
        return array.astype(np.float32) if array.dtype.kind in "fiub" else array
    except (ValueError, TypeError, OverflowError):
        raise Unusable(f"{source.member!r} is no array: its rows differ in length, or hold no numbers") from None


def _finite(array: np.ndarray) -> np.ndarray:
    """The array with 0 in the place of numbers that are not finite."""
    if array.dtype.kind != "f" or np.isfinite(array).all():
        return array
    return np.nan_to_num(array, nan=0.0, posinf=0.0, neginf=0.0)


READERS: dict[str, Callable[[Path, Source], np.ndarray]] = {
    ".npy": _of_npy,
    ".h5": _of_hdf5,
    ".hdf5": _of_hdf5,
    ".csd": _of_csd,
    ".pkl": _of_pickle,
    ".p": _of_pickle,
    ".pickle": _of_pickle,
}
