"""Read HDF5 files that others made: only what the file itself holds, and within the limits.

Such a file can name other files by external links, external storage and virtual data sets. It can be compressed by a
filter for which the library would load a plug-in. A few of its bytes can stand for any amount of numbers. This module
follows no link, loads no plug-in and unfolds nothing beyond the limits.
"""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from agm.extras import require
from agm.pipeline.io import limits
from agm.pipeline.io.limits import Unusable

if TYPE_CHECKING:
    import h5py

FILTERS = ("DEFLATE", "SHUFFLE", "FLETCHER32", "SZIP", "NBIT", "SCALEOFFSET", "LZF")
"""Compression filters that the library has built in."""


def opened(path: str | Path) -> "h5py.File":
    """The file, opened for reading.

    Raises:
        MissingExtra: when h5py is not installed.
        OSError: when it is no HDF5 file, or damaged.
    """
    require("h5py", "hdf5")
    import h5py

    return h5py.File(path, "r")


def child(group: Any, path: str) -> Any:
    """The group or data set at a path of keys below `group`; None where there is none.

    Raises:
        Unusable: when a link lies on the path.
    """
    import h5py

    for name in path.split("/"):
        if not isinstance(group, h5py.Group) or not name:
            return None
        link = group.get(name, getlink=True)
        if link is None:
            return None
        if not isinstance(link, h5py.HardLink):
            raise Unusable(f"{path!r} is a link to another place, and links in HDF5 files are not followed")
        group = group[name]
    return group


def dataset(group: Any, path: str) -> "h5py.Dataset | None":
    """The data set at a path of keys below `group`; None where there is none.

    Raises:
        Unusable: when a link lies on the path.
    """
    import h5py

    member = child(group, path)
    return member if isinstance(member, h5py.Dataset) else None


def only_child(group: Any) -> Any:
    """The only member of `group`.

    Raises:
        ValueError: when it has several, or none.
    """
    (name,) = group
    return child(group, name)


def numbers(stored: "h5py.Dataset", row: int | None = None) -> np.ndarray:
    """The numbers of a data set, or of one row of it.

    Raises:
        Unusable: when it holds no numbers, too many or damaged ones, or when they lie in another file.
    """
    name = stored.name.rpartition("/")[2]
    if stored.dtype.kind not in "fiub":
        raise Unusable(f"{name!r} holds {stored.dtype}, not numbers")
    if stored.external or stored.is_virtual:
        raise Unusable(f"the numbers of {name!r} lie in other files, which are not read")
    settings = stored.id.get_create_plist()
    filters = {settings.get_filter(position)[0] for position in range(settings.get_nfilters())}
    unknown = filters - _known_filters()
    if unknown:
        raise Unusable(f"{name!r} is compressed in a way that needs a plug-in: filter {min(unknown)}")
    shape = stored.shape if row is None else stored.shape[1:]
    # HDF5 unfolds a whole chunk, also where only one row of it is asked for.
    taken = max(math.prod(shape), math.prod(stored.chunks or ()))
    limits.check("numbers", taken, f"{name!r} takes {{}} numbers")
    try:
        return np.asarray(stored[()] if row is None else stored[row])
    except OSError as error:
        # A chunk may unfold to more than the file states, and HDF5 raises the same error for that as for damage.
        most = f"more memory than dataset.limits.memory_bytes = {limits.most('memory_bytes'):,}"
        raise Unusable(f"{name!r} is damaged, or takes {most}: {error}") from None


def _known_filters() -> set[int]:
    """The numbers by which the library knows `FILTERS`."""
    from h5py import h5z

    return {getattr(h5z, f"FILTER_{name}") for name in FILTERS}
