"""Find files that can be decoded but show nothing: silence, one colour, a still, one number.

    silent     sound in which no channel varies by more than `SILENCE`
    antiphase  sound whose channels cancel out: a network gets their mean, which is silent
    blank      an image, or a whole video, of one colour
    still      a video of one picture throughout, or a sequence whose steps are all equal
    constant   an array or a sequence of one number

A file is read until it shows something: nearly always a moment of sound or two frames. Only the few files with a flaw
are read to their end. Files of many clips (`agm.pipeline.io.packed`) are not checked: reading one clip may mean reading
all.
"""

import math
from collections.abc import Iterator
from contextlib import suppress
from fractions import Fraction
from itertools import chain, pairwise
from pathlib import Path

import av
import numpy as np
from av.frame import Frame
from av.video.frame import VideoFrame

from agm.pipeline.config.schema import Flaw
from agm.pipeline.io import limits
from agm.pipeline.io.media import (
    JUMPING,
    ROUNDING,
    Unusable,
    decoded,
    opened,
    opened_array,
    opened_image,
    origin,
    samples,
)
from agm.pipeline.io.pixels import half_of, is_transparent, opaque, opaque_frame, orientation
from agm.pipeline.io.source import Source

SILENCE = 1e-4
"""The largest difference between two samples of a silent channel, where full scale is -1 to 1. It is about two steps of
16 bits, which dither makes."""
CANCELLED, HEARD = 0.01, 0.1
"""Two shares of the loudest channel's spread. Channels cancel out if their mean has at most the first, which codecs
leave. Above the second, no more sound is read; it is larger, because codecs leave more in the first moment."""
LEVELS = 2
"""The largest difference, of 255, within one colour, and between two frames of a still: codecs make that much."""
GRID = 64
"""A frame is averaged down to GRID × GRID fields; otherwise the noise of codecs would count as a picture."""
CHUNK = 1 << 20
"""The number of an array's numbers that are compared at a time."""
WHITE, BLACK = (255, 255, 255), (0, 0, 0)
SAYS: dict[Flaw, str] = {
    "silent": "the sound is silent",
    "antiphase": "the channels of the sound cancel out",
    "blank": "the picture is of one colour throughout",
    "still": "nothing changes from frame to frame or step to step",
    "constant": "all numbers are equal",
}


def flaw(source: Source, kind: str, stream: int | None) -> Flaw | None:
    """The flaw of one usable file, read as `kind`; None for a file that shows something, and for texts.

    None also for a file that is damaged after its beginning: `agm extract` finds that.

    Args:
        stream: index of the stream in a video or sound file.

    Raises:
        Unusable: when the file goes beyond a limit.
    """
    if kind == "text" or source.path is None or source.member is not None:
        return None
    try:
        match kind:
            case "audio":
                return _of_sound(source, stream)
            case "video" | "flow":
                return _of_video(source, stream)
            case "image":
                return _of_image(Path(source.path))
            case _:
                return _of_array(Path(source.path), kind == "sequence")
    except (Unusable, MemoryError):
        raise
    except Exception:  # decoders fail in many ways on damaged files
        return None


def _of_sound(source: Source, stream: int | None) -> Flaw | None:
    lowest = highest = None
    loudest = 0.0  # the spread of the loudest channel
    mixed = 0.0  # the spread of the mean of all channels
    decoded_any = False
    for values in _heard(source, stream):
        decoded_any = True
        if not values.size:
            continue
        rows = np.vstack([values, values.mean(axis=0)])
        low, high = rows.min(axis=1), rows.max(axis=1)
        # The number of channels may change within a file; then the extremes begin anew.
        if lowest is not None and len(lowest) == len(low):
            low = np.minimum(low, lowest)
            high = np.maximum(high, highest)
        lowest, highest = low, high
        *channels, mean = highest - lowest
        loudest = max(loudest, *channels)
        mixed = max(mixed, mean)
        if mixed > max(SILENCE, HEARD * loudest):
            return None
    if not decoded_any:
        return None
    if loudest <= SILENCE:
        return "silent"
    if mixed <= CANCELLED * loudest:
        return "antiphase"
    return None


