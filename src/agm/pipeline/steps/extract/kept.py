"""Reuse the tensors of clips that were extracted before: those of the same content, by the same recipe.

The store (`agm.pipeline.dag.store`) holds every extracted part. An added clip or a corrected label puts all clips into
another order, and so into other parts; but their tensors stay the same.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from agm.pipeline.dag import store
from agm.pipeline.errors import AgmError
from agm.pipeline.io import tensors
from agm.pipeline.io.files import read_json, sha256
from agm.pipeline.io.tensors import Feature

COLUMNS = ("clip_id", "source", "content")
"""The columns of a part besides the tensors."""

Result = tuple[np.ndarray | str, str]
"""A clip's tensor, or the reason why it has none; and the checksum of its file, empty where it has none."""


class Kept:
    """The kept tensors, by the numbers of the clips.

    They lie in a file, not in memory: the clips of one part may come from all earlier parts.
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
        """Yield the results of `count` clips in their order: the kept one, or else the next of `new`."""
        for number in range(count):
            if number in self:
                yield self._held[number], self._contents[number]
            else:
                yield next(new)
        # `new` is run to its end, where it finishes its progress.
        yield from new


@contextmanager
def taken(modality: str, recipe: str, feature: Feature, keys: list[str]) -> Iterator[Kept]:
    """The tensors of clips that the store holds; they can be read inside the context.

    Args:
        recipe: the checksum of everything that decides the tensor besides the clip's content.
        keys: `Source.key` of each clip.
    """
    # Several clips may have the same source.
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
    """Yield the parts in the store that were made by the recipe, and the checksum that each must have."""
    for stored_at in store.results("extract", modality):
        # The index lies beside the part and has its name.
        index_path = next(
            path for path in stored_at if path.suffix == ".json" and path.with_suffix(".parquet") in stored_at
        )
        part = index_path.with_suffix(".parquet")
        try:
            index = read_json(stored_at[index_path])
            if index["recipe"] == recipe:
                yield stored_at[part], index["sha256"][part.name]
        except (AgmError, KeyError, OSError):
            continue  # damaged, or of another version


def _take(part: tuple[Path, str], feature: Feature, wanted: dict[str, list[int]], kept: Kept) -> None:
    """Take over the wanted clips of one part, with one row group in memory at a time."""
    path, checksum = part
    try:
        # The sources first: to compare the checksum, the whole file is read.
        keys = pq.read_table(path, columns=["source"])["source"].to_pylist()
        if wanted.keys().isdisjoint(keys) or sha256(path) != checksum:
            return
    except tensors.DAMAGED:
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
