"""Text to the vectors of its words in a local file in GloVe's text format: float32 [words, size].

Words that the file does not have are left out: a step of zeros would be padding, and any other vector a word that was
not said. The file's tokens are those of the Penn Treebank, so a contraction that it does not have (don't) is tried as
the two tokens that it is there (do, n't).
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
    """What becomes of `load`'s rows of `vectors` [rows, size]."""
    return Feature("sequence", "float32", (settings.max_tokens, vectors.shape[1]))


def load(source: Source, settings: TextFeatures, rows: Mapping[str, int]) -> np.ndarray:
    """The rows of the vectors of the text's first words, int64 [n].

    Raises:
        Unusable: when the file is not UTF-8 or none of its words has a vector.
    """
    words = (part for word in read(source, settings) for part in ([word] if word in rows else _parts(word)))
    found = [rows[word] for word in words if word in rows][: settings.max_tokens]
    if not found:
        raise Unusable("none of the text's words has a vector")
    return np.array(found, np.int64)


def vectors(sources: Iterable[Source], settings: TextFeatures, key: str) -> tuple[dict[str, int], np.ndarray]:
    """The file's vectors of all words of the given texts: word → row, and float32 [rows, size].

    Raises:
        AgmError: when the file, which the parameter `key` names, is missing or no such file.
    """
    path = Path(settings.glove)
    if not path.is_file():
        raise AgmError("There are no word vectors", where=path, fix=f"set {key} to a local file")
    words = set(chain.from_iterable(texts(sources, settings)))
    size = _size(path)
    found = _found(path, size, words | {part for word in words for part in _parts(word)})
    known = sum(word in found or any(part in found for part in _parts(word)) for word in words)
    say(f"glove: {known} of {len(words)} different words have a vector")
    return {word: row for row, word in enumerate(found)}, np.array([*found.values()], np.float32).reshape(-1, size)


def looked_up(clips: list[np.ndarray], vectors: np.ndarray, steps: int) -> list[np.ndarray]:
    """What `load` returned of some clips, to their vectors, each [steps, size]."""
    return [filled(vectors[rows], steps) for rows in clips]


def _parts(word: str) -> tuple[str, ...]:
    """The two tokens of a contraction; none of other words."""
    found = CONTRACTION.fullmatch(word)
    return found.groups() if found else ()


def _size(path: Path) -> int:
    """The size of the file's vectors, by its first line."""
    with open(path, "rb") as file:
        numbers = file.readline().split()[1:]
    return len(_vector(numbers, max(2, len(numbers)), path, 1))


def _found(path: Path, size: int, words: set[str]) -> dict[str, np.ndarray]:
    """The vectors of `words`, the first where one is there twice."""
    wanted = {word.encode(): word for word in words}
    found: dict[str, np.ndarray] = {}
    with open(path, "rb") as file:
        for number, line in enumerate(file, start=1):
            # A token may hold spaces; words do not. Most lines are not wanted, and are not split further.
            if line.partition(b" ")[0] in wanted:
                token, *numbers = line.rstrip().rsplit(b" ", size)
                if token in wanted:
                    found.setdefault(wanted[token], _vector(numbers, size, path, number))
    return found


def _vector(numbers: list[bytes], size: int, path: Path, line: int) -> np.ndarray:
    try:
        vector = np.array(numbers, np.float32)
    except ValueError:
        vector = np.empty(0, np.float32)
    if len(vector) != size or not np.isfinite(vector).all():
        what = f"The word vectors are not in GloVe's text format: line {line} is no word and {size} numbers"
        raise AgmError(what, where=path, fix="a word, then its numbers, with a space between each, in every line")
    return vector
