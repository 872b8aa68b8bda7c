"""Pictures as people see them: upright, opaque, and 8 bits a channel.

Whoever decodes a picture, of an image file or of a video, brings it here before anything is scaled: the hidden colours
under transparent pixels must not bleed into what is visible.
"""

from collections.abc import Sequence

import numpy as np
from av.video.frame import VideoFrame
from PIL import ExifTags, Image
from PIL.TiffImagePlugin import BITSPERSAMPLE, PHOTOMETRIC_INTERPRETATION, SAMPLEFORMAT

from agm.limits import Unusable

# EXIF's orientations; 1, and whatever else a file says, is upright.
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
        # The transparent colour of a PNG of 16 bits, of whose pixels Pillow has kept the upper 8.
        image.info["transparency"] = tuple(each >> 8 for each in key)
    ground = Image.new("RGBA", image.size, (*background, 255))
    return Image.alpha_composite(ground, image.convert("RGBA")).convert("RGB")


def opaque_frame(frame: VideoFrame, background: Sequence[int]) -> VideoFrame:
    """A frame of a video composited on `background`, in RGB; a frame without transparency as it is."""
    transparent = frame.format.has_palette or any(each.is_alpha for each in frame.format.components)
    if not transparent:
        return frame
    image = Image.fromarray(frame.to_ndarray(format="rgba"))
    return VideoFrame.from_ndarray(np.asarray(opaque(image, background)), "rgb24")


def _turn(image: Image.Image) -> Image.Transpose | None:
    """How the camera says that the loaded picture is to be turned.

    Pillow's own function for it writes the other entries of EXIF anew, and fails where one of them is damaged. TIFF
    files it turns itself when it loads them.
    """
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # the parser fails in many ways on damaged EXIF, without which the picture can be read
        return None
    return TURNS.get(orientation) if isinstance(orientation, int) else None


def _eight_bits(image: Image.Image, white: float | None) -> Image.Image:
    if not image.mode.startswith(("I", "F")):
        return image
    values, largest = _stored(image)
    if not np.isfinite(values).all():
        raise Unusable("the picture holds a value that is not finite")
    low, high = values.min(), values.max()
    white = white or largest
    if low < 0 or high > white or 0 < high < white / 255:
        raise Unusable(
            f"the values of the picture are between {low:g} and {high:g}, where 0 is black and {white:g} is white: "
            "set `white` of its features to the value of white"
        )
    if getattr(image, "tag_v2", {}).get(PHOTOMETRIC_INTERPRETATION) == WHITE_IS_ZERO:
        values = white - values
    gray = Image.fromarray((values * (255 / white)).round().astype(np.uint8))
    key = image.info.get("transparency")  # the value that is transparent, of a PNG
    if key is None:
        return gray
    alpha = np.where(values == key, 0, 255).astype(np.uint8)
    return Image.merge("LA", (gray, Image.fromarray(alpha)))


def _stored(image: Image.Image) -> tuple[np.ndarray, float]:
    """The values [height, width] as the file has them, float64, and the largest one that its type can hold."""
    values = np.asarray(image)
    if image.mode.startswith("F"):
        return values.astype(np.float64), 1.0
    if image.format != "TIFF":  # PNG and PPM; Pillow scales the latter to 16 bits
        return values.astype(np.float64), 65535.0
    bits = image.tag_v2.get(BITSPERSAMPLE, (1,))[0]
    signed = image.tag_v2.get(SAMPLEFORMAT, (UNSIGNED,))[0] == SIGNED
    if bits == 32 and not signed:
        values = values.view(np.uint32)  # Pillow reads them as signed ones
    return values.astype(np.float64), 2.0 ** (bits - signed) - 1
