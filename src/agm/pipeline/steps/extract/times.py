"""Find when the frames of a clip are shown, and choose which of them to take."""

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
# Codecs whose decoding can start at any key frame, besides those with only key frames. Some other codecs mark a frame
# as a key that needs earlier frames, or state a palette in the first frame only.
ENTERED_AT_KEYS = frozenset({
    "av1", "ffv1", "flv1", "h263", "h264", "hevc", "mpeg1video", "mpeg2video", "mpeg4", "msmpeg4v1", "msmpeg4v2",
    "msmpeg4v3", "theora", "vc1", "vp8", "vp9", "vvc", "wmv1", "wmv2", "wmv3",
})  # fmt: skip
# Data of a packet that changes the decoding of all packets after it.
CHANGES = ("palette", "new_extradata", "param_change")
# Frames per second. No camera of a data set is faster, so that the limit of seconds also limits the number of frames,
# whatever times a file states.
FASTEST = 1000
# The largest number of places by which a frame is decoded before or after its turn.
REORDERED = 16
# One in FEW frames may have a wrong time; where more have, no time is believed.
FEW = 10


@dataclass(frozen=True)
class Times:
    """When the frames of a clip are shown, in units of `base` seconds.

    Attributes:
        frames: times at which its frames begin to be shown, ascending.
        keys: times of the key frames, from which decoding can start; empty where earlier packets may matter.
        start: when the clip begins, which may be before its first frame or within it.
        end: when its last frame ends.
        counted: times of all frames of the stream in the order of decoding, where the file states none or wrong ones;
            None where the file's times are right.
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
        """The largest error by which a stated time may be too late."""
        mean = (self.end - self.frames[0]) / len(self.frames)
        return min(ROUNDING / self.base, mean / 4)


def scan(source: Source) -> Times:
    """When the clip's frames are shown, by the packets of the file where these state it.

    Raises:
        Unusable: when none of its frames can be decoded, the file ends before the clip begins, or the clip is too long.
    """
    return _clip(_scan if _is_whole(source) else _scan_shared, source)


def recount(source: Source) -> Times:
    """When the clip's frames are shown, by decoding them all.

    Raises:
        Unusable: when none of its frames can be decoded, the file ends before the clip begins, or the clip is too long.
    """
    return _clip(_count if _is_whole(source) else _count_shared, source)


def _is_whole(source: Source) -> bool:
    return source.start is None and source.end is None


def _clip(read: Callable[[Path, int | None, float], Times], source: Source) -> Times:
    """The times of the source's piece of a file; `read` returns those of the whole file."""
    if _is_whole(source):
        return read(Path(source.path), source.stream, limits.most("seconds"))
    # The limit holds for the piece: the file itself may be hours long.
    times = read(Path(source.path), source.stream, math.inf)
    start = times.start + Fraction(source.start or 0) / times.base
    end = times.end
    if source.end is not None:
        end = min(end, times.start + Fraction(source.end) / times.base)
    first = bisect_left(times.frames, times.shown_at(start))
    frames = times.frames[first : bisect_left(times.frames, end - times.rounding)]
    if start >= times.end or not frames:
        raise Unusable(f"the video has no frame between {source.start or 0:g} and {source.end or math.inf:g} s")
    limits.check("seconds", float((frames[-1] - frames[0]) * times.base), "the clip lasts {} s")
    return replace(times, frames=frames, start=start, end=end)


def _scan(path: Path, index: int | None, seconds: float) -> Times:
    """Find the times from the packets, which is cheap, or by decoding once where the packets do not state them.

    Raises:
        Unusable: when no frame can be decoded, or the frames last for more than `seconds`.
    """
    with opened(path, index, "video") as (container, stream):
        recordings = Recordings(container, stream)
        # Packets before the start of an edit list are marked as discarded: they decode, but are not shown.
        shown = (packet for packet in packets(container, stream, recordings) if not packet.is_discard)
        frames: list[int | None] = []
        keys: set[int | None] = set()
        latest, duration = -math.inf, 0  # of the packet that is shown last
        seekable = _is_entered_at_keys(stream)
        for packet in _timely(shown, stream, seconds):
            frames.append(packet.pts)
            if seekable:
                seekable = all(data.data_type not in CHANGES for data in packet.iter_sidedata())
            if packet.is_keyframe:
                keys.add(packet.pts)
            if packet.pts is not None and packet.pts > latest:
                latest, duration = packet.pts, packet.duration or 0
        if _are_right(frames, stream):
            # In a file of several recordings, a seek goes by other times than those of `packets`.
            seekable = seekable and not recordings.current
            return _times(frames, sorted(keys) if seekable else [], container, stream, duration)
    return _count(path, index, seconds)


