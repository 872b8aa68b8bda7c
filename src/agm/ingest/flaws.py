"""What a file shows although it can be decoded: silence, one colour, a still, one number.

    silent     sound in which no channel varies by more than `SILENCE`; two channels that cancel out are no silence
    blank      an image, or a video throughout, of one colour
    still      a video of one picture throughout, or a sequence whose steps are all equal
    constant   an array or a sequence of one number

A file is read until something is seen or heard: of nearly all a moment of sound or two frames. Only the few that have a
flaw are read to their end. The files of many clips (`agm.packed`) are not looked at: reading one may mean reading all.
"""

import math
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import av
import numpy as np
from av.frame import Frame
from av.video.frame import VideoFrame

from agm import limits
from agm.config.schema import Flaw
from agm.media import Unusable, decoded, opened, opened_array, opened_image, samples
from agm.pixels import opaque, opaque_frame
from agm.source import Source

SILENCE = 1e-4
"""Greatest difference between two samples of a channel that is silent, where full scale is -1 to 1: about two steps of
16 bits, which is dither."""
LEVELS = 2
"""Greatest difference, of 255, within what is one colour, and between two frames of a still: codecs make so much."""
GRID = 64
"""A frame is averaged down to GRID × GRID fields, or codecs' noise would be taken for a picture."""
CHUNK = 1 << 20
"""Numbers of an array that are compared at a time."""
WHITE, BLACK = (255, 255, 255), (0, 0, 0)
SAYS: dict[Flaw, str] = {
    "silent": "the sound is silent",
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
    for frame in _frames(source, stream, "audio"):
        values = samples(frame)
        lowest, highest = values.min(axis=1), values.max(axis=1)
        if low is not None and len(low) == len(lowest):  # the number of channels may change
            lowest, highest = np.minimum(low, lowest), np.maximum(high, highest)
        low, high = lowest, highest
        if (high - low).max() > SILENCE:
            return None
    return None if low is None else "silent"


def _of_video(source: Source, stream: int | None) -> Flaw | None:
    first = None
    count = 0
    for frame in _frames(source, stream, "video"):
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


def _frames(source: Source, stream: int | None, kind: str) -> Iterator[Frame]:
    """The frames of the clip, as far as times are told: of a piece of a long file from the key frame before it."""
    start, end = source.start or 0.0, source.end or math.inf
    first = None
    with opened(Path(source.path), stream, kind) as (container, found):
        if start:
            with suppress(av.FFmpegError):
                container.seek(int(start / found.time_base), stream=found)
        for frame in decoded(container, found):
            time = frame.time
            if time is not None:
                first = time if first is None else first
                if time >= end:
                    return
                limits.check("seconds", time - max(first, start), "the clip lasts {} s or more")
                if time < start:
                    continue
            yield frame


def _fields(frame: VideoFrame, half: str | None) -> np.ndarray:
    """The half of the picture averaged down, float32 [GRID, GRID or half of it, 3]."""
    small = opaque_frame(frame, WHITE).reformat(GRID, GRID, "rgb24", interpolation="AREA", threads=1).to_ndarray()
    if half:
        small = small[:, : GRID // 2] if half == "left" else small[:, GRID // 2 :]
    return small.astype(np.float32)
