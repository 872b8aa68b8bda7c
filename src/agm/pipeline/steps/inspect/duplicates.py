"""Clips of one split that another split has too: in every modality, which is a leak, or in a single one.

Every clip of the later split of a pair (train before val before test) is compared with every clip of the earlier one,
tile by tile: nothing is missed, and memory does not grow with the pairs. A clip is reported once per modality and
earlier split, with the clip most like it.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import polars as pl

from agm.pipeline.io.tables import SPLITS
from agm.pipeline.steps.inspect.signature import Signatures

ALIKE = 0.995
"""Least correlation of two signatures that count as the same clip. Of 1,000 handwritten digits and as many spoken ones,
none is so like one of 8,000 others; most of those that were saved anew as JPEG or MP3, brighter or less loud, are."""
NEARLY = 0.9999
"""Most that two tensors can be alike without being equal, which is 1."""
ROWS, COLUMNS = 1024, 8192
EVERY = "every"
"""In the place of a modality: all of them."""
SCHEMA = {
    "modality": pl.String,
    "clip_id": pl.String,
    "split": pl.String,
    "like": pl.String,
    "like_split": pl.String,
    "similarity": pl.Float64,
}
Hits = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Row, column and similarity of pairs that are alike."""
NONE: Hits = (np.empty(0, int), np.empty(0, int), np.empty(0))


def duplicates(clip_ids: Sequence[str], splits: Sequence[str], seen: Mapping[str, Signatures]) -> pl.DataFrame:
    """The clips that an earlier split has too, with the columns of `SCHEMA`.

    Args:
        clip_ids: N of them.
        splits: the split of each.
        seen: of each modality the signatures of the same clips.
    """
    names = np.array(clip_ids)
    shown = ~np.logical_and.reduce([each.blank for each in seen.values()])
    rows = []
    for earlier, later in combinations(SPLITS, 2):
        places = [np.flatnonzero((np.array(splits) == split) & shown) for split in (later, earlier)]
        for modality, (row, column, similarity) in _alike(seen, *places).items():
            found = zip(names[places[0][row]], names[places[1][column]], similarity, strict=True)
            rows += [(modality, name, later, like, earlier, value) for name, like, value in found]
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")


def summary(found: pl.DataFrame, modalities: Sequence[str]) -> list[dict[str, Any]]:
    """For each pair of splits and each modality, how many clips of the one the other has too."""
    return [
        {
            "split": later,
            "in": earlier,
            "clips": {
                modality: _counted(found.filter(split=later, like_split=earlier, modality=modality))
                for modality in (EVERY, *modalities)
            },
        }
        for earlier, later in combinations(SPLITS, 2)
    ]


def findings(found: pl.DataFrame) -> list[str]:
    """What leaks, in words: clips that are in two splits in every modality."""
    pairs = found.filter(modality=EVERY)
    return [
        f"{_clips(len(each))} of {later} {'looks' if len(each) == 1 else 'look'} the same as a clip of {earlier} in "
        f"every modality (the first: {each['clip_id'][0]} and {each['like'][0]})"
        for earlier, later in combinations(SPLITS, 2)
        if len(each := pairs.filter(split=later, like_split=earlier))
    ]


def _clips(number: int) -> str:
    return f"{number:,} clip{'' if number == 1 else 's'}"


def _counted(pairs: pl.DataFrame) -> dict[str, int]:
    return {"alike": len(pairs), "identical": int((pairs["similarity"] == 1).sum())}


def _alike(seen: Mapping[str, Signatures], later: np.ndarray, earlier: np.ndarray) -> dict[str, Hits]:
    """For each modality, and for all of them, the pairs that are alike: for each later clip the best."""
    found: dict[str, list[Hits]] = {name: [] for name in (EVERY, *seen)}
    for start, stop in _tiles(len(later), len(earlier)):
        rows, columns = (slice(first, first + size) for first, size in zip(start, (ROWS, COLUMNS), strict=True))
        tiles = {name: (each.take(later[rows]), each.take(earlier[columns])) for name, each in seen.items()}
        every = np.ones(stop, np.float32)
        for name, (one, other) in tiles.items():
            likeness = _likeness(one, other)
            found[name].append(_hits(likeness, start))
            # Nothing to see in one of them only says that they differ.
            likeness[np.ix_(one.blank, other.blank)] = _blank_alike(one, other)
            np.minimum(every, likeness, out=every)
        found[EVERY].append(_hits(every, start))
    return {name: _best(hits) for name, hits in found.items()}


def _tiles(rows: int, columns: int) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
    """Where each tile of a table begins, and its size."""
    for row in range(0, rows, ROWS):
        for column in range(0, columns, COLUMNS):
            yield (row, column), (min(ROWS, rows - row), min(COLUMNS, columns - column))


def _likeness(one: Signatures, other: Signatures) -> np.ndarray:
    """Similarity of each to each: 1 for equal tensors, at most `NEARLY` for others; 0 of what is blank, and where the
    contrast of one is more than twice that of the other."""
    likeness = one.values.astype(np.float32) @ other.values.astype(np.float32).T
    np.minimum(likeness, NEARLY, out=likeness)
    likeness[np.abs(one.contrast[:, None] - other.contrast) > 1] = 0
    for row in np.flatnonzero(np.isin(one.digests, other.digests)):
        likeness[row, other.digests == one.digests[row]] = 1
    likeness[one.blank] = 0
    return likeness


def _blank_alike(one: Signatures, other: Signatures) -> np.ndarray:
    """Which blank clips of `one` and of `other` are the same: 1 or 0, float32 [blank ones, blank others]."""
    one, other = one.take(one.blank), other.take(other.blank)
    same = one.digests[:, None] == other.digests
    if one.values.shape[1]:
        # Not of texts: these have no values, and are equal or differ.
        near = np.ones_like(same)
        for level, like in zip(one.levels.T, other.levels.T, strict=True):
            near &= np.abs(level[:, None] - like) <= 1
        same |= near
    return same.astype(np.float32)


def _hits(likeness: np.ndarray, start: tuple[int, int]) -> Hits:
    row, column = np.nonzero(likeness >= ALIKE)
    similarity = likeness[row, column].astype(np.float64).round(4)
    return _best([(row + start[0], column + start[1], similarity)])


def _best(hits: Sequence[Hits]) -> Hits:
    """Of every row the column that is most alike, the first of equals."""
    row, column, similarity = (np.concatenate(each) for each in zip(NONE, *hits, strict=True))
    order = np.lexsort((column, -similarity, row))
    _, first = np.unique(row[order], return_index=True)
    chosen = order[first]
    return row[chosen], column[chosen], similarity[chosen]
