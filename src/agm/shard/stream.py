"""Stream batches from the shards, holding no more than a window of clips in memory.

The order of an epoch depends only on (seed, epoch, window): the row groups ("blocks") of all files of the split are
permuted, consecutive ones are put together into windows of at most `window` rows, and the rows of each window are
permuted. A split that fits into one window is thus permuted fully; the shards themselves lie in a seeded random
order, so that neighbours are unrelated anyway. Batches are consecutive slices of that order and may cross windows,
which is why any batch can be jumped to without reading what lies before it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from torch import Tensor

from agm import files, tensors
from agm.errors import AgmError
from agm.tensors import Feature

REBUILD = "agm shard"


@dataclass(frozen=True)
class Batch:
    """Some clips.

    Attributes:
        clip_ids: their ids, B of them.
        labels: int64 [B], indexes into `Shards.classes`.
        inputs: for each modality [B, *shape] in the stored type, not normalised.
    """

    clip_ids: list[str]
    labels: Tensor
    inputs: dict[str, Tensor]

    def __len__(self) -> int:
        return len(self.clip_ids)


@dataclass(frozen=True)
class _Clips:
    """Rows of the shards: ids, and by name the other columns, each [N, …].

    NumPy rather than torch because it copies rows into fresh memory several times faster.
    """

    clip_ids: list[str]
    columns: dict[str, np.ndarray]

    def take(self, rows: np.ndarray) -> "_Clips":
        """The clips at `rows`, copied."""
        columns = {name: np.take(each, rows, axis=0) for name, each in self.columns.items()}
        return _Clips([self.clip_ids[row] for row in rows], columns)


@dataclass(frozen=True)
class _Block:
    """One row group of one shard file."""

    file: pq.FileMetaData
    path: Path
    group: int
    rows: int


@dataclass(frozen=True)
class Shards:
    """The shards of one data set.

    Attributes:
        folder: data/<data set>.
        features: what the tensors of each modality are, with the training split's mean and standard deviation.
        classes: names in label order.
    """

    folder: Path
    features: dict[str, Feature]
    classes: list[str]
    _blocks: dict[str, list[_Block]]
    _sums: dict[str, str]

    @classmethod
    def open(cls, data_folder: Path) -> "Shards":
        """Open the shards that `agm shard` wrote below `data_folder`.

        Raises:
            AgmError: when a file is missing, or holds other rows or tensors than the index says.
        """
        folder = Path(data_folder)
        index = files.read_json(folder / "shards.json", REBUILD)
        features = {name: Feature.from_json(each) for name, each in index["features"].items()}
        blocks: dict[str, list[_Block]] = {}
        sums = {}
        for split, content in index["splits"].items():
            blocks[split] = []
            for file in content["files"]:
                blocks[split] += _blocks(folder / "shards" / file["name"], file["rows"], features)
                sums[file["name"]] = file["sha256"]
        return cls(folder, features, index["classes"], blocks, sums)

    def verify(self) -> None:
        """Compare every shard file with its checksum; this reads them whole.

        Raises:
            AgmError: naming the first file that is damaged.
        """
        files.verify(self.folder / "shards", self._sums, REBUILD)

    def rows(self, split: str) -> int:
        """Number of clips in `split`."""
        return sum(block.rows for block in self._blocks[split])

    def batches(
        self,
        split: str,
        batch_size: int,
        *,
        shuffle: tuple[int, int] | None = None,
        window: int = 1024,
        skip: int = 0,
        modalities: Sequence[str] | None = None,
    ) -> Iterator[Batch]:
        """Yield the clips of `split`, `batch_size` at a time; the last batch may be smaller.

        Args:
            shuffle: (seed, epoch) of the order; None keeps the stored order.
            window: most clips held in memory to shuffle from (one row group at least, and one batch beside it).
            skip: batches left out at the beginning, without reading their windows.
            modalities: those to read; None reads all.
        """
        names = list(self.features if modalities is None else modalities)
        left_out = skip * batch_size
        carried: list[_Clips] = []
        carries = 0
        for number, blocks in enumerate(_windows(self._blocks[split], shuffle, window)):
            rows = sum(block.rows for block in blocks)
            start, left_out = min(left_out, rows), max(0, left_out - rows)
            if start == rows:
                continue
            order = _order(rows, shuffle, number)
            held = self._read(blocks, names)
            while start < rows:
                stop = min(rows, start + batch_size - carries)
                carried.append(held.take(order[start:stop]))
                carries += stop - start
                start = stop
                if carries == batch_size:
                    yield _batch(carried)
                    carried, carries = [], 0
            # Without this the window would be held while the next one is read.
            del held
        if carried:
            yield _batch(carried)

    def _read(self, blocks: list[_Block], names: list[str]) -> _Clips:
        """Read the rows of `blocks` one after another."""
        rows = sum(block.rows for block in blocks)
        clip_ids: list[str] = []
        columns = {
            name: np.empty((rows, *each.shape), each.dtype) for name, each in self.features.items() if name in names
        }
        columns["label"] = np.empty(rows, np.int64)
        for block in blocks:
            with pq.ParquetFile(block.path, metadata=block.file, memory_map=True) as file:
                table = file.read_row_group(block.group, ["clip_id", *columns], use_threads=False)
            place = slice(len(clip_ids), len(clip_ids) + block.rows)
            clip_ids += table["clip_id"].to_pylist()
            columns["label"][place] = table["label"].to_numpy()
            for name in names:
                columns[name][place] = tensors.decode(table[name], self.features[name])
        return _Clips(clip_ids, columns)


def _blocks(path: Path, rows: int, features: dict[str, Feature]) -> Iterator[_Block]:
    """The row groups of one shard file, which must hold `rows` rows of `features`."""
    if not path.exists():
        raise AgmError("A shard is missing", where=path, fix=f"run `{REBUILD}`")
    try:
        with pq.ParquetFile(path) as file:
            metadata, layout = file.metadata, file.schema_arrow
    except (OSError, ValueError) as error:
        raise AgmError(f"A shard cannot be read: {error}", where=path, fix=f"delete it and run `{REBUILD}`") from None
    tensors.check(layout, features, path, REBUILD)
    if metadata.num_rows != rows:
        raise AgmError(
            f"A shard holds {metadata.num_rows} clips, and its index says {rows}",
            where=path,
            fix=f"run `{REBUILD}`",
        )
    for group in range(metadata.num_row_groups):
        yield _Block(metadata, path, group, metadata.row_group(group).num_rows)


def _windows(blocks: list[_Block], shuffle: tuple[int, int] | None, window: int) -> Iterator[list[_Block]]:
    """Group the epoch's blocks into windows of at most `window` rows, and of one block at least."""
    if shuffle is None:
        yield from ([block] for block in blocks)
        return
    chosen: list[_Block] = []
    rows = 0
    for place in np.random.default_rng([*shuffle, 0]).permutation(len(blocks)):
        if chosen and rows + blocks[place].rows > window:
            yield chosen
            chosen, rows = [], 0
        chosen.append(blocks[place])
        rows += blocks[place].rows
    if chosen:
        yield chosen


def _order(rows: int, shuffle: tuple[int, int] | None, number: int) -> np.ndarray:
    """Order of the rows of the epoch's window `number`: each has a generator of its own, so any can be skipped."""
    return np.arange(rows) if shuffle is None else np.random.default_rng([*shuffle, number + 1]).permutation(rows)


def _batch(pieces: list[_Clips]) -> Batch:
    """Put the pieces of one batch together; a single one is not copied again."""
    columns = pieces[0].columns
    if len(pieces) > 1:
        columns = {name: np.concatenate([each.columns[name] for each in pieces]) for name in columns}
    inputs = {name: torch.from_numpy(each) for name, each in columns.items()}
    labels = inputs.pop("label")
    return Batch([name for each in pieces for name in each.clip_ids], labels, inputs)
