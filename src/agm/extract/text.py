"""Text to int32 [words]: 0 is padding, 1 an unknown word, 2 and above the words of the vocabulary."""

import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from itertools import chain
from pathlib import Path

import numpy as np

from agm import limits
from agm.config.schema import TextFeatures
from agm.media import Unusable
from agm.source import Source
from agm.tensors import Feature

UNKNOWN = 1
FIRST_WORD = 2


def feature(settings: TextFeatures, vocabulary: list[str]) -> Feature:
    """What `load` returns."""
    return Feature("text", "int32", (settings.words,), vocabulary=FIRST_WORD + len(vocabulary))


def load(source: Source, settings: TextFeatures, ids: Mapping[str, int]) -> np.ndarray:
    """The ids of the first words of a text.

    Raises:
        Unusable: when the file is not UTF-8 or holds no word.
    """
    words = read(source, settings)[: settings.words]
    if not words:
        raise Unusable("the text holds no word")
    found = np.zeros(settings.words, np.int32)
    found[: len(words)] = [ids.get(word, UNKNOWN) for word in words]
    return found


def read(source: Source, settings: TextFeatures) -> list[str]:
    """The words of a text in order.

    Raises:
        Unusable: when its file is not UTF-8.
    """
    text = content(source)
    return words_of(text.lower() if settings.lowercase else text)


def content(source: Source) -> str:
    """The text itself.

    Raises:
        Unusable: when its file is not UTF-8, or the text is too long.
    """
    if source.text is not None:
        limits.check("text_bytes", len(source.text.encode()), "the text has {} bytes")
        return source.text
    limits.check("text_bytes", Path(source.path).stat().st_size, "the text has {} bytes")
    try:
        return Path(source.path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise Unusable(
            f"the text is not UTF-8: byte {error.object[error.start]:#04x} at position {error.start}"
        ) from None


def words_of(text: str) -> list[str]:
    """Words of any script: runs of letters, marks, digits and inner apostrophes."""
    plain = unicodedata.normalize("NFC", text).replace("\N{RIGHT SINGLE QUOTATION MARK}", "'")
    spaced = "".join(each if _in_word(each) else " " for each in plain)
    return [word for each in spaced.split() if (word := each.strip("'"))]


def _in_word(character: str) -> bool:
    return character == "'" or unicodedata.category(character)[0] in "LMN"


def vocabulary(sources: Iterable[Source], settings: TextFeatures) -> list[str]:
    """The most frequent words of the given texts, ties in alphabetical order; unreadable ones count nothing."""
    counts = Counter(chain.from_iterable(texts(sources, settings)))
    frequent = sorted((-count, word) for word, count in counts.items() if count >= settings.min_count)
    return [word for _, word in frequent[: settings.vocabulary]]


def texts(sources: Iterable[Source], settings: TextFeatures) -> Iterator[list[str]]:
    """The words of every text that can be read; the other clips are rejected where they are extracted."""
    for source in sources:
        with suppress(Unusable, OSError):
            yield read(source, settings)


def numbered(vocabulary: list[str]) -> dict[str, int]:
    """The id of every word."""
    return {word: number for number, word in enumerate(vocabulary, start=FIRST_WORD)}
