"""When the frames of a clip are shown, and which of them to take."""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache
from itertools import accumulate, pairwise
from pathlib import Path
from typing import TypeVar

from av.container import InputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from agm.pipeline.config.schema import FlowFeatures, VideoFeatures
from agm.pipeline.io import limits
from agm.pipeline.io.media import ROUNDING, Recordings, Unusable, decoded, opened, origin, packets
from agm.pipeline.io.source import Source

T = TypeVar("T", Packet, VideoFrame)
# Beside those that have nothing but key frames. Of other codecs some call a frame a key that needs those before it,
# or state a palette in the first frame only.
ENTERED_AT_KEYS = frozenset({
    "av1", "ffv1", "flv1", "h263", "h264", "hevc", "mpeg1video", "mpeg2video", "mpeg4", "msmpeg4v1", "msmpeg4v2",
    "msmpeg4v3", "theora", "vc1", "vp8", "vp9", "vvc", "wmv1", "wmv2", "wmv3",
})  # fmt: skip
# What a packet tells the decoder of all packets after it.
CHANGES = ("palette", "new_extradata", "param_change")
# No camera of a data set is faster: with it the limit of seconds is one of frames too, whatever times a file tells.
FASTEST = 1000
# Most frames that a frame is decoded before or after its turn.
REORDERED = 16
# One in so many frames may have a wrong time; where there are more, no time is believed.
FEW = 10


@dataclass(frozen=True)
class Times:
    """When the frames of a clip are shown, in units of `base` seconds.

    Attributes:
        frames: times at which its frames begin to be shown, ascending.
        keys: times of the key frames, from which decoding can start; empty where what comes earlier may matter.
        start: when the clip begins, which may be before its first frame or within it.
        end: when its last frame has been shown.
        counted: times of all frames of the stream in the order in which they are decoded, where those that the file
            gives are absent or wrong; None where they are right.
    """

    frames: list[int]
    keys: list[int]
    base: Fraction
    start: Fraction
    end: Fraction
    counted: list[int] | None = None

    def shown_at(self, time: Fraction) -> int:
        """The time of the frame that is shown at `time`."""
        return self.frames[max(0, bisect_right(self.frames, time + self.rounding) - 1)]

    @property
    def rounding(self) -> Fraction:
        """How much too late a time may be stated."""
        mean = (self.end - self.frames[0]) / len(self.frames)
        return min(ROUNDING / self.base, mean / 4)


def scan(source: Source) -> Times:
    """When the clip's frames are shown.

    Raises:
        Unusable: when no frame of it can be decoded, the file ends before it begins, or the clip is too long.
    """
    return _clip(_scan if _is_whole(source) else _scan_shared, source)


def recount(source: Source) -> Times:
    """When the clip's frames are shown, by decoding them all.

    Raises:
        Unusable: when no frame of it can be decoded, the file ends before it begins, or the clip is too long.
    """
    return _clip(_count if _is_whole(source) else _count_shared, source)


def _is_whole(source: Source) -> bool:
    return source.start is None and source.end is None


def _clip(read: Callable[[Path, int | None, float], Times], source: Source) -> Times:
    """The times of the source's piece of a file, of which `read` reads all times."""
    if _is_whole(source):
        return read(Path(source.path), source.stream, limits.most("seconds"))
    times = read(Path(source.path), source.stream, math.inf)
    start = times.start + Fraction(source.start or 0) / times.base
    end = times.end if source.end is None else min(times.end, times.start + Fraction(source.end) / times.base)
    first = bisect_left(times.frames, times.shown_at(start))
    frames = times.frames[first : bisect_left(times.frames, end - times.rounding)]
    if start >= times.end or not frames:
        raise Unusable(f"the video has no frame between {source.start or 0:g} and {source.end or math.inf:g} s")
    limits.check("seconds", float((frames[-1] - frames[0]) * times.base), "the clip lasts {} s")
    return replace(times, frames=frames, start=start, end=end)


def _scan(path: Path, index: int | None, seconds: float) -> Times:
    """Find the times from the packets, which is cheap, or where these do not tell them by decoding once.

    Raises:
        Unusable: when no frame can be decoded, or they go on for more than `seconds`.
    """
    with opened(path, index, "video") as (container, stream):
        # Packets before the start of an edit list are marked as discarded: they decode, but are not shown.
        recordings = Recordings(container, stream)
        found = (each for each in packets(container, stream, recordings) if not each.is_discard)
        frames, keys, last, entered = [], set(), (-math.inf, 0), _is_entered_at_keys(stream)
        for packet in _timely(found, stream, seconds):
            frames.append(packet.pts)
            if entered:
                entered = all(each.data_type not in CHANGES for each in packet.iter_sidedata())
            if packet.is_keyframe:
                keys.add(packet.pts)
            if packet.pts is not None and packet.pts > last[0]:
                last = packet.pts, packet.duration or 0
        if _are_right(frames, stream):
            entered = entered and not recordings.current  # a seek does not know what times it is to find
            return _times(frames, sorted(keys) if entered else [], container, stream, last[1])
    return _count(path, index, seconds)


