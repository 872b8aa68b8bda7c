"""Turn arrays of one shape that another program made into float32 [channels, height, width], to be read like images."""

import math
from pathlib import Path

import numpy as np

from agm.pipeline.config.schema import ArrayFeatures
from agm.pipeline.io import limits, packed
from agm.pipeline.io.media import Unusable, opened_array
from agm.pipeline.io.source import Source
from agm.pipeline.io.tensors import Feature


def feature(settings: ArrayFeatures) -> Feature:
    """The form of what `load` returns."""
    return Feature("image", "float32", tuple(settings.shape))


def load(source: Source, settings: ArrayFeatures) -> np.ndarray:
    """The array, or the clip's part of a file of many, in the requested shape and divided by `scale`.

    Raises:
        Unusable: when the array has another number of numbers, or a number is not finite.
    """
    array = opened_array(Path(source.path)) if source.member is None else packed.opened(source)
    limits.check("numbers", array.size, "the array has {} numbers")
    if array.size != math.prod(settings.shape):
        raise Unusable(f"the array has the shape {list(array.shape)}, and {settings.shape} is expected")
    with np.errstate(over="ignore"):  # a float64 too large for float32 becomes infinite, and is refused below
        tensor = (array / settings.scale).astype(np.float32).reshape(settings.shape)
    if not np.isfinite(tensor).all():
        raise Unusable("the array holds a number that is not finite, or too large for float32")
    return tensor
