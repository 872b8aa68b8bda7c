"""Texts as a person reads them, and as the network gets them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from agm.pipeline.config import Params
from agm.pipeline.config.schema import TextFeatures
from agm.pipeline.dag.graph import Graph
from agm.pipeline.io import limits
from agm.pipeline.io.files import read_json
from agm.pipeline.io.limits import Unusable
from agm.pipeline.io.source import Source
from agm.pipeline.io.tensors import Feature
from agm.pipeline.steps.extract import text, tokens

PADDING = 0
UNKNOWN = "□"


@dataclass(frozen=True)
class Transcript:
    """One text of one clip.

    Attributes:
        person: the text as the annotations or its file have it; None where the file cannot be read any more.
        network: the words that the network gets, an unknown one as □, in brackets how many are cut off; None where
            these are all of the person's words, or where the network gets vectors.
    """

    person: str | None
    network: str | None


def transcripts(
    params: Params, clip: Mapping[str, Any], tensors: Mapping[str, np.ndarray], features: Mapping[str, Feature]
) -> dict[str, Transcript]:
    """The text modalities of a clip.

    Args:
        clip: of each modality where it lies.
    """
    names = [name for name, each in params.dataset.modalities.items() if each.kind == "text" and name in tensors]
    found = {}
    for name in names:
        person = _content(Source(**clip[name]).below(params.dataset.root), params)
        network = _network(params, name, tensors[name], person) if features[name].kind == "text" else None
        found[name] = Transcript(person, network)
    return found


def _content(source: Source, params: Params) -> str | None:
    try:
        with limits.under(params.dataset.limits):
            return text.content(source)
    except (Unusable, OSError):
        return None


def _network(params: Params, modality: str, ids: np.ndarray, person: str | None) -> str | None:
    """What the ids of words or tokens stand for; None where a person reads the same words."""
    settings: TextFeatures = params.features[modality]
    there = ids[ids != PADDING]
    if settings.tokenizer is not None:
        return " ".join(tokens.spelt(settings.tokenizer, there - 1))
    shown = _spelt(there, _vocabulary(params, modality))
    if person is None:
        return " ".join(shown)
    words = text.words(person, settings)
    if shown == words:
        return None
    cut = len(words) - len(shown)
    return " ".join([*shown, f"[{cut} more]"] if cut > 0 else shown)


def _vocabulary(params: Params, modality: str) -> list[str]:
    """The words of a modality in the order of their ids."""
    job = Graph(params).job("extract", modality, 0)
    return read_json(job.index, job.command)["feature"]["vocabulary"]


def _spelt(ids: np.ndarray, vocabulary: Sequence[str]) -> list[str]:
    """The words that `ids` stand for."""
    return [UNKNOWN if each == text.UNKNOWN else vocabulary[each - text.FIRST_WORD] for each in ids]