# Of a file with many clips, which come in any order: reading a long one through for each would take hours.
_scan_shared = lru_cache(maxsize=256)(_scan)


def _are_right(frames: list[int | None], stream: VideoStream) -> bool:
    """Whether the times of packets, as these are stored, can be those at which frames are shown."""
    if not frames or None in frames:
        return False
    # Old containers number the packets of reordered frames as these are stored, not as they are shown.
    if stream.codec_context.has_b_frames and _ascend(frames):
        return False
    shown = sorted(range(len(frames)), key=frames.__getitem__)
    return all(abs(stored - turn) <= REORDERED for turn, stored in enumerate(shown))


def _is_entered_at_keys(stream: VideoStream) -> bool:
    codec = stream.codec_context.codec
    return codec.intra_only or codec.canonical_name in ENTERED_AT_KEYS


def _count(path: Path, index: int | None, seconds: float) -> Times:
    """Find the times by decoding all frames: those that the file gives, made to ascend, or else their numbers."""
    with opened(path, index, "video") as (container, stream):
        frames = [frame.pts for frame in _timely(decoded(container, stream), stream, seconds)]
        if not frames:
            raise Unusable("no frame of the video can be decoded")
        counted = None if None in frames else _ascending(frames)
        if counted is None:
            step = _step(stream)
            counted = [round(number * step) for number in range(len(frames))]
        return replace(_times(counted, [], container, stream, 0), counted=counted)


_count_shared = lru_cache(maxsize=256)(_count)


def _times(frames: list[int], keys: list[int], container: InputContainer, stream: VideoStream, last: int) -> Times:
    """The times of a whole stream, whose last frame is shown for `last`, or, where that is 0, as long as others."""
    frames = sorted(set(frames))
    if not last:
        last = Fraction(frames[-1] - frames[0], len(frames) - 1) if len(frames) > 1 else _step(stream)
    start = min(origin(container) / stream.time_base, Fraction(frames[0]))
    return Times(frames, keys, stream.time_base, start, Fraction(frames[-1] + last))


def _ascending(times: list[int]) -> list[int] | None:
    """Times of frames in their order, corrected so that none goes back; None where more than a few do."""
    back = sum(after < before for before, after in pairwise(times))
    if back * FEW > len(times):
        return None
    mended = list(times)
    for number in range(1, len(times) - 1):
        before, after = times[number - 1], times[number + 1]
        if before <= after and not before <= times[number] <= after:  # this one alone is wrong
            mended[number] = (before + after) // 2
    return list(accumulate(mended, max))


def _timely(found: Iterable[T], stream: VideoStream, seconds: float) -> Iterator[T]:
    """The packets or frames `found`, up to where they have gone on for more than `seconds`: there it ends in
    `Unusable`, before the rest of a long file is read."""
    step, longest, first = _step(stream), seconds / stream.time_base, None
    for number, each in enumerate(found):
        # Packets come in the order of decoding; of one alone the other time may be wrong.
        time = each.dts if isinstance(each, Packet) and each.dts is not None else each.pts
        time = round(number * step) if time is None else time
        first = time if first is None else first
        if abs(time - first) > longest:
            limits.check("seconds", float(abs(time - first) * stream.time_base), "the clip lasts {} s or more")
        if number > FASTEST * seconds:
            frames = f"{FASTEST:,} frames a second"
            raise Unusable(f"the clip has more than {frames} of dataset.limits.seconds = {seconds:g}")
        yield each


def _ascend(times: list[int]) -> bool:
    return all(before < after for before, after in pairwise(times))


def _step(stream: VideoStream) -> Fraction:
    """Time between two frames, in units of the stream's time base."""
    return 1 / ((stream.average_rate or stream.guessed_rate or 25) * stream.time_base)


def wanted(times: Times, settings: VideoFeatures | FlowFeatures) -> list[int]:
    """The times of the frames to take, ascending."""
    count = settings.frames
    if settings.fps is None:
        start = max(times.start, times.frames[0])
        piece = (times.end - start) / count
        return [times.shown_at(start + piece * (2 * number + 1) / 2) for number in range(count)]
    step = 1 / (Fraction(settings.fps) * times.base)
    return [times.shown_at(times.start + number * step) for number in range(count)]
