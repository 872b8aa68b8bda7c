"""Tensors of clips that were extracted before: those of the same content, by the same recipe.

Every part that was extracted is in the store (`agm.pipeline.dag.store`). A clip that was added, or a label that was
mended, puts all clips into another order, and so into other parts; their tensors are the same.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from agm.pipeline.dag import store
from agm.pipeline.errors import AgmError
from agm.pipeline.io import tensors
from agm.pipeline.io.files import read_json, sha256
from agm.pipeline.io.tensors import Feature

COLUMNS = ("clip_id", "source", "content")
"""What a part has of each clip besides its tensor."""

Result = tuple[np.ndarray | str, str]
"""A clip's tensor, or the reason why there is none; the checksum of its file, empty where there is none."""


class Kept:
    """The tensors that are there, by the clips' numbers.

    They lie in a file, not in memory: what one part asks for is spread over all earlier ones.
    """

    def __init__(self, held: np.ndarray | None) -> None:
        self._held = held
        self._contents: dict[int, str] = {}

    def __len__(self) -> int:
        return len(self._contents)

    def __contains__(self, number: int) -> bool:
        return number in self._contents

    def put(self, number: int, tensor: np.ndarray, content: str) -> None:
        """Keep the tensor of a clip."""
        self._held[number] = tensor
        self._contents[number] = content

    def merged(self, new: Iterator[Result], count: int) -> Iterator[Result]:
        """The results of `count` clips in their order: those kept, and where there is none the next of `new`."""
        for number in range(count):
            yield (self._held[number], self._contents[number]) if number in self else next(new)
        # Whoever counts on it hears of the end.
        yield from new


@contextmanager
def taken(modality: str, recipe: str, feature: Feature, keys: list[str]) -> Iterator[Kept]:
    """The tensors that the store has of clips, while the context lasts.

    Args:
        recipe: the checksum of all that makes a tensor of a clip's content.
        keys: `Source.key` of each clip.
    """
    wanted: dict[str, list[int]] = {}
    for number, key in enumerate(keys):
        wanted.setdefault(key, []).append(number)
    parts = _parts(modality, recipe)
    part = next(parts, None)
    if part is None or not keys:
        yield Kept(None)
        return
    with tempfile.TemporaryFile(dir=store.STORE) as file:
        kept = Kept(np.memmap(file, feature.dtype, "w+", shape=(len(keys), *feature.shape)))
        while part is not None and wanted:
            _take(part, feature, wanted, kept)
            part = next(parts, None)
        yield kept


def _parts(modality: str, recipe: str) -> Iterator[tuple[Path, str]]:
    """The parts in the store that were made by the recipe, each with the checksum it must have."""
    for places in store.results("extract", modality):
        index_path = next(path for path in places if path.suffix == ".json" and path.with_suffix(".parquet") in places)
        try:
            index = read_json(places[index_path])
            part = index_path.with_suffix(".parquet")
            if index["recipe"] == recipe:
                yield places[part], index["sha256"][part.name]
        except (AgmError, KeyError, OSError):
            continue  # damaged, or of another version


def _take(part: tuple[Path, str], feature: Feature, wanted: dict[str, list[int]], kept: Kept) -> None:
    """Take over the clips that are wanted, one row group in memory at a time."""
    path, checksum = part
    try:
        has_some = not wanted.keys().isdisjoint(pq.read_table(path, columns=["source"])["source"].to_pylist())
        if not has_some or sha256(path) != checksum:
            return
    except (OSError, pa.ArrowException):
        return
    with pq.ParquetFile(path, memory_map=True) as file:
        for group in range(file.num_row_groups):
            keys = file.read_row_group(group, columns=["source"])["source"].to_pylist()
            if wanted.keys().isdisjoint(keys):
                continue
            table = file.read_row_group(group, columns=["content", "tensor"], use_threads=False)
            rows = zip(keys, tensors.decode(table["tensor"], feature), table["content"].to_pylist(), strict=True)
            for key, tensor, content in rows:
                for number in wanted.pop(key, ()):
                    kept.put(number, tensor, content)
