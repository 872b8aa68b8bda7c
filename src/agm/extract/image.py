"""Images to uint8 [channels, size, size]."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from agm.config.schema import ImageFeatures
from agm.media import Unusable, opened_image
from agm.source import Source
from agm.tensors import Feature


def feature(settings: ImageFeatures) -> Feature:
    """What `load` returns."""
    return Feature("image", "uint8", (settings.channels, settings.size, settings.size))


def load(source: Source, settings: ImageFeatures) -> np.ndarray:
    """Decode, turn upright, scale the short side and crop the centre.

    Raises:
        Unusable: when the file is no image, is damaged or too large.
    """
    picture = upright(source, "RGB" if settings.channels == 3 else "L")
    square = ImageOps.fit(picture, (settings.size, settings.size), Image.Resampling.BICUBIC)
    pixels = np.asarray(square, np.uint8).reshape(settings.size, settings.size, settings.channels)
    return np.moveaxis(pixels, 2, 0)


def upright(source: Source, mode: str) -> Image.Image:
    """The whole picture in Pillow's `mode`, turned as the camera says.

    Raises:
        Unusable: when the file is no image, is damaged or too large.
    """
    try:
        with opened_image(Path(source.path)) as image:
            return _eight_bits(ImageOps.exif_transpose(image)).convert(mode)
    except (OSError, SyntaxError, ValueError) as error:
        raise Unusable(f"the image cannot be decoded: {error}") from None


def _eight_bits(image: Image.Image) -> Image.Image:
    """Keep the upper half of 16-bit gray values, which Pillow's own conversion would cut off at 255."""
    if not image.mode.startswith("I"):
        return image
    return Image.fromarray((np.asarray(image, np.int32) >> 8).clip(0, 255).astype(np.uint8))
