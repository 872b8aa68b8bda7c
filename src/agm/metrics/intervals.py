"""What several seeds say together: a mean with its t interval, and a paired comparison with a baseline.

Seeds are few, so the normal approximation would promise too much: intervals over seeds are Student's t, by scipy.stats.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agm.extras import require

Array = NDArray[Any]

NOISE = 1e-12
"""Differences below this share of the values' size are rounding, not spread."""
DRAWS_AT_ONCE = 100_000
"""So many samples, about, are drawn at once: few calls for small test splits, little memory for large ones."""


@dataclass(frozen=True)
class Interval:
    """A mean over seeds.

    Attributes:
        mean: the mean, in the unit of the values.
        low: lower end of the confidence interval of the mean; None where one value gives none.
        high: its upper end.
        n: number of values.
    """

    mean: float
    low: float | None
    high: float | None
    n: int

    @property
    def half(self) -> float | None:
        """Half the width of the interval: what stands behind '±'."""
        return None if self.high is None else self.high - self.mean


@dataclass(frozen=True)
class Difference(Interval):
    """A mean of paired differences; `p` is the two-sided p-value of 'no difference'.

    `p` is None for a single pair, and where every pair differs by the same amount other than zero: without spread
    the t statistic is not defined, and scipy's limit of p = 0 would claim more than a handful of seeds can show.
    """

    p: float | None


def mean_interval(values: Sequence[float], confidence: float = 0.95) -> Interval:
    """Mean of independent values with its t interval.

    Raises:
        ValueError: for no values, or one that is not finite.
    """
    sample = _sample(values)
    low, high = _ends(sample, np.abs(sample).max(), confidence)
    return Interval(float(sample.mean()), low, high, len(sample))


def paired_difference(values: Sequence[float], baseline: Sequence[float], confidence: float = 0.95) -> Difference:
    """Mean of `values[i] - baseline[i]` with its t interval and the paired t-test's p-value.

    Raises:
        ValueError: for no values, one that is not finite, or sequences of different lengths.
    """
    sample, reference = _sample(values), _sample(baseline)
    if len(sample) != len(reference):
        raise ValueError(f"pairs need two values each, found {len(sample)} and {len(reference)}")
    differences = sample - reference
    size = max(np.abs(sample).max(), np.abs(reference).max())
    low, high = _ends(differences, size, confidence)
    p = _p_value(sample, reference, size)
    return Difference(float(differences.mean()), low, high, len(differences), p)


def bootstrap_share(right: Array, confidence: float = 0.95, resamples: int = 2000, seed: int = 0) -> Interval:
    """Share of right answers of several seeds on the same samples, with a percentile interval.

    Clips and seeds are both drawn anew in each resample, so the interval is there for a single seed too.

    Args:
        right: `[S, N]` bool, a row per seed.
    """
    generator = np.random.default_rng(seed)
    right = right.astype(np.float64)
    seeds, samples = right.shape
    block = max(1, DRAWS_AT_ONCE // samples)
    shares = []
    for first in range(0, resamples, block):
        size = min(block, resamples - first)
        # How often each sample is drawn says the same as which ones are, and is a product instead of a copy.
        often = _how_often(generator.integers(samples, size=(size, samples)))
        by_seed = often @ right.T
        drawn = generator.integers(seeds, size=(size, seeds))
        shares.append(np.take_along_axis(by_seed, drawn, axis=1).mean(axis=1) / samples)
    tail = (1 - confidence) / 2
    low, high = np.quantile(np.concatenate(shares), [tail, 1 - tail])
    return Interval(float(right.mean()), float(low), float(high), seeds)


def _how_often(drawn: Array) -> Array:
    """How often each of N samples is in each row of `drawn`, `[B, N]`."""
    rows, samples = drawn.shape
    # Every row counts in a range of its own.
    ranges = samples * np.arange(rows)[:, None]
    return np.bincount((drawn + ranges).ravel(), minlength=rows * samples).reshape(rows, samples)


def _sample(values: Sequence[float]) -> Array:
    sample = np.asarray(values, dtype=np.float64)
    if sample.ndim != 1 or not len(sample) or not np.isfinite(sample).all():
        raise ValueError(f"expected a list of finite numbers, found {values!r}")
    return sample


def _ends(sample: Array, size: float, confidence: float) -> tuple[float | None, float | None]:
    """Ends of the t interval; `size` is the magnitude that rounding is judged by."""
    if len(sample) == 1:
        return None, None
    if np.ptp(sample) <= NOISE * size:
        return float(sample.mean()), float(sample.mean())
    interval = require("scipy.stats", "metrics").ttest_1samp(sample, 0.0).confidence_interval(confidence)
    return float(interval.low), float(interval.high)


def _p_value(sample: Array, reference: Array, size: float) -> float | None:
    differences = sample - reference
    if len(sample) == 1:
        return None
    if np.abs(differences).max() <= NOISE * size:
        return 1.0
    if np.ptp(differences) <= NOISE * size:
        return None
    return float(require("scipy.stats", "metrics").ttest_rel(sample, reference).pvalue)
