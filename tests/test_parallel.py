"""Work over processes: in order whatever happens, and an item that kills its process costs itself."""

import os
import signal

import pytest

from agm.pipeline.errors import AgmError
from agm.pipeline.runtime.parallel import parallel_map

ITEMS = list(range(40))


def squared(number: int) -> int:
    return number * number


def deadly(number: int) -> int:
    if number in (5, 6, 29):
        os.kill(os.getpid(), signal.SIGSEGV)
    return number * number


def failing(number: int) -> int:
    raise ZeroDivisionError(f"at {number}")


def buried(number: int) -> int:
    return -number


@pytest.fixture(params=[1, 2, 3])
def workers(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setenv("AGM_WORKERS", str(request.param))
    return request.param


def test_results_come_in_order(workers: int) -> None:
    assert list(parallel_map(squared, ITEMS, "square", chunk=3)) == [number * number for number in ITEMS]
    assert list(parallel_map(squared, [], "square")) == []


def test_an_item_that_kills_its_process_costs_itself(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AGM_WORKERS", "2")
    found = list(parallel_map(deadly, ITEMS, "work", chunk=4, died=buried))
    assert found == [-number if number in (5, 6, 29) else number * number for number in ITEMS]
    assert capsys.readouterr().err.count("a worker process died") == 3


def test_without_a_stand_in_it_is_an_error_a_person_can_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGM_WORKERS", "2")
    with pytest.raises(AgmError, match="A worker process died"):
        list(parallel_map(deadly, ITEMS, "work"))


def test_exceptions_are_raised_here(workers: int) -> None:
    with pytest.raises(ZeroDivisionError, match="at 0"):
        list(parallel_map(failing, ITEMS, "work"))
