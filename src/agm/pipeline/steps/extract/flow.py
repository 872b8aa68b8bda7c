"""Turn video into optical flow, uint8 [frames, 2 · stack, size, size]: the motion of each point between two frames.

At every position the flow is computed between `stack + 1` successive frames, as many of them before the position as
after it, at the video's own rate. Where the clip ends before the stack does, its last frame is repeated. Channels are
the motion to the right and downwards of the first field, then those of the second, … in pixels of the scaled and
cropped picture. 0 … 255 stand for -bound … bound, and 128 is no motion; the error is at most bound / 255.
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
    """The form of what `load` returns."""
    return Feature("video", "uint8", (settings.frames, 2 * settings.stack, settings.size, settings.size))


def load(source: Source, settings: FlowFeatures) -> np.ndarray:
    """The flow by dense inverse search between gray pictures.

    Raises:
        Unusable: when the clip has fewer than two frames.
    """
    fields = []
    for run in runs(source, settings, 1)[:, :, 0]:
        for before, after in pairwise(run):
            fields.append(dense_inverse_search(before, after))
    return stored(np.stack(fields), settings)


def runs(source: Source, settings: FlowFeatures, channels: int) -> np.ndarray:
    """For each position the successive pictures: uint8 [frames, stack + 1, channels, size, size].

    Raises:
        Unusable: when the clip has fewer than two frames.
    """
    draw = partial(picture, half=source.half, size=settings.size, channels=channels, background=settings.background)
    times, pictures = video.taken(source, lambda times: _needed(_runs_of_times(times, settings)), draw)
    runs_of_times = _runs_of_times(times, settings)
    # A frame that several runs share is drawn once.
    picture_at = dict(zip(_needed(runs_of_times), pictures, strict=True))
    stacks = []
    for run in runs_of_times:
        stacks.append(np.stack([picture_at[time] for time in run]))
    return np.stack(stacks)


def dense_inverse_search(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """The flow between two pictures, uint8 [size, size] → float32 [2, size, size]."""
    method = _method(before.shape)
    field = method.calc(np.ascontiguousarray(before), np.ascontiguousarray(after), None)
    return np.moveaxis(field, 2, 0)


def stored(fields: np.ndarray, settings: FlowFeatures) -> np.ndarray:
    """All fields of a clip in order, float32 [frames · stack, 2, size, size], in the stored form."""
    cut = fields.clip(-settings.bound, settings.bound)
    scaled = np.rint(cut * (127.5 / settings.bound) + 127.5)
    return scaled.astype(np.uint8).reshape(feature(settings).shape)


def _needed(runs_of_times: list[list[int]]) -> list[int]:
    """The times of all frames of all runs, ascending."""
    return sorted(set().union(*runs_of_times))


def _runs_of_times(times: video.Times, settings: FlowFeatures) -> list[list[int]]:
    """For each position the times of its successive frames."""
    if len(times.frames) < 2:
        raise Unusable("the clip has a single frame, and optical flow is between two")
    runs_of_times = []
    for position in _positions(times, settings):
        run = _run(position, settings.stack, len(times.frames))
        runs_of_times.append([times.frames[number] for number in run])
    return runs_of_times


def _positions(times: video.Times, settings: FlowFeatures) -> list[int]:
    """The numbers of the frames at which the flow is computed; not the last one, because no frame follows it."""
    frames = times.frames[:-1]
    numbers = {time: number for number, time in enumerate(frames)}
    moving = replace(times, frames=frames, end=min(times.end, times.frames[-1]))
    return [numbers[time] for time in video.wanted(moving, settings)]


def _run(position: int, stack: int, count: int) -> list[int]:
    """The numbers of the `stack + 1` successive frames around a position, of `count` frames in all."""
    first = max(0, min(position - (stack - 1) // 2, count - 1 - stack))
    return [min(first + number, count - 1) for number in range(stack + 1)]


@cache
def _method(shape: tuple[int, ...]) -> Any:
    """OpenCV's implementation, made once in each process for each size: it keeps settings that depend on the size."""
    require("cv2", "flow")
    import cv2

    cv2.setNumThreads(1)
    return cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