# For a file with many clips, which come in any order: to read a long one through for each would take hours.
_scan_shared = lru_cache(maxsize=256)(_scan)


def _are_right(frames: list[int | None], stream: VideoStream) -> bool:
    """Whether the times of packets, in stored order, can be the times at which frames are shown."""
    if not frames or None in frames:
        return False
    # Old containers number the packets of reordered frames in stored order, not in the order in which they are shown.
    ascending = all(before < after for before, after in pairwise(frames))
    if stream.codec_context.has_b_frames and ascending:
        return False
    shown = sorted(range(len(frames)), key=frames.__getitem__)
    return all(abs(stored - turn) <= REORDERED for turn, stored in enumerate(shown))


def _is_entered_at_keys(stream: VideoStream) -> bool:
    """Whether decoding can start at every key frame."""
    codec = stream.codec_context.codec
    return codec.intra_only or codec.canonical_name in ENTERED_AT_KEYS


def _count(path: Path, index: int | None, seconds: float) -> Times:
    """Find the times by decoding all frames: the file's times, corrected to ascend, or else equal steps."""
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
    """The times of a whole stream, whose last frame is shown for `last`, or, where that is 0, as long as the others."""
    frames = sorted(set(frames))
    if not last and len(frames) > 1:
        last = Fraction(frames[-1] - frames[0], len(frames) - 1)
    elif not last:
        last = _step(stream)
    start = min(origin(container) / stream.time_base, Fraction(frames[0]))
    return Times(frames, keys, stream.time_base, start, Fraction(frames[-1] + last))


def _ascending(times: list[int]) -> list[int] | None:
    """Times of frames in their order, corrected so that no time goes back; None where more than a few do."""
    back = sum(after < before for before, after in pairwise(times))
    if back * FEW > len(times):
        return None
    corrected = list(times)
    for number in range(1, len(times) - 1):
        before, after = times[number - 1], times[number + 1]
        if before <= after and not before <= times[number] <= after:  # only this time is wrong
            corrected[number] = (before + after) // 2
    return list(accumulate(corrected, max))


def _timely(items: Iterable[T], stream: VideoStream, seconds: float) -> Iterator[T]:
    """Yield the packets or frames `items` as long as they last for at most `seconds`.

    Raises:
        Unusable: at the first one beyond, before the rest of a long file is read.
    """
    step, longest = _step(stream), seconds / stream.time_base
    first = None
    for number, item in enumerate(items):
        # Packets come in the order of decoding, whose times ascend.
        time = item.dts if isinstance(item, Packet) else None
        if time is None:
            time = item.pts
        if time is None:
            time = round(number * step)
        if first is None:
            first = time
        if abs(time - first) > longest:
            limits.check("seconds", float(abs(time - first) * stream.time_base), "the clip lasts {} s or more")
        if number > FASTEST * seconds:
            frames = f"{FASTEST:,} frames a second"
            raise Unusable(f"the clip has more than {frames} of dataset.limits.seconds = {seconds:g}")
        yield item


def _step(stream: VideoStream) -> Fraction:
    """Time between two frames, in units of the stream's time base."""
    return 1 / ((stream.average_rate or stream.guessed_rate or 25) * stream.time_base)


def wanted(times: Times, settings: VideoFeatures | FlowFeatures) -> list[int]:
    """The times of the frames to take, ascending."""
    count = settings.frames
    if settings.fps is None:
        # The middles of `count` equal pieces of the clip.
        start = max(times.start, times.frames[0])
        piece = (times.end - start) / count
        return [times.shown_at(start + piece * (2 * number + 1) / 2) for number in range(count)]
    step = 1 / (Fraction(settings.fps) * times.base)
    return [times.shown_at(times.start + number * step) for number in range(count)]
