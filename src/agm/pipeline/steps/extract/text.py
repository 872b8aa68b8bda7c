"""Turn text into int32 [words]: 0 is padding, 1 an unknown word, 2 and above the words of the vocabulary.

A text is normalised (`normalised`) and divided into words by the rules of Unicode (UAX #29), which the library `regex`
implements. The rules use no dictionary. So in scripts without spaces between words every Chinese character, every
hiragana and every cluster of Thai, Lao, Khmer and Burmese is a word; katakana stay together. An emoji is one word with
everything that belongs to it: its skin tone, the members of a family, the two letters of a flag.
"""

import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from itertools import chain
from pathlib import Path

import numpy as np
import regex

from agm.pipeline.config.schema import TextFeatures
from agm.pipeline.io import limits
from agm.pipeline.io.encoding import as_text
from agm.pipeline.io.media import Unusable
from agm.pipeline.io.source import Source
from agm.pipeline.io.tensors import Feature

UNKNOWN = 1
FIRST_WORD = 2

# Invisible characters: soft hyphens, zero-width spaces, variation selectors; but not the tags that distinguish the flag
# of England from that of Wales. A zero-width joiner is part of an emoji, and elsewhere a hint for drawing letters.
INVISIBLE = regex.compile(
    r"[\p{Default_Ignorable_Code_Point}--[\u200d\U000e0020-\U000e007f]]|\u200d(?!\p{Extended_Pictographic})", regex.V1
)
# Unicode keeps `end.Start`, `note:this` and `tap_dancing` together; people mean two words by each.
JOINED = regex.compile(r"_|(?<=\p{L}\p{M}*)[.:](?=\p{L})")
BOUNDARY = regex.compile(r"\b", regex.WORD | regex.V1)
SAYS = regex.compile(r"[\p{L}\p{N}\p{Extended_Pictographic}\p{Emoji_Modifier}\p{Regional_Indicator}]")


def feature(settings: TextFeatures, vocabulary: list[str]) -> Feature:
    """The form of what `load` returns."""
    return Feature("text", "int32", (settings.max_tokens,), vocabulary=FIRST_WORD + len(vocabulary))


def load(source: Source, settings: TextFeatures, ids: Mapping[str, int]) -> np.ndarray:
    """The ids of the first words of a text.

    Raises:
        Unusable: when the file is not UTF-8 or holds no word.
    """
    first = read(source, settings)[: settings.max_tokens]
    if not first:
        raise Unusable("the text holds no word")
    tensor = np.zeros(settings.max_tokens, np.int32)
    tensor[: len(first)] = [ids.get(word, UNKNOWN) for word in first]
    return tensor


def read(source: Source, settings: TextFeatures) -> list[str]:
    """The words of a text in order.

    Raises:
        Unusable: when its file is not UTF-8.
    """
    return words(content(source), settings)


def words(text: str, settings: TextFeatures) -> list[str]:
    """The words of a text in order, in lower case where the settings ask for that."""
    in_order = words_of(text)
    # Lower case after the division into words: it can change what belongs together.
    return [word.lower() for word in in_order] if settings.lowercase else in_order


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
        return as_text(Path(source.path).read_bytes())
    except UnicodeDecodeError as error:
        raise Unusable(
            f"the text is not UTF-8: byte {error.object[error.start]:#04x} at position {error.start}"
        ) from None


def normalised(text: str) -> str:
    """The text without invisible characters, in compatibility form (NFKC), with one kind of apostrophe."""
    plain = unicodedata.normalize("NFKC", INVISIBLE.sub("", text))
    return plain.replace("\N{RIGHT SINGLE QUOTATION MARK}", "'")


def words_of(text: str) -> list[str]:
    """The words of a text in order, emoji included; punctuation, spaces and other signs are left out."""
    parts = BOUNDARY.split(JOINED.sub(" ", normalised(text)))
    return [part for part in parts if SAYS.search(part)]


def vocabulary(sources: Iterable[Source], settings: TextFeatures) -> list[str]:
    """The most frequent words of the given texts, ties in alphabetical order; unreadable texts do not count."""
    counts = Counter(chain.from_iterable(texts(sources, settings)))
    frequent = sorted((-count, word) for word, count in counts.items() if count >= settings.min_count)
    return [word for _, word in frequent[: settings.max_vocabulary]]


def texts(sources: Iterable[Source], settings: TextFeatures) -> Iterator[list[str]]:
    """Yield the words of every text that can be read; extraction rejects the other clips."""
    for source in sources:
        with suppress(Unusable, OSError):
            yield read(source, settings)


def numbered(vocabulary: list[str]) -> dict[str, int]:
    """The id of every word."""
    return {word: number for number, word in enumerate(vocabulary, start=FIRST_WORD)}
