"""Frozen networks of torchvision: images and frames to a vector each, [frames, size], or a clip to one, [1, size].

The vector is what the network's classifier reads: the classifier's last layer is left out. Pictures go through the
transformation that torchvision publishes with the weights, at their full size.
"""

import re
from fractions import Fraction
from functools import cache, partial
from pathlib import Path

import numpy as np
import torch
from av.video.frame import VideoFrame
from torch import Tensor, nn
from torchvision import models
from torchvision.models import WeightsEnum

from agm.pipeline.config.schema import FrozenVision, ImageFeatures, VideoFeatures
from agm.pipeline.errors import AgmError
from agm.pipeline.io.source import Source
from agm.pipeline.steps.extract import image, video
from agm.pipeline.steps.extract.picture import whole
from agm.pipeline.steps.extract.pretrained import weights


class Pictures(nn.Module):
    """A network of images over several, [B, T, 3, H, W] → [B, T, size]."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x.flatten(0, 1)).flatten(1).unflatten(0, x.shape[:2])


class Clips(nn.Module):
    """A network of videos, [B, 3, T, H, W] → [B, 1, size]."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x).flatten(1).unsqueeze(1)


def network(settings: FrozenVision, key: str, kind: str) -> nn.Module:
    """The network with its weights.

    Args:
        kind: "video" or "image"; a network of videos reads no images.

    Raises:
        AgmError: when torchvision has no such network or weights, or the file is not what it should be.
    """
    entry, moving = _entry(settings, key), settings.model in _names(models.video)
    if moving and kind == "image":
        raise AgmError(f"{settings.model} reads videos, not images", where=f"{key}.model", fix=_known(models))
    found = models.get_model(settings.model, weights=None, **_options(settings.model, entry))
    last = _without_last_layer(found)
    path = Path(settings.weights)
    state = weights.read(path, f"{key}.weights")
    weights.rename(state, lambda name: None if name.startswith(f"{last}.") else _present(name))
    weights.fill(found, state, path, settings.model)
    return Clips(found) if moving else Pictures(found)


def load_image(source: Source, settings: ImageFeatures) -> np.ndarray:
    """The picture as the network wants it, float32 [1, 3, height, width]."""
    picture = image.whole(source, settings).convert("RGB")
    return _prepared(np.moveaxis(np.asarray(picture, np.uint8), 2, 0), settings.frozen)


def load_video(source: Source, settings: VideoFeatures) -> np.ndarray:
    """The clip's chosen frames as the network wants them, float32 [T, 3, height, width], for one of videos
    [3, T, height, width]."""
    frames = video.chosen(source, settings, partial(_frame, half=source.half, settings=settings))
    return _together(frames, settings.frozen)


def longest(settings: VideoFeatures | ImageFeatures) -> np.ndarray:
    """An input like those that `load_video` or `load_image` returns."""
    black = _prepared(np.zeros((3, 64, 64), np.uint8), settings.frozen)
    return _together([black] * settings.frames, settings.frozen) if settings.kind == "video" else black


def _together(frames: list[np.ndarray], settings: FrozenVision) -> np.ndarray:
    return np.concatenate(frames, axis=1 if settings.model in _names(models.video) else 0)


def _frame(frame: VideoFrame, aspect: Fraction, half: str | None, settings: VideoFeatures) -> np.ndarray:
    return _prepared(whole(frame, aspect, half, settings.background), settings.frozen)


def _prepared(pixels: np.ndarray, settings: FrozenVision) -> np.ndarray:
    """uint8 [3, height, width] to float32 [1, 3, height, width], for a network of videos [3, 1, height, width]."""
    torch.set_num_threads(1)
    transform = _transform(settings.model, settings.entry)
    return transform(torch.from_numpy(np.ascontiguousarray(pixels))[None]).numpy()


@cache
def _transform(model: str, entry: str) -> nn.Module:
    return models.get_model_weights(model)[entry].transforms()


@cache
def _names(module: object) -> tuple[str, ...]:
    return tuple(models.list_models(module=module))


def _known(*modules: object) -> str:
    return f"one of {', '.join(name for module in modules for name in _names(module))}"


def _entry(settings: FrozenVision, key: str) -> WeightsEnum:
    """The published weights that the file is said to hold."""
    if settings.model not in _names(models) + _names(models.video):
        what = f"torchvision has no network '{settings.model}' for images or videos"
        raise AgmError(what, where=f"{key}.model", fix=_known(models, models.video))
    published = models.get_model_weights(settings.model)
    if settings.entry not in published.__members__:
        what = f"torchvision publishes no weights '{settings.entry}' of {settings.model}"
        raise AgmError(what, where=f"{key}.entry", fix=f"one of {', '.join(published.__members__)}")
    return published[settings.entry]


def _options(model: str, entry: WeightsEnum) -> dict[str, object]:
    """What torchvision derives from published weights when it builds a network, and not when that starts empty."""
    if model.startswith("vit_"):
        return {"image_size": entry.meta["min_size"][0]}
    if model in ("googlenet", "inception_v3"):
        return {"transform_input": True, "init_weights": False}
    return {}


def _without_last_layer(network: nn.Module) -> str:
    """Make the classifier's last layer, linear or a convolution, hand on what it is given; its name."""
    layers = [name for name, each in network.named_modules() if isinstance(each, nn.Linear | nn.Conv2d | nn.Conv3d)]
    owner, _, name = layers[-1].rpartition(".")
    setattr(network.get_submodule(owner), name, nn.Identity())
    return layers[-1]


def _present(name: str) -> str:
    """A weight's name in the networks of today: the published files of the DenseNets are older."""
    return re.sub(r"(denselayer\d+\.(?:norm|conv))\.([12])\.", r"\1\2.", name)
