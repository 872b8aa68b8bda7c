"""Video to uint8 [frames, channels, size, size].

Frames are chosen by their presentation times, which are read from the packets of the stream: the number of frames in
a container's header is 0 or one too many often enough. Only chosen frames are scaled and kept.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain, pairwise
from pathlib import Path

import numpy as np
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from agm.config.schema import VideoFeatures
from agm.media import Unusable, decoded, opened, packets
from agm.tensors import Feature

Timed = tuple[int, VideoFrame]


def feature(settings: VideoFeatures) -> Feature:
    """What `load` returns."""
    return Feature("video", "uint8", (settings.frames, settings.channels, settings.size, settings.size))


@dataclass(frozen=True)
class _Times:
    """When the frames of a stream are shown, in units of `base` seconds.

    Attributes:
        frames: times of all frames, ascending.
        keys: times of the key frames, from which decoding can start; empty where that is not known.
        numbered: whether the times were counted, the container's own being absent or wrong.
    """

    frames: list[int]
    keys: list[int]
    base: Fraction
    numbered: bool


def load(path: Path, stream: int | None, settings: VideoFeatures) -> np.ndarray:
    """Decode the frames that `settings` ask for.

    Without `rate`, the clip is cut into `frames` equal pieces and the middle frame of each is taken. With it, the
    frames shown at 0, 1/rate, 2/rate, … seconds are taken, and the last one is repeated where the clip is
    shorter.

    Raises:
        Unusable: when no frame can be decoded.
    """
    times = _scan(path, stream)
    wanted = _wanted(times, settings)
    if _is_sparse(wanted, times.keys):
        found, pictures = _pictures(_by_seeking(path, stream, wanted, times.keys), settings)
        if found == wanted:
            return np.stack(pictures)
    # Not worth it, or the container could not seek exactly: decode everything in order.
    _, pictures = _pictures(_in_order(path, stream, wanted, times.numbered), settings)
    if not pictures:
        raise Unusable("no frame of the video can be decoded")
    return np.stack(pictures)


def _scan(path: Path, index: int | None) -> _Times:
    """Find the times from the packets, which is cheap, or where these do not tell them by decoding once."""
    with opened(path, index, "video") as (container, stream):
        # Packets before the start of an edit list are marked as discarded: they decode, but are not shown.
        shown = [(each.pts, each.is_keyframe) for each in packets(container, stream) if not each.is_discard]
        frames = [time for time, _ in shown]
        # Old containers number the packets of reordered frames as these are stored, not as they are shown.
        if frames and None not in frames and not (stream.codec_context.has_b_frames and _ascend(frames)):
            keys = sorted({time for time, key in shown if key})
            return _Times(sorted(set(frames)), keys, stream.time_base, numbered=False)
    return _count(path, index)


def _count(path: Path, index: int | None) -> _Times:
    with opened(path, index, "video") as (container, stream):
        frames = [frame.pts for frame in decoded(container, stream)]
        if not frames:
            raise Unusable("no frame of the video can be decoded")
        if None not in frames and _ascend(frames):
            return _Times(frames, [], stream.time_base, numbered=False)
        step = _step(stream)
        return _Times([round(number * step) for number in range(len(frames))], [], stream.time_base, numbered=True)


def _ascend(times: list[int]) -> bool:
    return all(before < after for before, after in pairwise(times))


def _step(stream: VideoStream) -> Fraction:
    """Time between two frames, in units of the stream's time base."""
    return 1 / ((stream.average_rate or stream.guessed_rate or 25) * stream.time_base)


def _wanted(times: _Times, settings: VideoFeatures) -> list[int]:
    """The times of the frames to take, ascending."""
    frames, count = times.frames, settings.frames
    if settings.rate is None:
        return [frames[(2 * number + 1) * len(frames) // (2 * count)] for number in range(count)]
    step = 1 / (Fraction(settings.rate) * times.base)
    return [_closest(frames, frames[0] + number * step) for number in range(count)]


def _closest(times: list[int], time: Fraction) -> int:
    place = bisect_left(times, time)
    return min(times[max(0, place - 1) : place + 1], key=lambda each: abs(each - time))


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
            container.seek(key, stream=stream)
            frames = _timed(container, stream, numbered=False)
            first = next(frames, None)
            if first is None or first[0] != key:
                return
            yield from _nearest(chain([first], frames), [time for time in wanted if _key_before(time, keys) == key])


def _in_order(path: Path, index: int | None, wanted: list[int], numbered: bool) -> Iterator[Timed]:
    with opened(path, index, "video") as (container, stream):
        yield from _nearest(_timed(container, stream, numbered), wanted)


def _timed(container: InputContainer, stream: VideoStream, numbered: bool) -> Iterator[Timed]:
    """Decoded frames with their times."""
    step = _step(stream)
    for number, frame in enumerate(decoded(container, stream)):
        time = round(number * step) if numbered else frame.pts
        if time is not None:
            yield time, frame


def _nearest(frames: Iterable[Timed], wanted: list[int]) -> Iterator[Timed]:
    """For each of the ascending times `wanted`, the frame nearest to it; nothing when there are no frames."""
    before: Timed | None = None
    done = 0
    for now in frames:
        while done < len(wanted) and now[0] >= wanted[done]:
            earlier = before is not None and wanted[done] - before[0] < now[0] - wanted[done]
            yield before if earlier else now
            done += 1
        if done == len(wanted):
            return
        before = now
    if before is not None:
        yield from [before] * (len(wanted) - done)


def _pictures(frames: Iterable[Timed], settings: VideoFeatures) -> tuple[list[int], list[np.ndarray]]:
    """Times and pictures of `frames`; a frame that comes several times is scaled once."""
    times: list[int] = []
    pictures: list[np.ndarray] = []
    for time, frame in frames:
        repeated = bool(times) and times[-1] == time
        pictures.append(pictures[-1] if repeated else _picture(frame, settings.size, settings.channels))
        times.append(time)
    return times, pictures


def _picture(frame: VideoFrame, size: int, channels: int) -> np.ndarray:
    """Scale the short side to `size`, turn upright and crop the centre: uint8 [channels, size, size]."""
    short = min(frame.width, frame.height)
    pixels = frame.reformat(
        width=max(size, round(frame.width * size / short)),
        height=max(size, round(frame.height * size / short)),
        format="rgb24" if channels == 3 else "gray",
        interpolation="AREA" if size < short else "BICUBIC",
        threads=1,
    ).to_ndarray()
    pixels = np.rot90(pixels.reshape(*pixels.shape[:2], channels), round(frame.rotation / 90))
    top, left = (pixels.shape[0] - size) // 2, (pixels.shape[1] - size) // 2
    return np.moveaxis(pixels[top : top + size, left : left + size], 2, 0)
