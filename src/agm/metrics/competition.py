"""Competition strength: how much of what a modality can do alone the joint model has lost (Li et al., ICCV 2023,
section 3.3).

The outputs Y of the mono-modal concept are compared with what the joint model's fused feature Z linearly expresses:

    ridge(alpha) from Z to Y, fitted on clips that are not the test's (here: validation)
    on the test split: E = ridge(Z) − Y,  B = N · cov(Y),  d = tr(E B⁺ Eᵀ) / C

The paper's alpha is 120. It acts on Z as it is, so what it means depends on how widely Z is spread: features of a
small network it shrinks away, and d rises with no competition behind it. Without an alpha it is chosen among
`PENALTIES` by the leave-one-out error on the clips of the fit, which does not depend on that.

d is about 1 − R² over whitened outputs: 0, the concept is intact inside the joint model (no competition); about 1, no
better than the mean; more than 1 is possible.
"""

from dataclasses import dataclass

import numpy as np
from sklearn.linear_model import Ridge, RidgeCV

Array = np.ndarray

PENALTIES = np.logspace(-6, 6, 25)


@dataclass(frozen=True)
class Competition:
    """d, its bootstrap interval over test clips, and the rank of B: below C, a near-singular Y, d must be read with
    care (its value for 'no better than the mean' is rank / C). `alpha` is the ridge's penalty, given or chosen."""

    d: float
    low: float
    high: float
    rank: int
    alpha: float


def competition_strength(
    fit: tuple[Array, Array],
    test: tuple[Array, Array],
    *,
    alpha: float | None,
    resamples: int,
    confidence: float,
    seed: int = 0,
) -> Competition:
    """d with its interval.

    Args:
        fit: fused features `[N, D]` and the concept's outputs `[N, C]` of the clips to fit the ridge on.
        test: the same of the test clips.
        alpha: the ridge's penalty; None chooses it by leave-one-out error on `fit`.
        resamples: bootstrap resamples of the test clips.
        confidence: coverage of the percentile interval.
    """
    residual, alpha = residuals(fit, test, alpha)
    outputs = np.asarray(test[1], dtype=np.float64)
    d, rank = strength(residual, outputs)
    generator = np.random.default_rng(seed)
    draws = generator.integers(len(outputs), size=(resamples, len(outputs)))
    resampled = [strength(residual[draw], outputs[draw])[0] for draw in draws]
    tail = (1 - confidence) / 2
    low, high = np.quantile(resampled, [tail, 1 - tail])
    return Competition(d, float(low), float(high), rank, alpha)


def residuals(fit: tuple[Array, Array], test: tuple[Array, Array], alpha: float | None) -> tuple[Array, float]:
    """E = ridge(Z) − Y on the test clips, `[N, C]` float64, and the penalty of that ridge."""
    ridge = RidgeCV(PENALTIES) if alpha is None else Ridge(alpha)
    ridge.fit(*(each.astype(np.float64) for each in fit))
    return ridge.predict(test[0].astype(np.float64)) - test[1], float(ridge.alpha_ if alpha is None else alpha)


def strength(residual: Array, outputs: Array) -> tuple[float, int]:
    """d = tr(E B⁺ Eᵀ) / C and the rank of B = N · cov(Y), from `[N, C]` residuals and outputs."""
    clips, classes = outputs.shape
    scatter = clips * np.cov(outputs, rowvar=False).reshape(classes, classes)
    # One tolerance for both, so that the rank reported is the rank used. An entry of B is a sum over the clips, and
    # rounding grows with them: `classes` in place of `clips` takes a constant direction for a real one now and then.
    tolerance = max(clips, classes) * np.finfo(np.float64).eps
    values, vectors = np.linalg.eigh(scatter)
    kept = values > tolerance * max(values.max(), 0.0)
    whitened = residual @ vectors[:, kept] / np.sqrt(values[kept])
    return float((whitened**2).sum() / classes), int(kept.sum())
