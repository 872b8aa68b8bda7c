"""Turn images into uint8 [channels, size, size]."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from agm.pipeline.config.schema import ImageFeatures
from agm.pipeline.io import pixels
from agm.pipeline.io.media import Unusable, opened_image
from agm.pipeline.io.source import Source
from agm.pipeline.io.tensors import Feature


def feature(settings: ImageFeatures) -> Feature:
    """The form of what `load` returns."""
    return Feature("image", "uint8", (settings.channels, settings.size, settings.size))


def load(source: Source, settings: ImageFeatures) -> np.ndarray:
    """Decode, turn upright, put on the background, scale the short side and crop the centre.

    Raises:
        Unusable: when the file is no image, is damaged or too large, or its values are out of range.
    """
    picture = whole(source, settings).convert("RGB" if settings.channels == 3 else "L")
    square = ImageOps.fit(picture, (settings.size, settings.size), Image.Resampling.BICUBIC)
    values = np.asarray(square, np.uint8).reshape(settings.size, settings.size, settings.channels)
    return np.moveaxis(values, 2, 0)


def whole(source: Source, settings: ImageFeatures) -> Image.Image:
    """The picture in its full size, upright, opaque and with 8 bits a channel, in one of Pillow's modes.

    Raises:
        Unusable: when the file is no image, is damaged or too large, or its values are out of range.
    """
    try:
        with opened_image(Path(source.path)) as image:
            return pixels.as_seen(image, settings.background, settings.white)
    except (OSError, SyntaxError, ValueError) as error:
        raise Unusable(f"the image cannot be decoded: {error}") from None
