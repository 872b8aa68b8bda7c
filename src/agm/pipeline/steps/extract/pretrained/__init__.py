"""Networks trained by others: what they make of clips is a feature like any other."""

from collections.abc import Callable

import numpy as np

Finish = Callable[[list[np.ndarray]], list[np.ndarray]]
"""What makes the tensors of a batch of clips of what was loaded of each."""
