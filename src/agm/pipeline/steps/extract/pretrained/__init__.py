"""Networks that others trained: their outputs are features like any other."""

from collections.abc import Callable

import numpy as np

Finish = Callable[[list[np.ndarray]], list[np.ndarray]]
"""Makes the tensors of a batch of clips from what was loaded of each clip."""
