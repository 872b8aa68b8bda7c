"""Mean and standard deviation per channel of a stream of tensors, in float64 and one pass (Chan's update)."""

import numpy as np

from agm.pipeline.io.tensors import Feature


class Moments:
    """Accumulate the moments of one feature's values, tensor by tensor.

    The channels are the second axis of a video [frames, channels, …], the first axis of sound and images, and the last
    axis of a sequence [steps, …, channels]. The steps of a sequence that are all zeros are padding and do not count.
    """

    def __init__(self, feature: Feature) -> None:
        self._axis = {"video": 1, "sequence": -1}.get(feature.kind, 0)
        self._padded = feature.kind == "sequence"
        channels = feature.shape[self._axis]
        self._count = 0
        self._mean = np.zeros(channels)
        self._squares = np.zeros(channels)
        self._lowest = np.full(channels, np.inf)
        self._highest = np.full(channels, -np.inf)

    def add(self, tensor: np.ndarray) -> None:
        """Add one clip's tensor [*shape]."""
        if self._padded:
            holds_values = tensor.reshape(len(tensor), -1).any(axis=1)
            tensor = tensor[holds_values]
        stored = np.moveaxis(tensor, self._axis, 0).reshape(len(self._mean), -1)
        count = stored.shape[1]
        if count == 0:
            return
        # The stored type is narrower than float64 and quicker to compare.
        self._lowest = np.minimum(self._lowest, stored.min(axis=1))
        self._highest = np.maximum(self._highest, stored.max(axis=1))
        # Chan's update: the moments of this tensor, then those of both parts together.
        values = stored.astype(np.float64)
        mean = values.mean(axis=1)
        values -= mean[:, None]
        squares = np.einsum("cv,cv->c", values, values)
        total = self._count + count
        shift = mean - self._mean
        self._mean += shift * (count / total)
        self._squares += squares + shift**2 * (self._count * count / total)
        self._count = total

    @property
    def mean(self) -> tuple[float, ...]:
        """Mean of every channel."""
        return tuple(self._mean.tolist())

    @property
    def std(self) -> tuple[float, ...]:
        """Standard deviation of every channel, 0 where it is constant."""
        deviation = np.sqrt(self._squares / max(1, self._count))
        # The mean of equal values may differ from them in its last bit. The extremes show exactly what is constant.
        return tuple(np.where(self._lowest < self._highest, deviation, 0.0).tolist())
