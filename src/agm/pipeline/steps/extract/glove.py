"""Turn text into the vectors of its words, from a local file in GloVe's text format: float32 [words, size].

Words that the file lacks are left out: a step of zeros would be padding, and any other vector would stand for a word
that is not in the text. The file has the tokens of the Penn Treebank. So a contraction that it lacks (don't) is looked
up as the two tokens of the Treebank (do, n't).
"""

import re
from collections.abc import Iterable, Mapping
from itertools import chain
from pathlib import Path

import numpy as np

from agm.pipeline.config.schema import TextFeatures
from agm.pipeline.errors import AgmError
from agm.pipeline.io.media import Unusable
from agm.pipeline.io.source import Source
from agm.pipeline.io.tensors import Feature
from agm.pipeline.runtime.progress import say
from agm.pipeline.steps.extract.sequence import filled
from agm.pipeline.steps.extract.text import read, texts

CONTRACTION = re.compile(r"(.+)(n't|'(?:s|m|d|re|ve|ll))", re.IGNORECASE)


def feature(settings: TextFeatures, vectors: np.ndarray) -> Feature:
    """The form of what `looked_up` makes of the rows that `load` returns; `vectors` is [rows, size]."""
    return Feature("sequence", "float32", (settings.max_tokens, vectors.shape[1]))


def load(source: Source, settings: TextFeatures, rows: Mapping[str, int]) -> np.ndarray:
    """The rows of the vectors of the text's first words, int64 [n].

    Raises:
        Unusable: when the file is not UTF-8 or none of its words has a vector.
    """
    numbers: list[int] = []
    for word in read(source, settings):
        tokens = (word,) if word in rows else _parts(word)
        numbers += [rows[token] for token in tokens if token in rows]
    if not numbers:
        raise Unusable("none of the text's words has a vector")
    return np.array(numbers[: settings.max_tokens], np.int64)


def vectors(sources: Iterable[Source], settings: TextFeatures, key: str) -> tuple[dict[str, int], np.ndarray]:
    """The file's vectors of all words of the given texts: word → row, and float32 [rows, size].

    Raises:
        AgmError: when the file, which the parameter `key` names, is missing or has another format.
    """
    path = Path(settings.glove)
    if not path.is_file():
        raise AgmError("There are no word vectors", where=path, fix=f"set {key} to a local file")
    words = set(chain.from_iterable(texts(sources, settings)))
    parts_of = {word: _parts(word) for word in words}
    size = _size(path)
    vector_of = _read(path, size, words.union(*parts_of.values()))
    known = 0
    for word, parts in parts_of.items():
        if not vector_of.keys().isdisjoint((word, *parts)):
            known += 1
    say(f"glove: {known} of {len(words)} different words have a vector")
    rows = {word: row for row, word in enumerate(vector_of)}
    return rows, np.array([*vector_of.values()], np.float32).reshape(-1, size)


def looked_up(clips: list[np.ndarray], vectors: np.ndarray, steps: int) -> list[np.ndarray]:
    """The vectors [steps, size] of each clip, from the rows that `load` returned for it."""
    return [filled(vectors[rows], steps) for rows in clips]


def _parts(word: str) -> tuple[str, ...]:
    """The two tokens of a contraction; none for other words."""
    match = CONTRACTION.fullmatch(word)
    return match.groups() if match else ()


def _size(path: Path) -> int:
    """The size of the file's vectors, by its first line."""
    with open(path, "rb") as file:
        numbers = file.readline().split()[1:]
    # Vectors of one number are refused: the first line of word2vec's format has such a form.
    return len(_vector(numbers, max(2, len(numbers)), path, 1))


def _read(path: Path, size: int, words: set[str]) -> dict[str, np.ndarray]:
    """The vectors of `words`; the first one where the file has several of a word."""
    wanted = {word.encode(): word for word in words}
    vector_of: dict[str, np.ndarray] = {}
    with open(path, "rb") as file:
        for number, line in enumerate(file, start=1):
            # Most lines are not wanted, and are not split further.
            if line.partition(b" ")[0] not in wanted:
                continue
            # From the right: a token may hold spaces, and then is no word.
            token, *numbers = line.rstrip().rsplit(b" ", size)
            if token in wanted:
                vector_of.setdefault(wanted[token], _vector(numbers, size, path, number))
    return vector_of


def _vector(numbers: list[bytes], size: int, path: Path, line: int) -> np.ndarray:
    """The vector of one line, which must be of `size` finite numbers."""
    try:
        vector = np.array(numbers, np.float32)
    except ValueError:
        vector = np.empty(0, np.float32)
    if len(vector) != size or not np.isfinite(vector).all():
        what = f"The word vectors are not in GloVe's text format: line {line} is no word and {size} numbers"
        raise AgmError(what, where=path, fix="a word, then its numbers, with a space between each, in every line")
    return vector
