"""Turn arrays [steps, …] that another program made, one in each file (.npy) or many in one (`agm.pipeline.io.packed`),
into float32 [steps, *shape].

Steps beyond the last one are zeros: padding, which the statistics leave out and normalisation leaves at zero. Some
programs pad before the first step: `padding: front` removes those zeros.
"""

from pathlib import Path

import numpy as np

from agm.pipeline.config.schema import SequenceFeatures
from agm.pipeline.io import limits, packed
from agm.pipeline.io.media import Unusable, opened_array
from agm.pipeline.io.source import Source
from agm.pipeline.io.tensors import Feature


def feature(settings: SequenceFeatures) -> Feature:
    """The form of what `load` returns."""
    return Feature("sequence", "float32", (settings.steps, *settings.shape))


def load(source: Source, settings: SequenceFeatures) -> np.ndarray:
    """The first steps of the array, filled up with zeros at the end.

    Raises:
        Unusable: when the file is no array of numbers, its steps have another shape, or a number is not finite.
    """
    array = opened_array(Path(source.path)) if source.member is None else packed.opened(source)
    limits.check("numbers", array.size, "the array has {} numbers")
    if array.shape[1:] != tuple(settings.shape):
        raise Unusable(
            f"each step of the array has the shape {list(array.shape[1:])}, and {settings.shape} is expected"
        )
    if settings.padding == "front":
        array = array[_padding(array) :]
    with np.errstate(over="ignore"):  # a float64 too large for float32 becomes infinite, and is refused below
        tensor = filled(array[: settings.steps], settings.steps)
    finite = np.isfinite(tensor)
    if not finite.all():
        step = int(np.argwhere(~finite)[0, 0])
        raise Unusable(f"the array holds a number that is not finite, or too large for float32, in step {step}")
    return tensor


def filled(array: np.ndarray, steps: int) -> np.ndarray:
    """An array [n, …] of at most `steps` with zeros at its end: float32 [steps, …]."""
    tensor = np.zeros((steps, *array.shape[1:]), np.float32)
    tensor[: len(array)] = array
    return tensor


def _padding(array: np.ndarray) -> int:
    """The number of steps before the first one that is not all zeros; the number of all steps where all are zeros."""
    holds_values = array.reshape(len(array), -1).any(axis=1)
    if not holds_values.any():
        return len(array)
    return int(holds_values.argmax())
