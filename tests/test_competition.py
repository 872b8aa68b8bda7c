"""Competition strength: equal to the written-out formula, and right where the answer is known."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score

from agm.metrics.classification import classification_summary
from agm.metrics.competition import (
    PENALTIES,
    competition_strength,
    corrected,
    jackknife,
    residuals,
    strength,
)

pytestmark = pytest.mark.numerical


def clips(seed, count=400, features=20, classes=5):
    generator = np.random.default_rng(seed)
    return generator.normal(size=(count, features)), generator.normal(size=(count, classes))


def measure(fit, test, alpha=1e-6, confidence=0.95):
    return competition_strength(*fit, *test, alpha=alpha, confidence=confidence)


def direct(fit, test, alpha):
    """Ridge by its normal equations, d by its formula with explicit matrices."""
    z, y = fit
    centred = z - z.mean(axis=0)
    weights = np.linalg.solve(centred.T @ centred + alpha * np.eye(z.shape[1]), centred.T @ (y - y.mean(axis=0)))
    error = (test[0] - z.mean(axis=0)) @ weights + y.mean(axis=0) - test[1]
    spread = len(test[1]) * np.cov(test[1].T)
    return np.trace(error @ np.linalg.pinv(spread) @ error.T) / test[1].shape[1]


@pytest.mark.parametrize("alpha", [0.1, 120.0])
def test_equals_a_direct_computation(alpha):
    fit, test = clips(0), clips(1)
    assert measure(fit, test, alpha).published == pytest.approx(direct(fit, test, alpha), rel=1e-9)


def test_a_concept_that_is_linearly_present_has_no_competition():
    (z, _), (z_test, _) = clips(0), clips(1)
    mixing = np.random.default_rng(2).normal(size=(20, 5))
    found = measure((z, z @ mixing + 3), (z_test, z_test @ mixing + 3))
    assert found.d == pytest.approx(0, abs=1e-9)
    assert found.high == pytest.approx(0, abs=1e-9)
    assert found.rank == 5


def test_a_concept_that_is_absent_scores_about_one():
    found = measure(clips(0, count=4000), clips(1, count=4000))
    assert 0.98 < found.d < 1.05
    assert 0.95 < found.low < found.high < 1.05


def test_more_of_the_concept_means_less_competition():
    (z, noise), (z_test, noise_test) = clips(0), clips(1)
    mixing = np.random.default_rng(2).normal(size=(20, 5))
    found = [
        measure((z, z @ mixing + part * noise), (z_test, z_test @ mixing + part * noise_test)).d
        for part in (0.1, 1.0, 10.0, 100.0)
    ]
    assert found == sorted(found)
    assert found[0] < 0.01 < 0.9 < found[-1]


def test_a_singular_concept_reports_its_rank():
    fit, test = clips(0), clips(1)
    collapsed = [(z, np.c_[y[:, :3], y[:, :1] + y[:, 1:2], y[:, 2:3]]) for z, y in (fit, test)]
    assert measure(*collapsed).rank == 3


@pytest.mark.parametrize(("count", "classes"), [(400, 2), (400, 6), (50, 10), (5000, 3)])
def test_rounding_does_not_decide_the_rank(count, classes):
    """Probabilities add up to one, so one direction of them is constant, whatever the rounding of B makes of it."""
    for seed in range(100):
        logits = clips(seed, count=count, classes=classes)[1]
        outputs = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        assert strength(outputs, outputs)[1] == classes - 1


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 10_000), st.floats(-3, 3), st.floats(0.5, 20))
def test_shifting_and_scaling_the_concepts_outputs_changes_nothing(seed, shift, scale):
    """Whitening makes d a property of the directions, not of the units (where the ridge hardly penalises)."""
    fit, test = clips(seed, count=80), clips(seed + 1, count=80)
    moved = [(z, y * scale + shift) for z, y in (fit, test)]
    assert measure(*moved).d == pytest.approx(measure(fit, test).d, rel=1e-6)


def test_the_interval_repeats_and_narrows_with_more_clips():
    few, many = (measure(clips(0), clips(1, count=count)) for count in (100, 2000))
    assert few.low < few.d < few.high
    assert many.high - many.low < few.high - few.low
    assert few == measure(clips(0), clips(1, count=100))


def drawn(generator, clips, classes, r2, freedom):
    """Residuals and outputs of which d is known, 1 − r2: t of `freedom` degrees, normal for None; unequal spreads."""

    def sample():
        values = generator.normal(size=(clips, classes))
        if freedom is not None:
            values *= np.sqrt((freedom - 2) / generator.chisquare(freedom, size=(clips, 1)))
        return values * np.linspace(0.2, 1, classes)

    outputs = sample()
    return np.sqrt(r2 * (1 - r2)) * sample() - (1 - r2) * outputs, outputs


@pytest.mark.parametrize(
    ("clips", "classes", "freedom", "covered"),
    [
        (402, 28, None, 0.9),
        (100, 2, None, 0.88),
        (402, 28, 5, 0.85),
        (100, 2, 3, 0.85),
    ],
)
def test_the_interval_covers_the_truth_and_the_bias_is_gone(clips, classes, freedom, covered):
    """A percentile bootstrap covers it in no draw of the first case, where the plain formula is .018 too high."""
    draws, truth = 100, 0.32
    generator = np.random.default_rng(0)
    found, plain = [], []
    for _ in range(draws):
        residual, outputs = drawn(generator, clips, classes, 1 - truth, freedom)
        plain.append(strength(residual, outputs)[0])
        found.append(corrected(residual, outputs, plain[-1], confidence=0.95, generator=generator))
    d, low, high = np.array(found).T
    assert covered <= np.mean((low <= truth) & (truth <= high)) <= 0.99
    bias, before = d.mean() - truth, np.mean(plain) - truth
    error = d.std() / np.sqrt(draws)
    assert abs(bias) <= max(0.03 * truth, 3 * error)
    assert abs(bias) < before


@pytest.mark.parametrize("count", [50, 60, 100, 402])
def test_the_jackknife_equals_known_answers(count, monkeypatch):
    """The mean it leaves alone, with its textbook error; of the variance with the divisor N it makes the one with N − 1
    (Quenouille, 1956): exactly where each clip is a group."""
    sample = np.random.default_rng(count).normal(size=count)

    def jackknifed(statistic):
        monkeypatch.setattr("agm.metrics.competition.strength", lambda residual, outputs: (statistic(residual), 1))
        return jackknife(sample, sample, statistic(sample), np.random.default_rng(0))

    mean, error, groups = jackknifed(np.mean)
    assert (mean, groups) == (pytest.approx(sample.mean()), 50)
    assert error == pytest.approx(sample.std(ddof=1) / np.sqrt(count), rel=1e-9 if count == 50 else 0.3)
    assert jackknifed(np.var)[0] == pytest.approx(sample.var(ddof=1), rel=1e-9 if count == 50 else 0.01)


@pytest.mark.parametrize("count", [3, 7, 120])
def test_few_clips_have_finite_ends(count):
    fit, test = ((z, y[:, :2]) for z, y in (clips(0), clips(1, count=count)))
    found = measure(fit, test)
    assert 0 <= found.low <= found.d <= found.high < np.inf


def test_the_mean_predictor_scores_the_rank_over_the_classes():
    outputs = clips(3)[1]
    d, rank = strength(outputs.mean(axis=0) - outputs, outputs)
    assert (d, rank) == (pytest.approx((len(outputs) - 1) / len(outputs)), 5)


def test_residuals_are_of_the_test_clips():
    error, alpha = residuals(clips(0), clips(1, count=30), 1.0)
    assert error.shape == (30, 5) and alpha == 1.0


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([0.01, 0.1, 10.0]))
def test_a_chosen_penalty_makes_the_scale_of_the_features_irrelevant(seed, scale):
    (z, noise), (z_test, noise_test) = clips(seed, count=100), clips(seed + 1, count=100)
    mixing = np.random.default_rng(2).normal(size=(20, 5))
    pairs = [(z, z @ mixing + noise), (z_test, z_test @ mixing + noise_test)]
    scaled = [(scale * z, y) for z, y in pairs]
    found, moved = (measure(*each, alpha=None) for each in (pairs, scaled))
    assert moved.d == pytest.approx(found.d, rel=0.02), "but for the steps of the grid"
    assert measure(*scaled, alpha=120.0).d != pytest.approx(measure(*pairs, alpha=120.0).d, rel=0.02)


def test_a_chosen_penalty_is_the_one_that_predicts_clips_left_out_best():
    (z, noise), test = clips(0, count=30), clips(1)
    y = z[:, :5] + noise

    def left_out(alpha):
        kept = [np.arange(len(z)) != one for one in range(len(z))]
        errors = [residuals((z[rows], y[rows]), (z[~rows], y[~rows]), alpha)[0] for rows in kept]
        return (np.concatenate(errors) ** 2).sum()

    assert residuals((z, y), test, None)[1] == min(PENALTIES, key=left_out)


def test_a_chosen_penalty_keeps_the_known_answers():
    (z, noise), (z_test, noise_test) = clips(0, count=4000), clips(1, count=4000)
    present = measure((z, z[:, :5]), (z_test, z_test[:, :5]), alpha=None)
    absent = measure((z, noise), (z_test, noise_test), alpha=None)
    assert present.d == pytest.approx(0, abs=1e-9)
    assert 0.98 < absent.d < 1.05


def test_classification_summary_equals_a_count_by_hand():
    labels = np.array([0, 0, 1, 1, 1, 2])
    scores = np.eye(4)[[0, 1, 1, 1, 0, 3]]
    summary = classification_summary(scores, labels, ["a", "b", "c", "d"])
    assert summary["accuracy"] == pytest.approx(3 / 6)
    by_class = {row["class"]: row for row in summary["classes"]}
    assert by_class["a"] == {"class": "a", "clips": 2, "precision": 0.5, "recall": 0.5, "f1": 0.5}
    assert by_class["b"]["f1"] == pytest.approx(2 / 3)
    assert by_class["c"]["f1"] == by_class["d"]["f1"] == 0
    assert summary["macro_f1"] == pytest.approx((0.5 + 2 / 3) / 4)
    assert summary["weighted_f1"] == pytest.approx((2 * 0.5 + 3 * 2 / 3) / 6)
    assert summary["weighted_f1"] == pytest.approx(f1_score(labels, scores.argmax(axis=1), average="weighted"))
