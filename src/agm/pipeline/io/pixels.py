"""Turn decoded pictures into what people see: upright, opaque, and 8 bits a channel.

Every decoded picture, of an image file or of a video, passes through this module before it is scaled: scaling would mix
the hidden colours under transparent pixels into the visible ones.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from av.video.frame import VideoFrame
from PIL import ExifTags, Image
from PIL.TiffImagePlugin import BITSPERSAMPLE, PHOTOMETRIC_INTERPRETATION, SAMPLEFORMAT

from agm.pipeline.io.limits import Unusable

# EXIF's orientations; 1, and every other value that a file states, is upright.
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
UNSIGNED, SIGNED = 1, 2
"""TIFF's sample formats of integers."""
WHITE_IS_ZERO = 0
"""TIFF's photometric interpretation of pictures whose smallest value is white."""


@dataclass(frozen=True)
class Orientation:
    """How a stored picture becomes the shown one: it is transposed first, then mirrored."""

    transposed: bool = False
    left_to_right: bool = False
    upside_down: bool = False

    def apply(self, pixels: np.ndarray) -> np.ndarray:
        """Turn [height, width, channels] as stored into the same as shown."""
        if self.transposed:
            pixels = pixels.swapaxes(0, 1)
        if self.left_to_right:
            pixels = pixels[:, ::-1]
        if self.upside_down:
            pixels = pixels[::-1]
        return pixels


# The orientation after 0, 1, 2 and 3 quarters of a turn to the left.
PLACEMENTS = (
    Orientation(),
    Orientation(True, upside_down=True),
    Orientation(left_to_right=True, upside_down=True),
    Orientation(True, left_to_right=True),
)


def as_seen(image: Image.Image, background: Sequence[int], white: float | None = None) -> Image.Image:
    """The whole picture, upright, opaque and of 8 bits a channel, in one of Pillow's modes without transparency.

    Args:
        background: (red, green, blue), on which a picture with transparency is composited.
        white: of gray pictures with more than 8 bits, integers or floats, the value that becomes 255. None: the largest
            value that the file's type of integers can hold, and 1 for floats.

    Raises:
        Unusable: when a value is negative, not finite or greater than `white`, or when a picture that is not black
            would become black.
    """
    image.load()
    turn = _turn(image)
    picture = opaque(_eight_bits(image, white), background)
    return picture if turn is None else picture.transpose(turn)


def opaque(image: Image.Image, background: Sequence[int]) -> Image.Image:
    """The picture composited on `background`, (red, green, blue); one without transparency as it is."""
    if not image.has_transparency_data:
        return image
    key = image.info.get("transparency")
    if isinstance(key, tuple) and max(key) > 255:
        # The transparent colour of a PNG of 16 bits: Pillow keeps the upper 8 bits of its pixels, not of this colour.
        image.info["transparency"] = tuple(channel >> 8 for channel in key)
    ground = Image.new("RGBA", image.size, (*background, 255))
    return Image.alpha_composite(ground, image.convert("RGBA")).convert("RGB")


def is_transparent(frame: VideoFrame) -> bool:
    """Whether some pixels of a video's frame may be transparent."""
    return frame.format.has_palette or any(component.is_alpha for component in frame.format.components)


def opaque_frame(frame: VideoFrame, background: Sequence[int]) -> VideoFrame:
    """A frame of a video composited on `background`, in RGB; a frame without transparency as it is."""
    if not is_transparent(frame):
        return frame
    image = Image.fromarray(frame.to_ndarray(format="rgba"))
    return VideoFrame.from_ndarray(np.asarray(opaque(image, background)), "rgb24")


def orientation(frame: VideoFrame) -> Orientation:
    """The one of the eight orientations that is nearest to the frame's display matrix.

    The matrix [[a, b], [c, d]] shows a stored point (x, y) at (a·x + c·y, b·x + d·y). FFmpeg's angle does not describe
    it: a mirrored picture has an angle too.
    """
    try:
        matrix = frame.side_data.get("DISPLAYMATRIX")
    except ValueError:
        # PyAV does not know the name of some other side data of the frame (EXIF, for example), and then returns none.
        return PLACEMENTS[round(frame.rotation / 90) % 4]
    if matrix is None:
        return Orientation()
    # The matrix has three columns; the third is for perspective.
    a, b, _, c, d = np.frombuffer(matrix, np.int32)[:5].tolist()
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return Orientation(False, left_to_right=a < 0, upside_down=d < 0)
    return Orientation(True, left_to_right=c < 0, upside_down=b < 0)


def half_of(pixels: np.ndarray, half: str | None) -> np.ndarray:
    """The "left" or "right" half of a shown picture [height, width, channels]; all of it for None."""
    if half is None:
        return pixels
    middle = pixels.shape[1] // 2
    return pixels[:, :middle] if half == "left" else pixels[:, middle:]


def _turn(image: Image.Image) -> Image.Transpose | None:
    """The turn that the camera wrote for the loaded picture; None where the picture is upright.

    Pillow's own function writes the other entries of EXIF anew, and fails where one of them is damaged. Pillow turns
    TIFF files itself when it loads them.
    """
    try:
        stated = image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # the parser fails in many ways on damaged EXIF, without which the picture can be read
        return None
    return TURNS.get(stated) if isinstance(stated, int) else None


def _eight_bits(image: Image.Image, white: float | None) -> Image.Image:
    """A gray picture of more than 8 bits scaled to 8 bits; others as they are."""
    if not image.mode.startswith(("I", "F")):
        return image
    values, largest = _stored(image)
    if not np.isfinite(values).all():
        raise Unusable("the picture holds a value that is not finite")
    low, high = values.min(), values.max()
    white = white or largest
    # A picture whose largest value is below one step of 8 bits would become black.
    if low < 0 or high > white or 0 < high < white / 255:
        raise Unusable(
            f"the values of the picture are between {low:g} and {high:g}, where 0 is black and {white:g} is white: "
            "set `white` of its features to the value of white"
        )
    if getattr(image, "tag_v2", {}).get(PHOTOMETRIC_INTERPRETATION) == WHITE_IS_ZERO:
        values = white - values
    gray = Image.fromarray((values * (255 / white)).round().astype(np.uint8))
    key = image.info.get("transparency")  # the transparent value of a PNG
    if key is None:
        return gray
    alpha = np.where(values == key, 0, 255).astype(np.uint8)
    return Image.merge("LA", (gray, Image.fromarray(alpha)))


def _stored(image: Image.Image) -> tuple[np.ndarray, float]:
    """The values [height, width] of the file as float64, and the largest value that their type can hold."""
    values = np.asarray(image)
    if image.mode.startswith("F"):
        return values.astype(np.float64), 1.0
    if image.format != "TIFF":  # PNG, and PPM, which Pillow scales to 16 bits
        return values.astype(np.float64), 65535.0
    bits = image.tag_v2.get(BITSPERSAMPLE, (1,))[0]
    signed = image.tag_v2.get(SAMPLEFORMAT, (UNSIGNED,))[0] == SIGNED
    if bits == 32 and not signed:
        values = values.view(np.uint32)  # Pillow reads them as signed ones
    return values.astype(np.float64), 2.0 ** (bits - signed) - 1