def _of_video(source: Source, stream: int | None) -> Flaw | None:
    first = None
    count = 0
    for frame in _shown(source, stream):
        fields = _fields(frame, source.half)
        if first is None:
            first = fields
        count += 1
        # Compared with the first frame and not the one before: slow changes add up.
        if np.abs(fields - first).max() > LEVELS:
            return None
    if first is None:
        return None
    if np.ptp(first, axis=(0, 1)).max() <= LEVELS:
        return "blank"
    if count > 1:
        return "still"
    return None


def _of_image(path: Path) -> Flaw | None:
    with opened_image(path) as image:
        image.draft("RGB", (GRID, GRID))  # a JPEG is decoded at a fraction of its size
        if image.mode.startswith(("I", "F")):
            low, high = image.getextrema()
            return "blank" if low == high else None
        # A transparent drawing as white as one background is visible on the other.
        for background in (WHITE, BLACK):
            for low, high in opaque(image, background).convert("RGB").getextrema():
                if high - low > LEVELS:
                    return None
    return "blank"


def _of_array(path: Path, steps: bool) -> Flaw | None:
    array = opened_array(path)
    # The numbers in the order of the file, so that nothing is copied.
    numbers = (array if array.flags.c_contiguous else array.T).reshape(-1)
    if _all_equal(numbers):
        return "constant"
    if steps and len(array) > 1 and _all_equal(array):
        return "still"
    return None


def _all_equal(array: np.ndarray) -> bool:
    """Whether all entries of the first axis are equal."""
    rows = max(1, CHUNK * len(array) // array.size)
    starts = range(0, len(array), rows)
    return all((array[start : start + rows] == array[0]).all() for start in starts)


def _heard(source: Source, stream: int | None) -> Iterator[np.ndarray]:
    """Yield the clip's sound frame by frame, [channels, samples]; a frame before or after the clip has no samples."""
    start, end = source.start or 0.0, source.end or math.inf
    for time, frame in _timed(source, stream, "audio"):
        values = samples(frame)
        if time is None:
            yield values
            continue
        # The part of the frame that belongs to the clip.
        stop = min(end, time + frame.samples / frame.sample_rate)
        first = max(0, round((start - time) * frame.sample_rate))
        last = max(0, round((stop - time) * frame.sample_rate))
        yield values[:, first:last]
        if time >= end:
            return


def _shown(source: Source, stream: int | None) -> Iterator[VideoFrame]:
    """Yield the frames of the clip, beginning with the one that is shown when the clip begins."""
    start, end = source.start or 0.0, source.end or math.inf
    # A frame is shown until the next one begins; nothing follows the last one.
    followed = chain(_timed(source, stream, "video"), [(None, None)])
    for (time, frame), (next_time, _) in pairwise(followed):
        if time is not None and time >= end - ROUNDING:
            return
        if next_time is None or next_time > start + ROUNDING:
            yield frame


def _timed(source: Source, stream: int | None, kind: str) -> Iterator[tuple[float | None, Frame]]:
    """Yield the decoded frames and the seconds of the file at which they begin, None where a frame has no time.

    Where the clip is a piece of a long file, frames before it come too, from its key frame on.
    """
    start, end = source.start or 0.0, source.end or math.inf
    first = None
    with opened(Path(source.path), stream, kind) as (container, opened_stream):
        unit, began = opened_stream.time_base, origin(container)
        if start and container.format.name not in JUMPING:  # a seek does not know where times jump
            with suppress(av.FFmpegError):
                container.seek(int((began + Fraction(start)) / unit), stream=opened_stream)
        for frame in decoded(container, opened_stream):
            if frame.pts is None:
                yield None, frame
                continue
            # Not `frame.time`, which is no number for frames that the decoder holds back to the end.
            time = float(frame.pts * unit - began)
            if first is None:
                first = time
            limits.check("seconds", min(time, end) - max(first, start), "the clip lasts {} s or more")
            yield time, frame


def _fields(frame: VideoFrame, half: str | None) -> np.ndarray:
    """The half of the shown picture averaged down: float32 [GRID, GRID or half of it, 3].

    A transparent picture has six channels: on white, and on black.
    """
    backgrounds = (WHITE, BLACK) if is_transparent(frame) else (WHITE,)
    small = []
    for background in backgrounds:
        picture = opaque_frame(frame, background)
        small.append(picture.reformat(GRID, GRID, "rgb24", interpolation="AREA", threads=1).to_ndarray())
    return half_of(orientation(frame).apply(np.dstack(small)), half).astype(np.float32)
