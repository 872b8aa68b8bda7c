"""Video to uint8 [frames, channels, size, size].

Frames are chosen by the times at which they are shown, which are read from the packets of the stream: the number of
frames in a container's header is 0 or one too many often enough, and their rate may vary. Only chosen frames are scaled
and kept.
"""

import math
from bisect import bisect_right
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

# Makes an array of a frame and the width of its pixels, their height being 1.
Draw = Callable[[VideoFrame, Fraction], np.ndarray]


class OutOfOrder(Exception):
    """The frames come in another order than the times of their packets say."""


class Timed(NamedTuple):
    """A decoded frame, the time at which it is shown, and the width of its pixels, their height being 1."""

    time: int
    frame: VideoFrame
    aspect: Fraction


def feature(settings: VideoFeatures) -> Feature:
    """What `load` returns."""
    return Feature("video", "uint8", (settings.frames, settings.channels, settings.size, settings.size))


def load(source: Source, settings: VideoFeatures) -> np.ndarray:
    """Decode the frames that `settings` ask for, of the piece of the file and of the picture that the clip is.

    Without `rate`, the time from the clip's first frame to its end is cut into `frames` equal pieces, and the frame
    that is shown in the middle of each is taken. With it, the frames shown at 0, 1/rate, 2/rate, … seconds of the
    clip are taken, and the last one is repeated where the clip is shorter.

    Raises:
        Unusable: when no frame can be decoded, or the clip is too long or its pictures too large.
    """
    about = {"half": source.half, "size": settings.size, "background": settings.background}
    draw = partial(picture, channels=settings.channels, **about)
    return np.stack(chosen(source, settings, draw))


def chosen(source: Source, settings: VideoFeatures, draw: Draw) -> list[np.ndarray]:
    """What `draw` makes of the frames that `settings` ask for.

    Raises:
        Unusable: when no frame can be decoded.
    """
    return taken(source, partial(wanted, settings=settings), draw)[1]


def taken(source: Source, choose: Callable[[Times], list[int]], draw: Draw) -> tuple[Times, list[np.ndarray]]:
    """When the clip's frames are shown, and what `draw` makes of those at the ascending times that `choose` returns;
    of a frame that comes several times, once.

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
    path, stream = Path(source.path), source.stream
    if _is_sparse(wanted, times.keys):
        with suppress(OutOfOrder):
            found, drawn = _drawn(_by_seeking(path, stream, wanted, times.keys), draw)
            if found == wanted:
                return drawn
    # Not worth it, or the container could not seek exactly: decode everything in order.
    _, drawn = _drawn(_in_order(path, stream, wanted, times.counted), draw)
    if not drawn:
        raise Unusable("no frame of the video can be decoded")
    return drawn


def _key_before(time: int, keys: list[int]) -> int | None:
    place = bisect_right(keys, time)
    return keys[place - 1] if place else None


def _is_sparse(wanted: list[int], keys: list[int]) -> bool:
    """Whether seeking saves at least half of the decoding, and can be exact."""
    used = {_key_before(time, keys) for time in wanted}
    return None not in used and 2 * len(used) <= len(keys)


def _by_seeking(path: Path, index: int | None, wanted: list[int], keys: list[int]) -> Iterator[Timed]:
    """The frames at `wanted`, decoding only from the key frame before each; fewer where seeking is not exact."""
    with opened(path, index, "video") as (container, stream):
        for key in sorted({_key_before(time, keys) for time in wanted}):
            try:
                container.seek(key, stream=stream)
            except av.FFmpegError:  # the container cannot
                return
            frames = _timed(container, stream, None)
            first = next(frames, None)
            if first is None or first.time != key:
                return
            yield from _nearest(chain([first], frames), [time for time in wanted if _key_before(time, keys) == key])


def _in_order(path: Path, index: int | None, wanted: list[int], counted: list[int] | None) -> Iterator[Timed]:
    with opened(path, index, "video") as (container, stream):
        yield from _nearest(_timed(container, stream, counted), wanted)


def _timed(container: InputContainer, stream: VideoStream, counted: list[int] | None) -> Iterator[Timed]:
    """Decoded frames with their times: their own, or those that were `counted` from the first one on.

    Raises:
        OutOfOrder: when their own times go back.
    """
    aspect, latest = pixel_aspect(stream.sample_aspect_ratio), -math.inf
    for number, frame in enumerate(decoded(container, stream)):
        time = frame.pts if counted is None else counted[number]
        if time is None:
            continue
        if time < latest:
            raise OutOfOrder
        latest = time
        yield Timed(time, frame, aspect)


def _nearest(frames: Iterable[Timed], wanted: list[int]) -> Iterator[Timed]:
    """For each of the ascending times `wanted`, the frame nearest to it; nothing when there are no frames."""
    before: Timed | None = None
    done = 0
    for now in frames:
        while done < len(wanted) and now.time >= wanted[done]:
            earlier = before is not None and wanted[done] - before.time < now.time - wanted[done]
            yield before if earlier else now
            done += 1
        if done == len(wanted):
            return
        before = now
    if before is not None:
        yield from [before] * (len(wanted) - done)


def _drawn(frames: Iterable[Timed], draw: Draw) -> tuple[list[int], list[np.ndarray]]:
    """Times and pictures of `frames`; a frame that comes several times is drawn once."""
    times: list[int] = []
    drawn: list[np.ndarray] = []
    for time, frame, aspect in frames:
        repeated = bool(times) and times[-1] == time
        drawn.append(drawn[-1] if repeated else draw(frame, aspect))
        times.append(time)
    return times, drawn
