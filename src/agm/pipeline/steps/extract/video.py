"""Turn video into uint8 [frames, channels, size, size].

Frames are chosen by the times at which they are shown, which the packets of the stream state: the number of frames in
a container's header is often 0 or one too large, and their rate may vary. Only chosen frames are scaled and kept.
"""

import math
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from fractions import Fraction
from functools import partial
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from agm.pipeline.config.schema import VideoFeatures
from agm.pipeline.io.media import Unusable, decoded, opened
from agm.pipeline.io.source import Source
from agm.pipeline.io.tensors import Feature
from agm.pipeline.steps.extract.picture import picture, pixel_aspect
from agm.pipeline.steps.extract.times import Times, recount, scan, wanted

Draw = Callable[[VideoFrame, Fraction], np.ndarray]
"""Makes an array from a frame and the width of its pixels, whose height is 1."""


class OutOfOrder(Exception):
    """The frames come in another order than the times of their packets state."""


class Timed(NamedTuple):
    """A decoded frame, the time at which it is shown, and the width of its pixels, whose height is 1."""

    time: int
    frame: VideoFrame
    aspect: Fraction


def feature(settings: VideoFeatures) -> Feature:
    """The form of what `load` returns."""
    return Feature("video", "uint8", (settings.frames, settings.channels, settings.size, settings.size))


def load(source: Source, settings: VideoFeatures) -> np.ndarray:
    """Decode the frames that `settings` ask for, from the clip's piece of the file and its half of the picture.

    Without `rate`, the time from the clip's first frame to its end is cut into `frames` equal pieces, and the frame
    that is shown in the middle of each is taken. With it, the frames shown at 0, 1/rate, 2/rate, … seconds of the
    clip are taken, and the last one is repeated where the clip is shorter.

    Raises:
        Unusable: when no frame can be decoded, or the clip is too long or its pictures are too large.
    """
    draw = partial(
        picture, half=source.half, size=settings.size, channels=settings.channels, background=settings.background
    )
    return np.stack(chosen(source, settings, draw))


def chosen(source: Source, settings: VideoFeatures, draw: Draw) -> list[np.ndarray]:
    """The arrays that `draw` makes of the frames for which `settings` ask.

    Raises:
        Unusable: when no frame can be decoded.
    """
    _, pictures = taken(source, partial(wanted, settings=settings), draw)
    return pictures


def taken(source: Source, choose: Callable[[Times], list[int]], draw: Draw) -> tuple[Times, list[np.ndarray]]:
    """When the clip's frames are shown, and the arrays that `draw` makes of chosen ones.

    Args:
        choose: returns the ascending times of the frames to take. A frame that it names several times is drawn once.

    Raises:
        Unusable: when no frame can be decoded.
    """
    times = scan(source)
    try:
        return times, _pictures(source, times, choose(times), draw)
    except OutOfOrder:
        times = recount(source)
        return times, _pictures(source, times, choose(times), draw)


def _pictures(source: Source, times: Times, wanted: list[int], draw: Draw) -> list[np.ndarray]:
    """The arrays that `draw` makes of the frames at the times `wanted`."""
    path, stream = Path(source.path), source.stream
    if _is_sparse(wanted, times.keys):
        with suppress(OutOfOrder):
            reached, pictures = _drawn(_by_seeking(path, stream, wanted, times.keys), draw)
            if reached == wanted:
                return pictures
    # Seeking is not worth it, or the container cannot seek exactly: decode everything in order.
    _, pictures = _drawn(_in_order(path, stream, wanted, times.counted), draw)
    if not pictures:
        raise Unusable("no frame of the video can be decoded")
    return pictures


def _key_before(time: int, keys: list[int]) -> int | None:
    """The time of the last key frame up to `time`; None where there is none."""
    place = bisect_right(keys, time)
    return keys[place - 1] if place else None


def _is_sparse(wanted: list[int], keys: list[int]) -> bool:
    """Whether seeking saves at least half of the decoding, and can be exact."""
    used = {_key_before(time, keys) for time in wanted}
    return None not in used and 2 * len(used) <= len(keys)


def _by_seeking(path: Path, index: int | None, wanted: list[int], keys: list[int]) -> Iterator[Timed]:
    """Yield the frames at `wanted`, decoding only from the key frame before each; fewer where seeking is not exact."""
    times_after: dict[int, list[int]] = defaultdict(list)
    for time in wanted:
        times_after[_key_before(time, keys)].append(time)
    with opened(path, index, "video") as (container, stream):
        for key, times in times_after.items():
            try:
                container.seek(key, stream=stream)
            except av.FFmpegError:  # the container cannot seek
                return
            frames = _timed(container, stream, None)
            first = next(frames, None)
            if first is None or first.time != key:
                return
            yield from _nearest(chain([first], frames), times)


def _in_order(path: Path, index: int | None, wanted: list[int], counted: list[int] | None) -> Iterator[Timed]:
    """Yield the frames at `wanted`, decoding from the beginning of the file."""
    with opened(path, index, "video") as (container, stream):
        yield from _nearest(_timed(container, stream, counted), wanted)


def _timed(container: InputContainer, stream: VideoStream, counted: list[int] | None) -> Iterator[Timed]:
    """Yield decoded frames with their times: their own, or those that were `counted` from the first frame on.

    Raises:
        OutOfOrder: when their own times go back.
    """
    aspect = pixel_aspect(stream.sample_aspect_ratio)
    latest = -math.inf
    for number, frame in enumerate(decoded(container, stream)):
        time = frame.pts if counted is None else counted[number]
        if time is None:
            continue
        if time < latest:
            raise OutOfOrder
        latest = time
        yield Timed(time, frame, aspect)


def _nearest(frames: Iterable[Timed], wanted: list[int]) -> Iterator[Timed]:
    """Yield for each of the ascending times `wanted` the frame nearest to it; nothing when there are no frames."""
    before: Timed | None = None
    done = 0
    for now in frames:
        while done < len(wanted) and now.time >= wanted[done]:
            time = wanted[done]
            if before is not None and time - before.time < now.time - time:
                yield before
            else:
                yield now
            done += 1
        if done == len(wanted):
            return
        before = now
    # The last frame is the nearest one to all times after it.
    if before is not None:
        yield from [before] * (len(wanted) - done)


def _drawn(frames: Iterable[Timed], draw: Draw) -> tuple[list[int], list[np.ndarray]]:
    """Times and pictures of `frames`; a frame that comes several times is drawn once."""
    times: list[int] = []
    pictures: list[np.ndarray] = []
    for time, frame, aspect in frames:
        if times and times[-1] == time:
            pictures.append(pictures[-1])
        else:
            pictures.append(draw(frame, aspect))
        times.append(time)
    return times, pictures
