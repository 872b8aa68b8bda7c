"""Clips of one split that another split has too: in every modality, which is a leak, or in a single one.

Every clip of the later split of a pair (train before val before test) is compared with every clip of the earlier one.
This goes tile by tile, so that memory does not grow with the number of pairs. A clip is reported once per modality and
earlier split, with the clip that is most similar to it.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import polars as pl

from agm.pipeline.io.tables import SPLITS
from agm.pipeline.steps.inspect.signature import Signatures

ALIKE = 0.995
"""Least correlation of two signatures that count as the same clip. Of 1,000 handwritten and 1,000 spoken digits, none
is so similar to one of 8,000 others; most copies of them, saved as JPEG or MP3, brighter or less loud, are."""
NEARLY = 0.9999
"""Greatest similarity of two tensors that are not equal; that of equal ones is 1."""
ROWS, COLUMNS = 1024, 8192
"""Size of a tile: clips of the later split, and of the earlier one."""
EVERY = "every"
"""Stands in the place of a modality for all of them."""
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


def duplicates(clip_ids: Sequence[str], splits: Sequence[str], signatures: Mapping[str, Signatures]) -> pl.DataFrame:
    """The clips that an earlier split has too, with the columns of `SCHEMA`.

    Args:
        clip_ids: the N clips.
        splits: the split of each.
        signatures: for each modality the signatures of the same clips.
    """
    names, split_of = np.array(clip_ids), np.array(splits)
    # A clip that is blank in every modality is like any other such clip.
    blank = np.logical_and.reduce([modality.blank for modality in signatures.values()])
    rows = []
    for earlier, later in combinations(SPLITS, 2):
        of_later = np.flatnonzero((split_of == later) & ~blank)
        of_earlier = np.flatnonzero((split_of == earlier) & ~blank)
        for modality, (row, column, similarity) in _alike(signatures, of_later, of_earlier).items():
            pairs = zip(names[of_later[row]], names[of_earlier[column]], similarity, strict=True)
            for name, like, value in pairs:
                rows.append((modality, name, later, like, earlier, value))
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")


def summary(pairs: pl.DataFrame, modalities: Sequence[str]) -> list[dict[str, Any]]:
    """For each two splits and each modality, how many clips of the later split the earlier one has too."""
    entries = []
    for earlier, later in combinations(SPLITS, 2):
        clips = {}
        for modality in (EVERY, *modalities):
            alike = pairs.filter(split=later, like_split=earlier, modality=modality)
            clips[modality] = {"alike": len(alike), "identical": int((alike["similarity"] == 1).sum())}
        entries.append({"split": later, "in": earlier, "clips": clips})
    return entries


def findings(pairs: pl.DataFrame) -> list[str]:
    """The leaks in words: clips that are in two splits in every modality."""
    lines = []
    for earlier, later in combinations(SPLITS, 2):
        alike = pairs.filter(modality=EVERY, split=later, like_split=earlier)
        if not len(alike):
            continue
        clips = "1 clip" if len(alike) == 1 else f"{len(alike):,} clips"
        looks = "looks" if len(alike) == 1 else "look"
        lines.append(
            f"{clips} of {later} {looks} the same as a clip of {earlier} in every modality "
            f"(the first: {alike['clip_id'][0]} and {alike['like'][0]})"
        )
    return lines


def _alike(signatures: Mapping[str, Signatures], later: np.ndarray, earlier: np.ndarray) -> dict[str, Hits]:
    """For each modality, and for all of them together, the pairs that are alike: for each later clip the best."""
    hits: dict[str, list[Hits]] = {name: [] for name in (EVERY, *signatures)}
    for (row, column), size in _tiles(len(later), len(earlier)):
        # The clips are alike in every modality as much as in the one in which they are least alike.
        every = np.ones(size, np.float32)
        for name, of_modality in signatures.items():
            one = of_modality.take(later[row : row + ROWS])
            other = of_modality.take(earlier[column : column + COLUMNS])
            likeness = _likeness(one, other)
            hits[name].append(_hits(likeness, (row, column)))
            # A pair with one blank clip differs. Two blank clips do not say that the pair does.
            likeness[np.ix_(one.blank, other.blank)] = _blank_alike(one, other)
            np.minimum(every, likeness, out=every)
        hits[EVERY].append(_hits(every, (row, column)))
    return {name: _best(tiles) for name, tiles in hits.items()}


def _tiles(rows: int, columns: int) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
    """The first row and column of each tile of a table, and its size."""
    for row in range(0, rows, ROWS):
        for column in range(0, columns, COLUMNS):
            yield (row, column), (min(ROWS, rows - row), min(COLUMNS, columns - column))


def _likeness(one: Signatures, other: Signatures) -> np.ndarray:
    """Similarity of all pairs: 1 for equal tensors, at most `NEARLY` for others.

    It is 0 for blank clips, and where the contrast of one clip is more than twice that of the other.
    """
    # Signatures have length one, so their product is their correlation.
    likeness = one.values.astype(np.float32) @ other.values.astype(np.float32).T
    np.minimum(likeness, NEARLY, out=likeness)
    # Contrasts are logarithms to base 2: a difference of 1 is a factor of 2.
    likeness[np.abs(one.contrast[:, None] - other.contrast) > 1] = 0
    for row in np.flatnonzero(np.isin(one.digests, other.digests)):
        likeness[row, other.digests == one.digests[row]] = 1
    likeness[one.blank] = 0
    return likeness


def _blank_alike(one: Signatures, other: Signatures) -> np.ndarray:
    """Which blank clips of `one` and of `other` are the same: 1 or 0, float32 [blank of one, blank of other]."""
    one, other = one.take(one.blank), other.take(other.blank)
    same = one.digests[:, None] == other.digests
    if one.values.shape[1]:
        # Texts have no values: they are equal or differ.
        near = np.ones_like(same)
        for level, like in zip(one.levels.T, other.levels.T, strict=True):
            near &= np.abs(level[:, None] - like) <= 1
        same |= near
    return same.astype(np.float32)


def _hits(likeness: np.ndarray, start: tuple[int, int]) -> Hits:
    """The best pair of each row of a tile that begins at `start`."""
    row, column = np.nonzero(likeness >= ALIKE)
    similarity = likeness[row, column].astype(np.float64).round(4)
    return _best([(row + start[0], column + start[1], similarity)])


def _best(hits: Sequence[Hits]) -> Hits:
    """For each row the column that is most similar, the first one of equals."""
    row, column, similarity = (np.concatenate(arrays) for arrays in zip(NONE, *hits, strict=True))
    # By row, then the most similar first, then by column.
    order = np.lexsort((column, -similarity, row))
    _, first = np.unique(row[order], return_index=True)
    chosen = order[first]
    return row[chosen], column[chosen], similarity[chosen]
