"""Progress in a log: a line now and then, with an estimate that a slow start does not spoil."""

import re

import pytest

from agm.pipeline.runtime import progress


def test_a_log_says_how_long_the_rest_will_take(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = iter([0.0, 100.0, *(100.0 + 5 * done for done in range(1, 20)), 195.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    assert list(progress.track(iter(range(20)), 20, "work")) == list(range(20))
    *lines, last = capsys.readouterr().err.splitlines()
    assert last == "work: 20/20 in 195.0 s"
    for line in lines:
        done, passed, left = map(int, re.fullmatch(r"work: (\d+)/20, (\d+) s, about (\d+) s left", line).groups())
        assert passed == 100 + 5 * (done - 1)
        assert left == 5 * (20 - done)
    assert len(lines) == 9, "every 10 seconds, and not at the end"


def test_nothing_to_do_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(progress.track([], 0, "work")) == []
    assert capsys.readouterr().err.startswith("work: 0/0 in ")
