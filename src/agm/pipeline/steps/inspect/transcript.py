"""The texts of a clip: for a person, and as the network gets them."""

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
        person: the text of the annotations or of its file; None where the file cannot be read any more.
        network: the words that the network gets: □ for an unknown word, and in brackets the number of words that are
            cut off. None where these are all words of the text, or where the network gets vectors.
    """

    person: str | None
    network: str | None


def transcripts(
    params: Params, clip: Mapping[str, Any], tensors: Mapping[str, np.ndarray], features: Mapping[str, Feature]
) -> dict[str, Transcript]:
    """The text modalities of a clip.

    Args:
        params: the parameters of the study.
        clip: the source of each modality.
        tensors: the tensors that were extracted from the clip.
        features: how each modality was extracted.
    """
    by_modality = {}
    for name, modality in params.dataset.modalities.items():
        if modality.kind != "text" or name not in tensors:
            continue
        person = _content(Source(**clip[name]).below(params.dataset.root), params)
        network = None
        # Vectors of words have no words to show.
        if features[name].kind == "text":
            network = _network(params, name, tensors[name], person)
        by_modality[name] = Transcript(person, network)
    return by_modality


def _content(source: Source, params: Params) -> str | None:
    """The text of a source; None where it cannot be read."""
    try:
        with limits.under(params.dataset.limits):
            return text.content(source)
    except (Unusable, OSError):
        return None


def _network(params: Params, modality: str, ids: np.ndarray, person: str | None) -> str | None:
    """The words or tokens that the ids stand for; None where they are the words of the text `person`."""
    settings: TextFeatures = params.features[modality]
    ids = ids[ids != PADDING]
    if settings.tokenizer is not None:
        # Stored ids are one above those of the tokenizer, because 0 is padding.
        return " ".join(tokens.spelt(settings.tokenizer, ids - 1))
    network = _spelt(ids, _vocabulary(params, modality))
    if person is None:
        return " ".join(network)
    words = text.words(person, settings)
    if network == words:
        return None
    cut_off = len(words) - len(network)
    if cut_off > 0:
        network.append(f"[{cut_off} more]")
    return " ".join(network)


def _vocabulary(params: Params, modality: str) -> list[str]:
    """The words of a modality in the order of their ids."""
    job = Graph(params).job("extract", modality, 0)
    return read_json(job.index, job.command)["feature"]["vocabulary"]


def _spelt(ids: np.ndarray, vocabulary: Sequence[str]) -> list[str]:
    """The words that `ids` stand for."""
    return [UNKNOWN if number == text.UNKNOWN else vocabulary[number - text.FIRST_WORD] for number in ids]
