"""Averages over an epoch: equal counts are equal shares, and an interrupted epoch goes on with the same numbers."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from agm.pipeline.steps.train.loop import select_epoch
from agm.pipeline.steps.train.meter import Meter

pytestmark = pytest.mark.numerical

RIGHT = st.lists(st.booleans(), min_size=1, max_size=200)


def accuracy(right: list[bool], sizes: list[int]) -> float:
    """Of these answers, in batches of those sizes and one of what is left."""
    meter = Meter()
    answers = torch.tensor(right)
    for batch in answers.split([*sizes, len(right) - sum(sizes)]):
        meter.add_counts({"val_accuracy": batch.sum()}, weight=len(batch))
    return meter.summary()["val_accuracy"]


@given(RIGHT, st.integers(1, 40), st.randoms())
def test_the_share_of_right_answers_does_not_depend_on_their_batches(right: list[bool], size: int, random) -> None:
    whole = accuracy(right, [])
    assert whole == sum(right) / len(right)
    random.shuffle(right)
    assert accuracy(right, [size] * ((len(right) - 1) // size)) == whole


def test_the_earliest_of_equally_good_epochs_is_kept() -> None:
    """15 right answers of 58, in batches of 32 and 26: 15/26 · 26 is not 15, so a sum of means would differ."""
    rows = [
        {"epoch": epoch, "val_accuracy": accuracy([True] * first + [False] * 43 + [True] * (15 - first), [32])}
        for epoch, first in enumerate(range(16))
    ]
    assert len({row["val_accuracy"] for row in rows}) == 1
    assert select_epoch(rows, "accuracy") == 0


def test_means_are_weighted_and_ranges_kept() -> None:
    meter = Meter()
    for value, weight in ((1.0, 3), (5.0, 1)):
        meter.add({"kappa_audio": torch.tensor(value)}, weight=weight)
    assert meter.summary(("kappa",)) == {"kappa_audio": 2.0, "kappa_min_audio": 1.0, "kappa_max_audio": 5.0}
    again = Meter()
    again.restore(meter.state(), meter.weights)
    assert again.summary(("kappa",)) == meter.summary(("kappa",))
