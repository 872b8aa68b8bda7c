"""Means and paired comparisons over seeds, against textbook numbers, scipy's other functions and invariants."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from agm.metrics.intervals import mean_interval, paired_difference

pytestmark = pytest.mark.numerical

# Numbers of the size that metrics have, on a grid on which spread is never lost in rounding.
VALUES = st.integers(-2000, 2000).map(lambda thousandths: thousandths / 1000)
SAMPLES = st.lists(VALUES, min_size=2, max_size=12)
PAIRS = st.lists(st.tuples(VALUES, VALUES), min_size=2, max_size=12).map(lambda pairs: tuple(zip(*pairs, strict=True)))


def test_interval_of_three_values_is_the_textbook_one() -> None:
    # Mean 2, standard deviation 1, t(0.975, 2) = 4.302653: half = 4.302653 / √3.
    found = mean_interval([1.0, 2.0, 3.0])
    assert found.mean == 2.0
    assert found.half == pytest.approx(4.302653 / math.sqrt(3), abs=1e-6)
    assert (found.low, found.high) == pytest.approx((2 - 2.484138, 2 + 2.484138), abs=1e-5)
    assert found.n == 3


def test_student_s_sleep_data() -> None:
    # Student (1908), extra hours of sleep: the published paired t is 4.06 with 9 degrees of freedom, p = 0.00283.
    first = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]
    second = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]
    found = paired_difference(second, first)
    assert found.mean == pytest.approx(1.58)
    assert (found.low, found.high) == pytest.approx((0.7001142, 2.4598858), abs=1e-6)
    assert found.p == pytest.approx(0.002832890, abs=1e-8)


def test_one_value_gives_no_interval_and_no_test() -> None:
    assert mean_interval([0.5]).half is None
    single = paired_difference([0.7], [0.5])
    assert single.mean == pytest.approx(0.2)
    assert (single.low, single.high, single.p) == (None, None, None)


def test_without_spread_there_is_no_p_value_to_boast_of() -> None:
    # 0.95 − 0.94 and 0.9 − 0.89 differ by rounding only, which is not spread.
    constant = paired_difference([0.95, 0.90, 0.85], [0.94, 0.89, 0.84])
    assert constant.p is None
    assert constant.low == constant.high == pytest.approx(0.01)
    assert paired_difference([0.3, 0.4], [0.3, 0.4]).p == 1.0
    assert mean_interval([0.9, 0.9, 0.9]).half == 0.0


@pytest.mark.parametrize("values", [[], [0.1, math.nan], [math.inf]])
def test_what_is_no_sample_is_refused(values: list[float]) -> None:
    with pytest.raises(ValueError, match="finite"):
        mean_interval(values)


def test_unpaired_values_are_refused() -> None:
    with pytest.raises(ValueError, match="pairs"):
        paired_difference([0.1, 0.2], [0.1])


@given(SAMPLES, st.sampled_from([0.8, 0.95, 0.99]))
def test_interval_equals_the_formula(values: list[float], confidence: float) -> None:
    found = mean_interval(values, confidence)
    n = len(values)
    half = stats.t.ppf((1 + confidence) / 2, n - 1) * np.std(values, ddof=1) / math.sqrt(n)
    assert found.mean == pytest.approx(np.mean(values), abs=1e-12)
    assert found.half == pytest.approx(half, abs=1e-9)


@given(SAMPLES)
def test_more_confidence_is_a_wider_interval_around_the_same_mean(values: list[float]) -> None:
    narrow, wide = mean_interval(values, 0.8), mean_interval(values, 0.95)
    assert narrow.mean == wide.mean
    assert wide.low <= narrow.low <= narrow.mean <= narrow.high <= wide.high


@given(PAIRS)
def test_swapping_the_pair_turns_the_sign_and_keeps_the_p_value(pairs: tuple[list[float], list[float]]) -> None:
    forward, backward = paired_difference(*pairs), paired_difference(*reversed(pairs))
    assert forward.mean == pytest.approx(-backward.mean, abs=1e-12)
    assert forward.low == pytest.approx(-backward.high, abs=1e-9)
    assert forward.p == (None if backward.p is None else pytest.approx(backward.p, abs=1e-9))


@given(PAIRS)
def test_p_is_below_five_percent_exactly_where_the_interval_excludes_zero(
    pairs: tuple[list[float], list[float]],
) -> None:
    found = paired_difference(*pairs)
    edge = min(abs(found.low), abs(found.high)) < 1e-9
    if found.p is not None and not edge:
        assert (found.p < 0.05) == (found.low > 0 or found.high < 0)


@given(PAIRS)
def test_a_paired_difference_is_the_interval_of_the_differences(pairs: tuple[list[float], list[float]]) -> None:
    found = paired_difference(*pairs)
    direct = mean_interval([round(one - other, 3) for one, other in zip(*pairs, strict=True)])
    assert (found.mean, found.low, found.high) == pytest.approx((direct.mean, direct.low, direct.high), abs=1e-9)
