"""Choose how the clips of one modality become tensors, as `features.<modality>` states."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType

import numpy as np

from agm.pipeline.config import schema
from agm.pipeline.io.source import Source
from agm.pipeline.io.tensors import Feature
from agm.pipeline.steps.extract import array, image, sequence, text, video
from agm.pipeline.steps.extract.pretrained import Finish

# Modules that take seconds to import (torch, OpenCV), or that few features need, are imported where they are used.

Load = Callable[[Source], np.ndarray]


@dataclass(frozen=True)
class Recipe:
    """How the clips of one modality become tensors.

    Attributes:
        feature: the form of the tensors.
        load: returns one clip's tensor, or the input of `finish`; it runs in other processes.
        finish: makes the tensors of a batch of clips from what `load` returned of each, in this process (a network);
            None where `load` returns the tensors.
        vocabulary: the words of texts, in the order of their ids; None for other kinds, and where a tokenizer has them.
        pretrained: the file or folder on which the tensors depend, besides the clips and the parameters.
    """

    feature: Feature
    load: Load
    finish: Finish | None = None
    vocabulary: list[str] | None = None
    pretrained: Path | None = None


def recipe(settings: schema.Features, key: str, training: Iterable[Source], chosen: Iterable[Source]) -> Recipe:
    """The recipe that `settings` describe.

    Args:
        key: the name of the settings in the parameters, for errors.
        training: the clips of the training split, of which vocabularies are made.
        chosen: the clips to extract.

    Raises:
        AgmError: when pretrained weights, a tokenizer or word vectors are missing.
    """
    match settings:
        case schema.VideoFeatures(frozen=schema.FrozenVision()) | schema.ImageFeatures(frozen=schema.FrozenVision()):
            return _frozen_vision(settings, f"{key}.frozen")
        case schema.AudioFeatures(frozen=schema.FrozenSound()):
            return _frozen_sound(settings, f"{key}.frozen")
        case schema.TextFeatures(frozen=schema.FrozenText()):
            return _frozen_text(settings, f"{key}.frozen")
        case schema.TextFeatures(tokenizer=str()):
            return _tokens(settings, f"{key}.tokenizer")
        case schema.TextFeatures(glove=str()):
            return _glove(settings, f"{key}.glove", chosen)
        case schema.TextFeatures():
            words = text.vocabulary(training, settings)
            load = partial(text.load, settings=settings, ids=text.numbered(words))
            return Recipe(text.feature(settings, words), load, vocabulary=words)
        case schema.FlowFeatures():
            return _flow(settings, f"{key}.weights")
    module = _module(settings.kind)
    return Recipe(module.feature(settings), partial(module.load, settings=settings))


def _module(kind: str) -> ModuleType:
    """The module of a kind whose `feature` and `load` need only the settings."""
    if kind == "audio":
        from agm.pipeline.steps.extract import audio

        return audio
    return {"video": video, "image": image, "array": array, "sequence": sequence}[kind]


def _frozen_vision(settings: schema.VideoFeatures | schema.ImageFeatures, key: str) -> Recipe:
    from agm.pipeline.steps.extract.pretrained import frozen, vision

    network = vision.network(settings.frozen, key, settings.kind)
    feature, finish = frozen.sequences(network, vision.longest(settings), key)
    load = partial(vision.load_video if settings.kind == "video" else vision.load_image, settings=settings)
    return Recipe(feature, load, finish, pretrained=Path(settings.frozen.weights))


def _frozen_sound(settings: schema.AudioFeatures, key: str) -> Recipe:
    from agm.pipeline.steps.extract.pretrained import frozen, speech

    network = speech.network(settings.frozen, key)
    feature, finish = frozen.sequences(network, speech.longest(settings), key)
    return Recipe(feature, partial(speech.load, settings=settings), finish, pretrained=Path(settings.frozen.weights))


def _frozen_text(settings: schema.TextFeatures, key: str) -> Recipe:
    from agm.pipeline.steps.extract.pretrained import frozen, language

    network = language.network(settings.frozen.model, key)
    feature, finish = frozen.sequences(network, language.longest(settings), key)
    return Recipe(feature, partial(language.load, settings=settings), finish, pretrained=Path(settings.frozen.model))


def _tokens(settings: schema.TextFeatures, key: str) -> Recipe:
    from agm.pipeline.steps.extract import tokens

    feature = tokens.feature(settings, key)
    return Recipe(
        feature, partial(tokens.load, settings=settings), pretrained=Path(settings.tokenizer, "tokenizer.json")
    )


def _glove(settings: schema.TextFeatures, key: str, chosen: Iterable[Source]) -> Recipe:
    from agm.pipeline.steps.extract import glove

    rows, vectors = glove.vectors(chosen, settings, key)
    load = partial(glove.load, settings=settings, rows=rows)
    finish = partial(glove.looked_up, vectors=vectors, steps=settings.max_tokens)
    return Recipe(glove.feature(settings, vectors), load, finish, pretrained=Path(settings.glove))


def _flow(settings: schema.FlowFeatures, key: str) -> Recipe:
    from agm.pipeline.steps.extract import flow

    if settings.weights is None:
        return Recipe(flow.feature(settings), partial(flow.load, settings=settings))
    from agm.pipeline.steps.extract.pretrained import raft

    load = partial(flow.runs, settings=settings, channels=3)
    return Recipe(flow.feature(settings), load, raft.flows(settings, key), pretrained=Path(settings.weights))
