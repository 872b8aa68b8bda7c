"""Texts as a person reads them."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from agm.config import Params
from agm.files import read_json
from agm.graph import Graph
from agm.tensors import Feature

# How `agm extract` numbers words: padding, a word that the vocabulary lacks, and then the vocabulary.
PADDING, UNKNOWN, FIRST_WORD = 0, 1, 2


def transcripts(
    params: Params, clip: Mapping[str, Any], tensors: Mapping[str, np.ndarray], features: Mapping[str, Feature]
) -> dict[str, str]:
    """The text modalities of a clip in words: as the annotations have them, or else from the ids of the words.

    A text that only its file holds, and of which a network sees vectors, has no transcript here.

    Args:
        clip: of each modality where it lies.
    """
    texts = [name for name, each in params.dataset.modalities.items() if each.kind == "text" and name in tensors]
    found = {}
    for name in texts:
        if (text := clip[name]["text"]) is not None:
            found[name] = text
        elif features[name].kind == "text":
            found[name] = _spelt(tensors[name], _vocabulary(params, name))
    return found


def _vocabulary(params: Params, modality: str) -> list[str] | None:
    """The words of a modality in the order of their ids; None where the ids are a tokenizer's."""
    job = Graph(params).job("extract", modality, params.parts[0])
    words = read_json(job.index, job.command)["feature"]["vocabulary"]
    return words if isinstance(words, list) else None


def _spelt(ids: np.ndarray, vocabulary: Sequence[str] | None) -> str:
    """The words that `ids` stand for, an unknown one as □; the numbers themselves without a vocabulary."""
    there = ids[ids != PADDING]
    if vocabulary is None:
        return " ".join(map(str, there))
    return " ".join("□" if each == UNKNOWN else vocabulary[each - FIRST_WORD] for each in there)
