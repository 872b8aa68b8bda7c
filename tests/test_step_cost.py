"""The benchmark of the steps: it measures every method that its network allows."""

import runpy

import pytest

from agm.methods import METHODS
from clone import ROOT

BENCHMARK = runpy.run_path(str(ROOT / "benchmarks/step_cost.py"))
TINY = ["--network", "tiny", "--batch", "4", "--rounds", "2"]


@pytest.fixture(autouse=True)
def device(monkeypatch: pytest.MonkeyPatch) -> None:
    """The benchmark sets the variable for itself; here it must not stay."""
    monkeypatch.setenv("AGM_DEVICE", "cpu")


def rows(printed: str) -> dict[str, list[str]]:
    """The table's rows by their first cell."""
    lines = [line.strip("| ").split(" | ") for line in printed.splitlines() if line.startswith("|")]
    assert lines[0] == ["step", "milliseconds", "× joint", "quartiles"]
    return {cells[0]: cells[1:] for cells in lines[2:]}


def test_every_method_has_a_row_or_a_reason(capsys: pytest.CaptureFixture) -> None:
    assert BENCHMARK["main"]([*TINY, "--switches", "bfloat16", "channels_last"]) == 0
    printed = capsys.readouterr().out
    found = rows(printed)
    left_out = {name for name in METHODS if f"\n{name} was left out: " in printed}
    switched = {f"{name}, {switch}" for name in ("joint", "agm") for switch in ("bfloat16", "channels_last")}
    assert found.keys() | left_out == {*METHODS, "agm, coalitions shared", *switched}
    assert "agm" not in left_out
    assert float(found["joint"][1]) == 1
    assert all(float(taken) > 0 and float(ratio) > 0 for taken, ratio, _ in found.values())
    assert "- Hardware: " in printed and "torch 2." in printed and "1 used" in printed
    assert f"`python benchmarks/step_cost.py {' '.join(TINY)}" in printed


def test_ratios_are_taken_round_by_round() -> None:
    """A slow round, in which everything takes ten times as long, does not count for more or less."""
    rounds = [{"joint": 0.1, "slow": 0.2}, {"joint": 1.0, "slow": 2.0}, {"joint": 0.1, "slow": 0.21}, {"joint": 5.0}]
    found = rows(BENCHMARK["table"](["joint", "slow"], rounds))
    assert found["slow"] == ["210.0", "2.00", "2.00–2.05"]
    assert found["joint"] == ["550.0", "1.00", "1.00–1.00"]


def test_waiting_steps_are_looked_for_on_a_gpu_only(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        BENCHMARK["main"]([*TINY, "--syncs"])
    assert "--device cuda" in capsys.readouterr().err


def test_help_teaches(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        BENCHMARK["main"](["--help"])
    assert "crema_d: CREMA-D: two ResNet-18" in " ".join(capsys.readouterr().out.split())
