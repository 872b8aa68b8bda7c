"""Turn text into the tokens of a Hugging Face tokenizer: int32 [words], its ids plus one, so that 0 is padding."""

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from agm.extras import MissingExtra, require
from agm.pipeline.config.schema import TextFeatures
from agm.pipeline.errors import AgmError
from agm.pipeline.io.media import Unusable
from agm.pipeline.io.source import Source
from agm.pipeline.io.tensors import Feature
from agm.pipeline.steps.extract.text import content

if TYPE_CHECKING:
    from tokenizers import Tokenizer


def feature(settings: TextFeatures, key: str) -> Feature:
    """The form of what `load` returns.

    Raises:
        AgmError: when the folder, which the parameter `key` names, holds no tokenizer.
    """
    check(settings.tokenizer, key)
    return Feature("text", "int32", (settings.max_tokens,), vocabulary=highest(settings.tokenizer) + 2)


def load(source: Source, settings: TextFeatures) -> np.ndarray:
    """The first tokens of a text, special ones included.

    Raises:
        Unusable: when the file is not UTF-8 or holds no token.
    """
    ids = numbers(source, settings.tokenizer, settings.max_tokens)
    tensor = np.zeros(settings.max_tokens, np.int32)
    tensor[: len(ids)] = ids + 1
    return tensor


def numbers(source: Source, folder: str, most: int) -> np.ndarray:
    """The tokenizer's own ids of the text's first tokens, int64 [n], n ≤ `most`.

    Raises:
        Unusable: when the file is not UTF-8 or holds no token.
    """
    encoded = _tokenizer(folder, most).encode(content(source))
    # Special tokens, such as the mark of the beginning, are there for an empty text too.
    if all(encoded.special_tokens_mask):
        raise Unusable("the text holds no token")
    return np.array(encoded.ids, np.int64)


def spelt(folder: str, ids: np.ndarray) -> list[str]:
    """The tokens of the tokenizer's own ids; the numbers themselves where the folder is missing."""
    spellings = [str(number) for number in ids]
    if path(folder).is_file():
        tokenizer = _tokenizer(folder, 1)
        for place, number in enumerate(ids):
            spellings[place] = tokenizer.id_to_token(int(number)) or spellings[place]
    return spellings


def highest(folder: str) -> int:
    """The highest of the tokenizer's own ids."""
    return max(_tokenizer(folder, 1).get_vocab().values())


def check(folder: str, key: str) -> None:
    """Refuse a folder without a tokenizer.

    Raises:
        AgmError: naming the parameter `key`.
        MissingExtra: when the library of tokenizers is not installed.
    """
    if not path(folder).is_file():
        raise AgmError(
            "There is no tokenizer",
            where=path(folder),
            fix=f"set {key} to a folder that `AutoTokenizer.from_pretrained(…).save_pretrained(folder)` wrote",
        )
    try:
        _tokenizer(folder, 1)
    except MissingExtra:
        raise
    except Exception as error:  # the library raises nothing more particular
        raise AgmError(f"The tokenizer cannot be read: {error}", where=path(folder)) from None


def path(folder: str) -> Path:
    """The file that holds the whole tokenizer."""
    return Path(folder, "tokenizer.json")


@cache
def _tokenizer(folder: str, most: int) -> "Tokenizer":
    """The tokenizer, loaded once in each process."""
    require("tokenizers", "text")
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(path(folder)))
    tokenizer.no_padding()
    tokenizer.enable_truncation(most)
    return tokenizer
