"""Store tensors in Parquet: one fixed-size binary per row, described in the schema's metadata.

Reading such a column is a plain copy of bytes: several times faster than lists or Arrow's tensor type. The bytes of a
row are the C-ordered, little-endian values of one tensor. The schema's metadata holds under `agm.tensors`

    {"version": 1, "columns": {column: {"dtype": "uint8", "shape": [8, 3, 224, 224]}}}
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from agm.pipeline.errors import AgmError

METADATA = b"agm.tensors"
VERSION = 1
PAGE_BYTES = 8 << 20
DAMAGED = (OSError, ValueError, pa.ArrowException)
"""What pyarrow raises for a damaged file: also UnicodeDecodeError, and ArrowNotImplementedError for a form that it does
not know."""


@dataclass(frozen=True)
class Feature:
    """The form of one modality's tensors.

    Attributes:
        kind: "video", "audio", "image", "text" or "sequence".
        dtype: NumPy's name of the stored type: "uint8", "float32" or "int32".
        shape: shape of one clip's tensor.
        mean: mean of the stored values per channel over the training split; None for text and before sharding.
        std: standard deviation of the same values; 0 where a channel is constant.
        vocabulary: number of different ids, padding and unknown included; None except for text.
    """

    kind: str
    dtype: str
    shape: tuple[int, ...]
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    vocabulary: int | None = None

    @property
    def scale(self) -> tuple[float, ...]:
        """The divisors of normalisation: each channel's standard deviation, or 1 where the channel is constant."""
        return tuple(std if std > 0 else 1.0 for std in self.std)

    @property
    def nbytes(self) -> int:
        """Bytes of one clip's tensor."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize

    def to_json(self) -> dict[str, Any]:
        """A JSON object with the attributes as keys."""
        content = dict(vars(self))
        for key, value in content.items():
            if isinstance(value, tuple):
                content[key] = list(value)
        return content

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "Feature":
        """The inverse of `to_json`."""
        attributes = dict(content)
        for key, value in content.items():
            if isinstance(value, list):
                attributes[key] = tuple(value)
        return cls(**attributes)


def schema(columns: Mapping[str, pa.DataType], features: Mapping[str, Feature]) -> pa.Schema:
    """A schema of plain `columns` followed by one tensor column for each of `features`."""
    fields = [pa.field(name, kind, nullable=False) for name, kind in columns.items()]
    for name, feature in features.items():
        fields.append(pa.field(name, pa.binary(feature.nbytes), nullable=False))
    described = {"version": VERSION, "columns": _layouts(features)}
    return pa.schema(fields, metadata={METADATA: json.dumps(described).encode()})


def writer(path: Path, layout: pa.Schema) -> pq.ParquetWriter:
    """A Parquet writer for a schema made by `schema`: uncompressed, and without statistics of tensor columns."""
    widest = 1
    plain = []
    for field in layout:
        if pa.types.is_fixed_size_binary(field.type):
            widest = max(widest, field.type.byte_width)
        else:
            plain.append(field.name)
    return pq.ParquetWriter(
        path,
        layout,
        compression="NONE",
        use_dictionary=False,
        write_statistics=plain,
        # A page must stay below 2 GB, and the writer checks its size only after this many rows.
        write_batch_size=max(1, min(1024, PAGE_BYTES // widest)),
        data_page_size=PAGE_BYTES,
    )


def encode(array: np.ndarray, feature: Feature) -> pa.FixedSizeBinaryArray:
    """Encode N tensors [N, *shape] as N fixed-size binaries, without a copy where `array` is contiguous.

    Raises:
        ValueError: when the array's type or shape is not the feature's.
    """
    if array.dtype != np.dtype(feature.dtype) or array.shape[1:] != feature.shape:
        raise ValueError(f"expected {feature.dtype}{list(feature.shape)}, found {array.dtype}{list(array.shape[1:])}")
    values = pa.py_buffer(np.ascontiguousarray(array))
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(feature.nbytes), len(array), [None, values])


def decode(column: pa.Array | pa.ChunkedArray, feature: Feature) -> np.ndarray:
    """Decode fixed-size binaries to a read-only array [N, *shape] over the same memory."""
    if isinstance(column, pa.ChunkedArray):
        # A single chunk is used as it is: combining would copy it.
        column = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
    values = column.buffers()[1]
    if not len(column):
        return np.empty((0, *feature.shape), feature.dtype)
    # A slice of a column shares the buffer of the whole one.
    offset = column.offset * feature.nbytes
    count = len(column) * math.prod(feature.shape)
    flat = np.frombuffer(values, np.dtype(feature.dtype), count, offset)
    return flat.reshape(len(column), *feature.shape)


def check(layout: pa.Schema, features: Mapping[str, Feature], path: Path, rebuild: str) -> None:
    """Refuse a file whose tensor columns are not `features`.

    Raises:
        AgmError: for another schema version, type or shape, naming `rebuild`, the command that makes the file.
    """
    fix = f"run `{rebuild}`"
    try:
        described = json.loads((layout.metadata or {})[METADATA])
        version, columns = described["version"], described["columns"]
    except (KeyError, TypeError, ValueError):
        raise AgmError("A data file does not say what its tensors are", where=path, fix=fix) from None
    if version != VERSION:
        raise AgmError(
            f"A data file has schema version {version}, and this program reads {VERSION}", where=path, fix=fix
        )
    wanted = _layouts(features)
    if columns != wanted:
        raise AgmError(f"A data file holds {columns} where {wanted} is expected", where=path, fix=fix)


def _layouts(features: Mapping[str, Feature]) -> dict[str, dict[str, Any]]:
    """The type and shape of each tensor column, as the metadata states them."""
    return {name: {"dtype": feature.dtype, "shape": list(feature.shape)} for name, feature in features.items()}
