"""Turn images and frames into a vector each, [frames, size], or a clip into one, [1, size], by torchvision's networks.

The vector is the input of the last layer of the network's classifier. Pictures go through the transformation that
torchvision publishes with the weights, at their full size.
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
        kind: "video" or "image"; a network of videos does not read images.

    Raises:
        AgmError: when torchvision has no such network or weights, or the file holds something else.
    """
    entry = _entry(settings, key)
    reads_videos = settings.model in _names(models.video)
    if reads_videos and kind == "image":
        raise AgmError(f"{settings.model} reads videos, not images", where=f"{key}.model", fix=_known(models))
    model = models.get_model(settings.model, weights=None, **_options(settings.model, entry))
    last_layer = _without_last_layer(model)
    path = Path(settings.weights)
    state = weights.read(path, f"{key}.weights")
    weights.rename(state, lambda name: None if name.startswith(f"{last_layer}.") else _present(name))
    weights.fill(model, state, path, settings.model)
    return Clips(model) if reads_videos else Pictures(model)


def load_image(source: Source, settings: ImageFeatures) -> np.ndarray:
    """The picture as the network reads it, float32 [1, 3, height, width]."""
    picture = image.whole(source, settings).convert("RGB")
    return _prepared(np.moveaxis(np.asarray(picture, np.uint8), 2, 0), settings.frozen)


def load_video(source: Source, settings: VideoFeatures) -> np.ndarray:
    """The clip's chosen frames as the network reads them, float32 [T, 3, height, width]; for a network of videos
    [3, T, height, width]."""
    frames = video.chosen(source, settings, partial(_frame, half=source.half, settings=settings))
    return _together(frames, settings.frozen)


def longest(settings: VideoFeatures | ImageFeatures) -> np.ndarray:
    """An input of the form that `load_video` or `load_image` returns."""
    black = _prepared(np.zeros((3, 64, 64), np.uint8), settings.frozen)
    if settings.kind == "image":
        return black
    return _together([black] * settings.frames, settings.frozen)


def _together(frames: list[np.ndarray], settings: FrozenVision) -> np.ndarray:
    """The frames in one array; the axis of time is the second one for a network of videos, and else the first."""
    axis = 1 if settings.model in _names(models.video) else 0
    return np.concatenate(frames, axis=axis)


def _frame(frame: VideoFrame, aspect: Fraction, half: str | None, settings: VideoFeatures) -> np.ndarray:
    return _prepared(whole(frame, aspect, half, settings.background), settings.frozen)


def _prepared(pixels: np.ndarray, settings: FrozenVision) -> np.ndarray:
    """uint8 [3, height, width] to float32 [1, 3, height, width]; for a network of videos [3, 1, height, width]."""
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
    names: list[str] = []
    for module in modules:
        names += _names(module)
    return f"one of {', '.join(names)}"


def _entry(settings: FrozenVision, key: str) -> WeightsEnum:
    """The published weights that the file should hold."""
    if settings.model not in _names(models) + _names(models.video):
        what = f"torchvision has no network '{settings.model}' for images or videos"
        raise AgmError(what, where=f"{key}.model", fix=_known(models, models.video))
    published = models.get_model_weights(settings.model)
    if settings.entry not in published.__members__:
        what = f"torchvision publishes no weights '{settings.entry}' of {settings.model}"
        raise AgmError(what, where=f"{key}.entry", fix=f"one of {', '.join(published.__members__)}")
    return published[settings.entry]


def _options(model: str, entry: WeightsEnum) -> dict[str, object]:
    """Options of a network that torchvision takes from published weights, and that must be given without them."""
    if model.startswith("vit_"):
        return {"image_size": entry.meta["min_size"][0]}
    if model in ("googlenet", "inception_v3"):
        return {"transform_input": True, "init_weights": False}
    return {}


def _without_last_layer(network: nn.Module) -> str:
    """Replace the classifier's last layer, linear or a convolution, by the identity, and return its name."""
    last = ""
    for name, module in network.named_modules():
        if isinstance(module, nn.Linear | nn.Conv2d | nn.Conv3d):
            last = name
    owner, _, name = last.rpartition(".")
    setattr(network.get_submodule(owner), name, nn.Identity())
    return last


def _present(name: str) -> str:
    """A weight's present name: the published files of the DenseNets have older names."""
    return re.sub(r"(denselayer\d+\.(?:norm|conv))\.([12])\.", r"\1\2.", name)
