"""What a file shows although it can be decoded: silence, one colour, a still, one number.

    silent     sound in which no channel varies by more than `SILENCE`
    antiphase  sound whose channels cancel out: a network is given their mean, which is silent
    blank      an image, or a video throughout, of one colour
    still      a video of one picture throughout, or a sequence whose steps are all equal
    constant   an array or a sequence of one number

A file is read until something is seen or heard: of nearly all a moment of sound or two frames. Only the few that have a
flaw are read to their end. The files of many clips (`agm.pipeline.io.packed`) are not looked at: reading one may mean
reading all.
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
"""Greatest difference between two samples of a channel that is silent, where full scale is -1 to 1: about two steps of
16 bits, which is dither."""
CANCELLED, HEARD = 0.01, 0.1
"""Of the loudest channel, the most that codecs leave in the mean of channels that cancel out, and what needs no further
listening: of a first moment codecs leave more."""
LEVELS = 2
"""Greatest difference, of 255, within what is one colour, and between two frames of a still: codecs make so much."""
GRID = 64
"""A frame is averaged down to GRID × GRID fields, or codecs' noise would be taken for a picture."""
CHUNK = 1 << 20
"""Numbers of an array that are compared at a time."""
WHITE, BLACK = (255, 255, 255), (0, 0, 0)
SAYS: dict[Flaw, str] = {
    "silent": "the sound is silent",
    "antiphase": "the channels of the sound cancel out",
    "blank": "the picture is of one colour throughout",
    "still": "nothing changes from frame to frame or step to step",
    "constant": "all numbers are equal",
}


def flaw(source: Source, kind: str, stream: int | None) -> Flaw | None:
    """The flaw of one usable file, read as `kind`; None of a file that shows something, of texts, and where the file is
    damaged after its beginning, which is found where features are extracted.

    Args:
        stream: index of the stream in a video or sound file.

    Raises:
        Unusable: when it goes beyond a limit.
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
    low = high = None
    loudest = mixed = 0.0  # spread of the loudest channel, and of the mean of all
    decoded_any = False
    for values in _heard(source, stream):
        decoded_any = True
        if not values.size:
            continue
        rows = np.vstack([values, values.mean(axis=0)])
        lowest, highest = rows.min(axis=1), rows.max(axis=1)
        if low is not None and len(low) == len(lowest):  # the number of channels may change
            lowest, highest = np.minimum(low, lowest), np.maximum(high, highest)
        low, high = lowest, highest
        *channels, mean = high - low
        loudest, mixed = max(loudest, *channels), max(mixed, mean)
        if mixed > max(SILENCE, HEARD * loudest):
            return None
    if not decoded_any:
        return None
    if loudest <= SILENCE:
        return "silent"
    return "antiphase" if mixed <= CANCELLED * loudest else None


def _of_video(source: Source, stream: int | None) -> Flaw | None:
    first = None
    count = 0
    for frame in _shown(source, stream):
        fields = _fields(frame, source.half)
        first = fields if first is None else first
        count += 1
        if np.abs(fields - first).max() > LEVELS:
            return None
    if first is None:
        return None
    if np.ptp(first, axis=(0, 1)).max() <= LEVELS:
        return "blank"
    return "still" if count > 1 else None


def _of_image(path: Path) -> Flaw | None:
    with opened_image(path) as image:
        image.draft("RGB", (GRID, GRID))  # a JPEG is decoded at a fraction of its size
        if image.mode.startswith(("I", "F")):
            low, high = image.getextrema()
            return "blank" if low == high else None
        # A drawing that is as white as one background is seen on another.
        grounds = [opaque(image, ground).convert("RGB") for ground in (WHITE, BLACK)]
    spreads = [high - low for ground in grounds for low, high in ground.getextrema()]
    return "blank" if max(spreads) <= LEVELS else None


def _of_array(path: Path, steps: bool) -> Flaw | None:
    array = opened_array(path)
    # In the order of the file: nothing is copied.
    numbers = (array if array.flags.c_contiguous else array.T).reshape(-1)
    if _all_equal(numbers):
        return "constant"
    return "still" if steps and len(array) > 1 and _all_equal(array) else None


def _all_equal(array: np.ndarray) -> bool:
    """Whether all entries of the first axis are equal."""
    rows = max(1, CHUNK * len(array) // array.size)
    starts = range(0, len(array), rows)
    return all((array[start : start + rows] == array[0]).all() for start in starts)


def _heard(source: Source, stream: int | None) -> Iterator[np.ndarray]:
    """The clip's sound frame by frame, [channels, samples]: no samples where the clip is in a hole of the sound."""
    start, end = source.start or 0.0, source.end or math.inf
    for time, frame in _timed(source, stream, "audio"):
        values = samples(frame)
        if time is None:
            yield values
            continue
        first = max(0, round((start - time) * frame.sample_rate))
        last = round((min(end, time + frame.samples / frame.sample_rate) - time) * frame.sample_rate)
        yield values[:, first : max(0, last)]
        if time >= end:
            return


def _shown(source: Source, stream: int | None) -> Iterator[VideoFrame]:
    """The frames of the clip, from the one on that is shown when it begins."""
    start, end = source.start or 0.0, source.end or math.inf
    for (time, frame), (after, _) in pairwise(chain(_timed(source, stream, "video"), [(None, None)])):
        if time is not None and time >= end - ROUNDING:
            return
        if after is None or after > start + ROUNDING:
            yield frame


def _timed(source: Source, stream: int | None, kind: str) -> Iterator[tuple[float | None, Frame]]:
    """Decoded frames and when they begin, in seconds of the file, where that is told: of a piece of a long file those
    before it too, from the key frame on."""
    start, end = source.start or 0.0, source.end or math.inf
    first = None
    with opened(Path(source.path), stream, kind) as (container, found):
        unit, began = found.time_base, origin(container)
        if start and container.format.name not in JUMPING:  # a seek does not know what times jump to
            with suppress(av.FFmpegError):
                container.seek(int((began + Fraction(start)) / unit), stream=found)
        for frame in decoded(container, found):
            # Not `frame.time`, which is no number for frames that the decoder held back to the end.
            time = None if frame.pts is None else float(frame.pts * unit - began)
            if time is not None:
                first = time if first is None else first
                limits.check("seconds", min(time, end) - max(first, start), "the clip lasts {} s or more")
            yield time, frame


def _fields(frame: VideoFrame, half: str | None) -> np.ndarray:
    """The half of the shown picture averaged down: float32 [GRID, GRID or half of it, 3], or [… , 6] of a transparent
    one, on white and on black."""
    small = []
    for ground in (WHITE, BLACK) if is_transparent(frame) else (WHITE,):
        opaque_one = opaque_frame(frame, ground)
        small.append(opaque_one.reformat(GRID, GRID, "rgb24", interpolation="AREA", threads=1).to_ndarray())
    return half_of(orientation(frame).apply(np.dstack(small)), half).astype(np.float32)
