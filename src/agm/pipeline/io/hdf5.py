"""HDF5 files that others made: what lies in the file itself, and no more of it than the limits allow.

Such a file can name others, by external links, external storage and virtual data sets; it can be compressed by a filter
for which the library would load a plug-in; and a few bytes of it can stand for any amount of numbers. None is followed,
loaded or unfolded.
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
"""Those that the library has itself."""


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

    found = child(group, path)
    return found if isinstance(found, h5py.Dataset) else None


def only_child(group: Any) -> Any:
    """The one that there is.

    Raises:
        ValueError: when there are several, or none.
    """
    (name,) = group
    return child(group, name)


def numbers(found: "h5py.Dataset", row: int | None = None) -> np.ndarray:
    """The numbers of a data set, or of one row of it.

    Raises:
        Unusable: when they are none, lie elsewhere, are too many or damaged.
    """
    name = found.name.rpartition("/")[2]
    if found.dtype.kind not in "fiub":
        raise Unusable(f"{name!r} holds {found.dtype}, not numbers")
    if found.external or found.is_virtual:
        raise Unusable(f"the numbers of {name!r} lie in other files, which are not read")
    settings = found.id.get_create_plist()
    unknown = {settings.get_filter(each)[0] for each in range(settings.get_nfilters())} - _known_filters()
    if unknown:
        raise Unusable(f"{name!r} is compressed in a way that needs a plug-in: filter {min(unknown)}")
    shape = found.shape if row is None else found.shape[1:]
    # A chunk is unfolded whole, whatever is asked of it.
    limits.check("numbers", max(math.prod(shape), math.prod(found.chunks or ())), f"{name!r} takes {{}} numbers")
    try:
        return np.asarray(found[()] if row is None else found[row])
    except OSError as error:
        # A chunk may unfold to more than it says, and HDF5 does not tell that from damage.
        most = f"more memory than dataset.limits.memory_bytes = {limits.most('memory_bytes'):,}"
        raise Unusable(f"{name!r} is damaged, or takes {most}: {error}") from None


def _known_filters() -> set[int]:
    """The numbers by which the library knows `FILTERS`."""
    from h5py import h5z

    return {getattr(h5z, f"FILTER_{name}") for name in FILTERS}
