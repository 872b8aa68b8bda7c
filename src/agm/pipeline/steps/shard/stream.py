"""Stream batches from the shards, with at most one window of clips in memory.

The order of an epoch depends only on (seed, epoch, window): the row groups ("blocks") of all files of the split are
permuted, consecutive ones are joined into windows of at most `window` rows, and the rows of each window are permuted.
So a split that fits into one window is permuted fully. In a larger one, neighbours are unrelated too, because the
shards lie in a seeded random order. Batches are consecutive slices of that order and may cross windows. So any batch
can be reached without reading what lies before it.

Several processes divide the blocks of every window among them. Each reads its own blocks, and yields the rows of every
batch that lie in them.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from torch import Tensor

from agm.pipeline.errors import AgmError
from agm.pipeline.io import files, tensors
from agm.pipeline.io.tensors import Feature

REBUILD = "agm shard"


@dataclass(frozen=True)
class StoredBatch:
    """B clips as they are stored.

    Attributes:
        inputs: for each modality [B, *shape] in the stored type, not normalised.
        labels: int64 [B], indexes into `Shards.classes`.
        clip_ids: their B ids.
    """

    inputs: dict[str, Tensor]
    labels: Tensor
    clip_ids: list[str]

    def __len__(self) -> int:
        return len(self.clip_ids)


@dataclass(frozen=True)
class _Clips:
    """N rows of the shards: their ids, and the other columns by name, each [N, …].

    The columns are NumPy's, because it copies rows into fresh memory several times faster than torch.
    """

    clip_ids: list[str]
    columns: dict[str, np.ndarray]

    def take(self, rows: np.ndarray) -> "_Clips":
        """The clips at `rows`, copied."""
        columns = {name: np.take(column, rows, axis=0) for name, column in self.columns.items()}
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
        features: the form of each modality's tensors, with the mean and standard deviation of the training split.
        classes: names in label order.
    """

    folder: Path
    features: dict[str, Feature]
    classes: list[str]
    _blocks: dict[str, list[_Block]]
    _sums: dict[str, str]
    _verified: set[str] = field(default_factory=set)

    @classmethod
    def open(cls, data_folder: Path) -> "Shards":
        """Open the shards that `agm shard` wrote below `data_folder`.

        The tensors are not read yet: each file is compared with its checksum before its first rows are used.

        Raises:
            AgmError: when a file is missing, or holds other rows or tensors than the index says.
        """
        folder = Path(data_folder)
        index = files.read_json(folder / "shards.json", REBUILD)
        features = {name: Feature.from_json(content) for name, content in index["features"].items()}
        blocks: dict[str, list[_Block]] = {}
        sums: dict[str, str] = {}
        for split, content in index["splits"].items():
            blocks[split] = []
            for file in content["files"]:
                path = folder / "shards" / file["name"]
                sums[file["name"]] = file["sha256"]
                try:
                    blocks[split] += _blocks(path, file["rows"], features)
                except AgmError:
                    # A damaged file may state anything about itself; that it is damaged is the reason to report.
                    files.verify(path.parent, {path.name: file["sha256"]}, REBUILD)
                    raise
        return cls(folder, features, index["classes"], blocks, sums)

    def rows(self, split: str) -> int:
        """Number of clips in `split`."""
        return _count_rows(self._blocks[split])

    def batches(
        self,
        split: str,
        batch_size: int,
        *,
        shuffle: tuple[int, int] | None = None,
        window: int = 1024,
        skip: int = 0,
        modalities: Sequence[str] | None = None,
        part: tuple[int, int] = (0, 1),
    ) -> Iterator[StoredBatch]:
        """Yield the clips of `split`, `batch_size` at a time; the last batch may be smaller.

        Each of several processes yields its part. With `shuffle`, that is its rows, maybe none, of every batch that
        one process would yield: the rows of the blocks at places rank, rank + ranks, … of each window. In stored
        order, it is whole batches of its own, from the split's blocks rank, rank + ranks, …

        Args:
            shuffle: (seed, epoch) of the order; None keeps the stored order.
            window: size of the shuffle buffer in clips, summed over ranks. Memory holds one row group at least, and
                one batch besides.
            skip: number of batches to leave out at the beginning, without reading their windows.
            modalities: those to read; None reads all.
            part: (rank, ranks): the number of this process, and how many there are.

        Raises:
            AgmError: when a file is damaged, before any of its clips is used.
        """
        names = list(self.features if modalities is None else modalities)
        windows = self._read_windows(self._blocks[split], shuffle, window, skip * batch_size, names, part)
        return _batches(windows, batch_size)

    def _read_windows(
        self,
        blocks: list[_Block],
        shuffle: tuple[int, int] | None,
        window: int,
        rows_to_skip: int,
        names: list[str],
        part: tuple[int, int],
    ) -> Iterator[tuple[np.ndarray, _Clips]]:
        """Read window after window; yield the order of its rows, and the rows that this process reads.

        The order has for each row its place among the rows read, or -1 where another process reads it.
        """
        rank, ranks = part
        if shuffle is None:
            blocks, rank, ranks = blocks[rank::ranks], 0, 1
        for number, window_blocks in enumerate(_windows(blocks, shuffle, window)):
            rows = _count_rows(window_blocks)
            start = min(rows_to_skip, rows)
            rows_to_skip -= start
            if start < rows:
                order = _own_rows(window_blocks, rank, ranks)[_order(rows, shuffle, number)]
                # Without a name of its own here, the window is freed as soon as the caller is done with it.
                yield order[start:], self._read(window_blocks[rank::ranks], names)

    def _verify_once(self, path: Path) -> None:
        """Compare a file with its checksum before its first rows are used."""
        if path.name not in self._verified:
            files.verify(path.parent, {path.name: self._sums[path.name]}, REBUILD)
            self._verified.add(path.name)

    def _read(self, blocks: list[_Block], names: list[str]) -> _Clips:
        """Read the rows of `blocks` one after another."""
        rows = _count_rows(blocks)
        clip_ids: list[str] = []
        columns: dict[str, np.ndarray] = {}
        for name, feature in self.features.items():
            if name in names:
                columns[name] = np.empty((rows, *feature.shape), feature.dtype)
        columns["label"] = np.empty(rows, np.int64)
        for block in blocks:
            self._verify_once(block.path)
            with pq.ParquetFile(block.path, metadata=block.file, memory_map=True) as file:
                table = file.read_row_group(block.group, ["clip_id", *columns], use_threads=False)
            place = slice(len(clip_ids), len(clip_ids) + block.rows)
            clip_ids += table["clip_id"].to_pylist()
            columns["label"][place] = table["label"].to_numpy()
            for name in names:
                columns[name][place] = tensors.decode(table[name], self.features[name])
        return _Clips(clip_ids, columns)


