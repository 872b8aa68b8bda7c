"""Text to the tokens of a Hugging Face tokenizer: int32 [words], its ids plus one, so that 0 is padding."""

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
    """What `load` returns.

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
    tokens = numbers(source, settings.tokenizer, settings.max_tokens)
    found = np.zeros(settings.max_tokens, np.int32)
    found[: len(tokens)] = tokens + 1
    return found


def numbers(source: Source, folder: str, most: int) -> np.ndarray:
    """The tokenizer's own ids of the text's first tokens, int64 [n], n ≤ `most`.

    Raises:
        Unusable: when the file is not UTF-8 or holds no token.
    """
    found = _tokenizer(folder, most).encode(content(source))
    if all(found.special_tokens_mask):
        raise Unusable("the text holds no token")
    return np.array(found.ids, np.int64)


def spelt(folder: str, ids: np.ndarray) -> list[str]:
    """The tokens that the tokenizer's own ids stand for; the numbers themselves where the folder is not there."""
    if not path(folder).is_file():
        return [str(each) for each in ids]
    return [_tokenizer(folder, 1).id_to_token(int(each)) or str(each) for each in ids]


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
    """The file that is the whole tokenizer."""
    return Path(folder, "tokenizer.json")


@cache
def _tokenizer(folder: str, most: int) -> "Tokenizer":
    """The tokenizer, once in each process."""
    require("tokenizers", "text")
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(path(folder)))
    tokenizer.no_padding()
    tokenizer.enable_truncation(most)
    return tokenizer
