"""Turn one frame of a video into what a person sees: upright, mirrored and stretched as the file states."""

from collections.abc import Sequence
from fractions import Fraction

import numpy as np
from av.video.frame import VideoFrame

from agm.pipeline.io import limits
from agm.pipeline.io.pixels import half_of, opaque_frame, orientation

# No format has pixels that are further from square; a header that states more is damaged.
WIDEST_PIXEL = 4


def picture(
    frame: VideoFrame, aspect: Fraction, half: str | None, size: int, channels: int, background: Sequence[int]
) -> np.ndarray:
    """Take one half, or all, of the shown picture, scale its short side to `size` and crop the centre: uint8
    [channels, size, size].

    Args:
        aspect: width of a stored pixel whose height is 1.
        background: (red, green, blue), on which a picture with transparency is composited.

    Raises:
        Unusable: when the picture is larger than the limit, or becomes so.
    """
    placed = orientation(frame)
    # First the size as shown, then the size of that after scaling.
    width, height = round(frame.width * aspect), frame.height
    if placed.transposed:
        width, height = height, width
    parts = 2 if half else 1
    width //= parts
    limits.check_picture(width, height, "video", size)
    short = min(width, height)
    width = max(size, round(width * size / short)) * parts
    height = max(size, round(height * size / short))
    # FFmpeg scales the frame as it is stored.
    if placed.transposed:
        width, height = height, width
    scaled = opaque_frame(frame, background).reformat(
        width=width,
        height=height,
        format="rgb24" if channels == 3 else "gray",
        interpolation="AREA" if size < short else "BICUBIC",
        threads=1,
    )
    pixels = scaled.to_ndarray()
    pixels = half_of(placed.apply(pixels.reshape(*pixels.shape[:2], channels)), half)
    top, left = (pixels.shape[0] - size) // 2, (pixels.shape[1] - size) // 2
    return np.moveaxis(pixels[top : top + size, left : left + size], 2, 0)


def whole(frame: VideoFrame, aspect: Fraction, half: str | None, background: Sequence[int]) -> np.ndarray:
    """One half, or all, of the shown picture, its height in full size: uint8 [3, height, width].

    Args:
        aspect: width of a stored pixel whose height is 1.
        background: (red, green, blue), on which a picture with transparency is composited.

    Raises:
        Unusable: when the picture is larger than the limit.
    """
    width = round(frame.width * aspect)
    limits.check_picture(width, frame.height, "video")
    pixels = opaque_frame(frame, background).to_ndarray(format="rgb24", width=width, interpolation="BICUBIC", threads=1)
    return np.moveaxis(half_of(orientation(frame).apply(pixels), half), 2, 0)


def pixel_aspect(stated: Fraction | None) -> Fraction:
    """Width of a pixel whose height is 1, from what a file states; 1 where that is missing or impossible."""
    if not stated or max(stated, 1 / stated) > WIDEST_PIXEL:
        return Fraction(1)
    return stated
