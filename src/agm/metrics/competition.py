"""Competition strength: how much of what a modality can do alone the joint model has lost (Li et al., ICCV 2023,
section 3.3).

The outputs Y of the mono-modal concept are compared with what the joint model's fused feature Z linearly expresses:

    ridge(alpha) from Z to Y, fitted on samples that are not the test's (here: validation)
    on the test split: E = ridge(Z) − Y,  B = N · cov(Y),  d = tr(E B⁺ Eᵀ) / C

The paper's alpha is 120. It acts on Z as it is, so what it means depends on how widely Z is spread: features of a
small network it shrinks away, and d rises with no competition behind it. Without an alpha it is chosen among
`PENALTIES` by the leave-one-out error on the samples of the fit, which does not depend on that.

d is about 1 − R² over whitened outputs: 0, the concept is intact inside the joint model (no competition); about 1, no
better than the mean; more than 1 is possible.

Where B is estimated from N samples, d lies above its value for many: by about (C + 1) / N of it, more with heavy tails.
A bootstrap adds the same bias once more, and its percentile interval lies above the truth (Li et al. give none). The
jackknife takes the bias away and gives an interval (Busing et al., 'Delete-m jackknife for unequal m', Statistics and
Computing 1999): with d₋g the value without group g of G, and w_g the group's share of the samples,

    p_g = (d − (1 − w_g) d₋g) / w_g        corrected d = Σ_g w_g p_g
    variance = 1/G Σ_g w_g / (1 − w_g) (p_g − corrected d)²        and the interval is t of G − 1 degrees of freedom

In simulations, from 10 samples for each class on, the interval of 95 % covers the truth in .92 to 1 of draws of normal
outputs (.88 to 1 with t tails of 5 and 3 degrees of freedom). Of d = .32 the formula makes .337 for C = 28, N = 402,
and .355 and .421 with those tails; corrected it is .319, .319 and .349. With fewer samples d comes out too low and the
interval too narrow: .28 for C = 28, N = 100, covering .5.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agm.extras import require

Array = NDArray[Any]

PENALTIES = np.logspace(-6, 6, 25)
CLIPS_NEEDED = {"val": 2, "test": 3}
"""To fit on and to test on: the ridge's penalty is judged by a sample that is left out, and without one of the test
samples there must be two, to have a covariance."""
GROUPS = 50
"""Of test samples, each left out once."""


@dataclass(frozen=True)
class Competition:
    """The competition strength of one modality.

    Attributes:
        d: corrected for its bias; at least 0.
        low: lower end of its interval over test samples, at least 0.
        high: upper end.
        published: d by the paper's formula.
        rank: of B. Below C, a near-singular Y, d must be read with care: for 'no better than the mean' it is rank / C.
        alpha: the ridge's penalty, given or chosen.
    """

    d: float
    low: float
    high: float
    published: float
    rank: int
    alpha: float


def too_few_clips(clips: dict[str, int]) -> str | None:
    """Why so many clips by split have no d; None where they have."""
    short = [split for split, needed in CLIPS_NEEDED.items() if clips[split] < needed]
    return f"too few clips: d needs {CLIPS_NEEDED[short[0]]} of {short[0]}, at least" if short else None


def competition_strength(
    z_fit: Any,
    y_fit: Any,
    z_test: Any,
    y_test: Any,
    *,
    alpha: float | None = 120.0,
    confidence: float = 0.95,
    seed: int = 0,
) -> Competition:
    """d with its interval. Needs scikit-learn and SciPy: the extra `metrics`.

    Args:
        z_fit: fused features of the joint model, `[N, D]`, of the samples to fit the ridge on: neither of training nor
            of the test. Arrays of NumPy, or tensors on the CPU.
        y_fit: outputs of the mono-modal concept for the same samples, `[N, C]`.
        z_test: fused features of the test samples, `[K, D]`.
        y_test: the concept's outputs for them, `[K, C]`. Of both splits at least `CLIPS_NEEDED`.
        alpha: the ridge's penalty, the paper's by default; None chooses it by leave-one-out error on the first split.
        confidence: coverage of the interval.
        seed: of the groups that the jackknife leaves out.

    Raises:
        ValueError: when shapes do not fit together, or a split has too few samples.
        MissingExtra: when scikit-learn or SciPy is not installed.
    """
    fit, test = _pair(z_fit, y_fit), _pair(z_test, y_test)
    if fit[0].shape[1] != test[0].shape[1] or fit[1].shape[1] != test[1].shape[1]:
        raise ValueError(
            f"expected as many columns in both splits, found {fit[0].shape} and {fit[1].shape} to fit on, "
            f"{test[0].shape} and {test[1].shape} to test on"
        )
    if short := too_few_clips({"val": len(fit[0]), "test": len(test[0])}):
        raise ValueError(short)
    residual, alpha = residuals(fit, test, alpha)
    outputs = np.asarray(test[1], dtype=np.float64)
    published, rank = strength(residual, outputs)
    generator = np.random.default_rng(seed)
    d, low, high = corrected(residual, outputs, published, confidence=confidence, generator=generator)
    return Competition(d, low, high, published, rank, alpha)


def _pair(features: Any, outputs: Any) -> tuple[Array, Array]:
    """Features `[N, D]` and outputs `[N, C]` as arrays.

    Raises:
        ValueError: when they are not.
    """
    z, y = np.asarray(features), np.asarray(outputs)
    if z.ndim != 2 or y.ndim != 2 or len(z) != len(y):
        raise ValueError(f"expected features [N, D] and outputs [N, C], found {z.shape} and {y.shape}")
    return z, y


def corrected(
    residual: Array, outputs: Array, published: float, *, confidence: float, generator: np.random.Generator
) -> tuple[float, float, float]:
    """d corrected for its bias, and the ends of its interval; like what they estimate, never negative."""
    d, error, groups = jackknife(residual, outputs, published, generator)
    half = error * require("scipy.stats", "metrics").t.ppf((1 + confidence) / 2, groups - 1)
    d, low, high = (max(float(value), 0.0) for value in (d, d - half, d + half))
    return d, low, high


def jackknife(
    residual: Array, outputs: Array, published: float, generator: np.random.Generator
) -> tuple[float, float, int]:
    """d corrected for its bias, its standard error, and the number of groups of samples."""
    samples = len(outputs)
    groups = np.array_split(generator.permutation(samples), min(GROUPS, samples))
    shares = np.array([len(group) for group in groups]) / samples
    without = [strength(np.delete(residual, group, axis=0), np.delete(outputs, group, axis=0))[0] for group in groups]
    values = (published - (1 - shares) * without) / shares
    corrected = shares @ values
    variance = np.mean(shares / (1 - shares) * (values - corrected) ** 2)
    return float(corrected), float(np.sqrt(variance)), len(groups)


def residuals(fit: tuple[Array, Array], test: tuple[Array, Array], alpha: float | None) -> tuple[Array, float]:
    """E = ridge(Z) − Y on the test samples, `[N, C]` float64, and the penalty of that ridge."""
    linear_model = require("sklearn.linear_model", "metrics")
    ridge = linear_model.RidgeCV(PENALTIES) if alpha is None else linear_model.Ridge(alpha)
    ridge.fit(fit[0].astype(np.float64), fit[1].astype(np.float64))
    residual = ridge.predict(test[0].astype(np.float64)) - test[1]
    return residual, float(ridge.alpha_ if alpha is None else alpha)


def strength(residual: Array, outputs: Array) -> tuple[float, int]:
    """d = tr(E B⁺ Eᵀ) / C and the rank of B = N · cov(Y), from `[N, C]` residuals and outputs."""
    samples, classes = outputs.shape
    scatter = samples * np.cov(outputs, rowvar=False).reshape(classes, classes)
    # One tolerance for both, so that the rank reported is the rank used. An entry of B is a sum over the samples, and
    # rounding grows with them: `classes` in place of `samples` takes a constant direction for a real one now and then.
    tolerance = max(samples, classes) * np.finfo(np.float64).eps
    values, vectors = np.linalg.eigh(scatter)
    kept = values > tolerance * max(values.max(), 0.0)
    whitened = residual @ vectors[:, kept] / np.sqrt(values[kept])
    return float((whitened**2).sum() / classes), int(kept.sum())
