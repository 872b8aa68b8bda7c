"""Arrays that another program made, [steps, …], one to a file (.npy) or many (`agm.pipeline.io.packed`), to float32
[steps, *shape].

What is beyond the last step is zeros: padding, which the statistics leave out and normalisation leaves at zero. Other
programs pad before the first step: `padding: front` leaves those zeros out.
"""

from pathlib import Path

import numpy as np

from agm.pipeline.config.schema import SequenceFeatures
from agm.pipeline.io import limits, packed
from agm.pipeline.io.media import Unusable, opened_array
from agm.pipeline.io.source import Source
from agm.pipeline.io.tensors import Feature


def feature(settings: SequenceFeatures) -> Feature:
    """What `load` returns."""
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
    with np.errstate(over="ignore"):  # a float64 too large for float32 becomes infinite, and is told below
        found = filled(array[: settings.steps], settings.steps)
    if not np.isfinite(found).all():
        step = int(np.argwhere(~np.isfinite(found))[0, 0])
        raise Unusable(f"the array holds a number that is not finite, or too large for float32, in step {step}")
    return found


def filled(array: np.ndarray, steps: int) -> np.ndarray:
    """[n, …] of at most `steps` with zeros at its end: float32 [steps, …]."""
    found = np.zeros((steps, *array.shape[1:]), np.float32)
    found[: len(array)] = array
    return found


def _padding(array: np.ndarray) -> int:
    """The number of steps before the first one that is not all zeros; all of them where there is none."""
    filled = array.reshape(len(array), -1).any(axis=1)
    return int(filled.argmax()) if filled.any() else len(array)
