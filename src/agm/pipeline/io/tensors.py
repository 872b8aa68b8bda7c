"""Tensors in Parquet: one fixed-size binary per row, described in the schema's metadata.

Reading such a column is a plain copy of bytes: several times faster than lists or Arrow's tensor type. The bytes of a
row are the C-ordered, little-endian values of one tensor. The schema's metadata holds, under `agm.tensors`,

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


@dataclass(frozen=True)
class Feature:
    """What one modality's tensors are.

    Attributes:
        kind: "video", "audio", "image", "text" or "sequence".
        dtype: NumPy's name of the stored type: "uint8", "float32" or "int32".
        shape: shape of one clip's tensor.
        mean: mean of the stored values per channel over the training split; None for text and before sharding.
        std: standard deviation likewise. It is 0 where a channel is constant.
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
        """What normalisation divides each channel by: its standard deviation, 1 where it is constant."""
        return tuple(each if each > 0 else 1.0 for each in self.std)

    @property
    def nbytes(self) -> int:
        """Bytes of one clip's tensor."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize

    def to_json(self) -> dict[str, Any]:
        """A JSON object with the attributes as keys."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in vars(self).items()}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "Feature":
        """The inverse of `to_json`."""
        return cls(**{key: tuple(value) if isinstance(value, list) else value for key, value in content.items()})


def schema(columns: Mapping[str, pa.DataType], features: Mapping[str, Feature]) -> pa.Schema:
    """A schema of plain `columns` followed by one tensor column for each of `features`."""
    plain = [pa.field(name, kind, nullable=False) for name, kind in columns.items()]
    tensors = [pa.field(name, pa.binary(each.nbytes), nullable=False) for name, each in features.items()]
    described = {"version": VERSION, "columns": {name: _layout(each) for name, each in features.items()}}
    return pa.schema(plain + tensors, metadata={METADATA: json.dumps(described).encode()})


def writer(path: Path, layout: pa.Schema) -> pq.ParquetWriter:
    """A Parquet writer for a schema made by `schema`: uncompressed, nothing computed over tensor columns."""
    tensors = [each.type.byte_width for each in layout if pa.types.is_fixed_size_binary(each.type)]
    return pq.ParquetWriter(
        path,
        layout,
        compression="NONE",
        use_dictionary=False,
        write_statistics=[each.name for each in layout if not pa.types.is_fixed_size_binary(each.type)],
        # A page must stay below 2 GB, and its size is only looked at after this many rows.
        write_batch_size=max(1, min(1024, PAGE_BYTES // max(tensors, default=1))),
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
        column = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
    values = column.buffers()[1]
    if not len(column):
        return np.empty((0, *feature.shape), feature.dtype)
    offset = column.offset * feature.nbytes
    flat = np.frombuffer(values, np.dtype(feature.dtype), len(column) * math.prod(feature.shape), offset)
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
    wanted = {name: _layout(each) for name, each in features.items()}
    if columns != wanted:
        raise AgmError(f"A data file holds {columns} where {wanted} is expected", where=path, fix=fix)


def _layout(feature: Feature) -> dict[str, Any]:
    return {"dtype": feature.dtype, "shape": list(feature.shape)}
