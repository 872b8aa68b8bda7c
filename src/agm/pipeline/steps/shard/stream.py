"""Stream batches from the shards, holding no more than a window of clips in memory.

The order of an epoch depends only on (seed, epoch, window): the row groups ("blocks") of all files of the split are
permuted, consecutive ones are put together into windows of at most `window` rows, and the rows of each window are
permuted. A split that fits into one window is thus permuted fully; the shards themselves lie in a seeded random
order, so that neighbours are unrelated anyway. Batches are consecutive slices of that order and may cross windows,
which is why any batch can be jumped to without reading what lies before it.

Several processes share the blocks of every window out among them: each reads its own, and yields of every batch the
rows that lie in them.
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
    _verified: set[str] = field(default_factory=set)

    @classmethod
    def open(cls, data_folder: Path) -> "Shards":
        """Open the shards that `agm shard` wrote below `data_folder`.

        The bulk is not read: each file is compared with its checksum before its first rows are used.

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
                path = folder / "shards" / file["name"]
                sums[file["name"]] = file["sha256"]
                try:
                    blocks[split] += _blocks(path, file["rows"], features)
                except AgmError:
                    # The reason behind others: a damaged file may say anything of itself.
                    files.verify(path.parent, {path.name: file["sha256"]}, REBUILD)
                    raise
        return cls(folder, features, index["classes"], blocks, sums)

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
        part: tuple[int, int] = (0, 1),
    ) -> Iterator[Batch]:
        """Yield the clips of `split`, `batch_size` at a time; the last batch may be smaller.

        Of several processes each yields its part. Shuffled, that is its rows, maybe none, of every batch that one
        process would yield: those of the blocks at places rank, rank + ranks, … of each window. In stored order it is
        whole batches of its own, of the split's blocks rank, rank + ranks, …

        Args:
            shuffle: (seed, epoch) of the order; None keeps the stored order.
            window: most clips held in memory to shuffle from (one row group at least, and one batch beside it), by
                all processes together.
            skip: batches left out at the beginning, without reading their windows.
            modalities: those to read; None reads all.
            part: (rank, ranks): which of how many processes this is.

        Raises:
            AgmError: when a file is damaged, before any of its clips is used.
        """
        rank, ranks = part
        names = list(self.features if modalities is None else modalities)
        blocks = self._blocks[split]
        if shuffle is None:
            blocks, rank, ranks = blocks[rank::ranks], 0, 1
        left_out = skip * batch_size
        carried: list[_Clips] = []
        carries = 0
        for number, window_blocks in enumerate(_windows(blocks, shuffle, window)):
            rows = sum(block.rows for block in window_blocks)
            start, left_out = min(left_out, rows), max(0, left_out - rows)
            if start == rows:
                continue
            order = _own_rows(window_blocks, rank, ranks)[_order(rows, shuffle, number)]
            held = self._read(window_blocks[rank::ranks], names)
            while start < rows:
                stop = min(rows, start + batch_size - carries)
                chosen = order[start:stop]
                carried.append(held.take(chosen[chosen >= 0]))
                carries += stop - start
                start = stop
                if carries == batch_size:
                    yield _batch(carried)
                    carried, carries = [], 0
            # Without this the window would be held while the next one is read.
            del held
        if carried:
            yield _batch(carried)

    def _verify_once(self, path: Path) -> None:
        """Compare a file with its checksum before its first rows are used."""
        if path.name not in self._verified:
            files.verify(path.parent, {path.name: self._sums[path.name]}, REBUILD)
            self._verified.add(path.name)

    def _read(self, blocks: list[_Block], names: list[str]) -> _Clips:
        """Read the rows of `blocks` one after another."""
        rows = sum(block.rows for block in blocks)
        clip_ids: list[str] = []
        columns = {
            name: np.empty((rows, *each.shape), each.dtype) for name, each in self.features.items() if name in names
        }
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


def _own_rows(blocks: list[_Block], rank: int, ranks: int) -> np.ndarray:
    """For each row of a window its place among the rows that `rank` reads, or -1 where another process reads it."""
    own = np.repeat(np.arange(len(blocks)) % ranks == rank, [block.rows for block in blocks])
    return np.where(own, np.cumsum(own) - 1, -1)


def _batch(pieces: list[_Clips]) -> Batch:
    """Put the pieces of one batch together; a single one is not copied again."""
    columns = pieces[0].columns
    if len(pieces) > 1:
        columns = {name: np.concatenate([each.columns[name] for each in pieces]) for name in columns}
    inputs = {name: torch.from_numpy(each) for name, each in columns.items()}
    labels = inputs.pop("label")
    return Batch([name for each in pieces for name in each.clip_ids], labels, inputs)
