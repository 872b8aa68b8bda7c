"""Text to int32 [words]: 0 is padding, 1 an unknown word, 2 and above the words of the vocabulary."""

import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from agm.config.schema import TextFeatures
from agm.media import Unusable
from agm.tensors import Feature

UNKNOWN = 1
FIRST_WORD = 2


def feature(settings: TextFeatures, vocabulary: list[str]) -> Feature:
    """What `load` returns."""
    return Feature("text", "int32", (settings.words,), vocabulary=FIRST_WORD + len(vocabulary))


def load(path: Path, stream: None, settings: TextFeatures, ids: Mapping[str, int]) -> np.ndarray:
    """The ids of the first words of a UTF-8 file.

    Raises:
        Unusable: when the file is not UTF-8 or holds no word.
    """
    words = read(path, settings)[: settings.words]
    if not words:
        raise Unusable("the text holds no word")
    found = np.zeros(settings.words, np.int32)
    found[: len(words)] = [ids.get(word, UNKNOWN) for word in words]
    return found


def read(path: Path, settings: TextFeatures) -> list[str]:
    """The words of a file in order.

    Raises:
        Unusable: when the file is not UTF-8.
    """
    try:
        content = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise Unusable(
            f"the text is not UTF-8: byte {error.object[error.start]:#04x} at position {error.start}"
        ) from None
    return words_of(content.lower() if settings.lowercase else content)


def words_of(content: str) -> list[str]:
    """Words of any script: runs of letters, marks, digits and inner apostrophes."""
    plain = unicodedata.normalize("NFC", content).replace("\N{RIGHT SINGLE QUOTATION MARK}", "'")
    spaced = "".join(each if _in_word(each) else " " for each in plain)
    return [word for each in spaced.split() if (word := each.strip("'"))]


def _in_word(character: str) -> bool:
    return character == "'" or unicodedata.category(character)[0] in "LMN"


def vocabulary(paths: Iterable[Path], settings: TextFeatures) -> list[str]:
    """The most frequent words of the given files, ties in alphabetical order; unreadable files count nothing."""
    counts: Counter[str] = Counter()
    for path in paths:
        try:
            counts.update(read(path, settings))
        except (Unusable, OSError):
            continue  # the clip is rejected where it is extracted
    frequent = sorted((-count, word) for word, count in counts.items() if count >= settings.min_count)
    return [word for _, word in frequent[: settings.vocabulary]]


def numbered(vocabulary: list[str]) -> dict[str, int]:
    """The id of every word."""
    return {word: number for number, word in enumerate(vocabulary, start=FIRST_WORD)}
