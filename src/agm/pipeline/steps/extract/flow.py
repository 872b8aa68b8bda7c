"""Optical flow to uint8 [frames, 2 · stack, size, size]: how far each point moves from one frame to the next.

At every position the flow is taken between `stack + 1` successive frames, as many of them before the position as after
it, at the video's own rate; where the clip ends before the stack does, its last frame stands still. Channels are the
motion to the right and downwards of the first field, then those of the second, … in pixels of the picture that was
scaled and cropped. 0 … 255 are -bound … bound, and 128 is no motion: they are right within bound / 255.
"""

from dataclasses import replace
from functools import cache, partial
from itertools import pairwise
from typing import Any

import numpy as np

from agm.extras import require
from agm.pipeline.config.schema import FlowFeatures
from agm.pipeline.io.media import Unusable
from agm.pipeline.io.source import Source
from agm.pipeline.io.tensors import Feature
from agm.pipeline.steps.extract import video
from agm.pipeline.steps.extract.picture import picture


def feature(settings: FlowFeatures) -> Feature:
    """What `load` returns."""
    return Feature("video", "uint8", (settings.frames, 2 * settings.stack, settings.size, settings.size))


def load(source: Source, settings: FlowFeatures) -> np.ndarray:
    """The flow by dense inverse search between gray pictures.

    Raises:
        Unusable: when the clip has fewer than two frames.
    """
    fields = [dense_inverse_search(*pair) for run in runs(source, settings, 1)[:, :, 0] for pair in pairwise(run)]
    return stored(np.stack(fields), settings)


def runs(source: Source, settings: FlowFeatures, channels: int) -> np.ndarray:
    """For each position the successive pictures: uint8 [frames, stack + 1, channels, size, size].

    Raises:
        Unusable: when the clip has fewer than two frames.
    """
    about = {"half": source.half, "size": settings.size, "background": settings.background}
    draw = partial(picture, channels=channels, **about)
    times, pictures = video.taken(source, lambda times: _needed(_places(times, settings)), draw)
    places = _places(times, settings)
    drawn = dict(zip(_needed(places), pictures, strict=True))
    return np.stack([np.stack([drawn[time] for time in run]) for run in places])


def dense_inverse_search(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """The flow between two pictures, uint8 [size, size] → float32 [2, size, size]."""
    return np.moveaxis(
        _method(before.shape).calc(np.ascontiguousarray(before), np.ascontiguousarray(after), None), 2, 0
    )


def stored(fields: np.ndarray, settings: FlowFeatures) -> np.ndarray:
    """All fields of a clip in order, [frames · stack, 2, size, size], as they are kept."""
    cut = fields.clip(-settings.bound, settings.bound)
    return np.rint(cut * (127.5 / settings.bound) + 127.5).astype(np.uint8).reshape(feature(settings).shape)


def _needed(places: list[list[int]]) -> list[int]:
    """The times of all frames that the flow is taken between, ascending."""
    return sorted(set().union(*places))


def _places(times: video.Times, settings: FlowFeatures) -> list[list[int]]:
    """For each position the times of the successive frames."""
    if len(times.frames) < 2:
        raise Unusable("the clip has a single frame, and optical flow is between two")
    runs = [_run(start, settings.stack, len(times.frames)) for start in _positions(times, settings)]
    return [[times.frames[number] for number in run] for run in runs]


def _positions(times: video.Times, settings: FlowFeatures) -> list[int]:
    """The frames at which the flow is taken; not the last one, from which nothing moves on."""
    frames = times.frames[:-1]
    numbers = {time: number for number, time in enumerate(frames)}
    moving = replace(times, frames=frames, end=min(times.end, times.frames[-1]))
    return [numbers[time] for time in video.wanted(moving, settings)]


def _run(position: int, stack: int, count: int) -> list[int]:
    """The `stack + 1` successive frames around a position, of `count`."""
    first = max(0, min(position - (stack - 1) // 2, count - 1 - stack))
    return [min(first + number, count - 1) for number in range(stack + 1)]


@cache
def _method(shape: tuple[int, ...]) -> Any:
    """OpenCV's implementation, once in each process for each size: of small pictures it keeps settings of its own."""
    require("cv2", "flow")
    import cv2

    cv2.setNumThreads(1)
    return cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