def _count_rows(blocks: list[_Block]) -> int:
    return sum(block.rows for block in blocks)


def _blocks(path: Path, rows: int, features: dict[str, Feature]) -> Iterator[_Block]:
    """Yield the row groups of one shard file, which must hold `rows` rows of `features`."""
    if not path.exists():
        raise AgmError("A shard is missing", where=path, fix=f"run `{REBUILD}`")
    try:
        with pq.ParquetFile(path) as file:
            metadata, layout = file.metadata, file.schema_arrow
    except tensors.DAMAGED as error:
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
    """Group the epoch's blocks into windows of at most `window` rows, but of at least one block."""
    if shuffle is None:
        for block in blocks:
            yield [block]
        return
    chosen: list[_Block] = []
    rows = 0
    for place in np.random.default_rng([*shuffle, 0]).permutation(len(blocks)):
        block = blocks[place]
        if chosen and rows + block.rows > window:
            yield chosen
            chosen, rows = [], 0
        chosen.append(block)
        rows += block.rows
    if chosen:
        yield chosen


def _order(rows: int, shuffle: tuple[int, int] | None, number: int) -> np.ndarray:
    """Order of the rows of the epoch's window `number`."""
    if shuffle is None:
        return np.arange(rows)
    # Each window has a generator of its own, so that any window can be skipped. 0 seeds the order of the blocks.
    return np.random.default_rng([*shuffle, number + 1]).permutation(rows)


def _own_rows(blocks: list[_Block], rank: int, ranks: int) -> np.ndarray:
    """For each row of a window its place among the rows that `rank` reads, or -1 where another process reads it."""
    own_blocks = np.arange(len(blocks)) % ranks == rank
    own = np.repeat(own_blocks, [block.rows for block in blocks])
    return np.where(own, np.cumsum(own) - 1, -1)


def _batches(windows: Iterator[tuple[np.ndarray, _Clips]], batch_size: int) -> Iterator[StoredBatch]:
    """Cut the ordered rows of the windows into batches, which may cross windows."""
    pieces: list[_Clips] = []  # of the batch that is being filled
    filled = 0
    for order, held in windows:
        start = 0
        while start < len(order):
            # Every process counts the rows of all processes, so that all agree where a batch ends.
            stop = min(len(order), start + batch_size - filled)
            chosen = order[start:stop]
            pieces.append(held.take(chosen[chosen >= 0]))
            filled += stop - start
            start = stop
            if filled == batch_size:
                yield _batch(pieces)
                pieces, filled = [], 0
        # Otherwise this window would stay in memory while the next one is read.
        del held
    if pieces:
        yield _batch(pieces)


def _batch(pieces: list[_Clips]) -> StoredBatch:
    """Join the pieces of one batch; a single piece is not copied again."""
    clip_ids: list[str] = []
    for piece in pieces:
        clip_ids += piece.clip_ids
    inputs: dict[str, Tensor] = {}
    for name, column in pieces[0].columns.items():
        if len(pieces) > 1:
            column = np.concatenate([piece.columns[name] for piece in pieces])
        inputs[name] = torch.from_numpy(column)
    labels = inputs.pop("label")
    return StoredBatch(inputs, labels, clip_ids)
