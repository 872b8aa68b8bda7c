"""`agm methods`: what the constructors of the library say, for the users of params.yaml."""

import pytest

from agm.methods import METHODS, get
from agm.methods.parameters import settings
from agm.pipeline.cli import main
from agm.pipeline.config.methods import descriptions


def test_the_list_has_a_line_for_every_method(capsys: pytest.CaptureFixture) -> None:
    assert main(["methods"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == sorted(METHODS)
    assert all(len(line.split()) > 3 for line in lines)


def test_types_bounds_and_defaults_are_shown(capsys: pytest.CaptureFixture) -> None:
    assert main(["methods", "agm"]) == 0
    said = capsys.readouterr().out
    assert "ICCV 2023" in said
    assert "  alpha: float ≥ 0 = 1.0\n      strength of the modulation" in said
    assert "  bound: float > 0 or null = null\n" in said
    assert "  window: window = {first: 0, last: null}\n" in said
    assert "  coalitions: exact or shared = exact\n" in said


@pytest.mark.parametrize("name", METHODS)
def test_every_parameter_is_described(name: str) -> None:
    method = get(name)
    assert descriptions(name).keys() == {*settings(method), *method.prerequisites}


def test_an_unknown_method_is_named_with_the_one_that_is_meant(capsys: pytest.CaptureFixture) -> None:
    assert main(["methods", "ogx"]) == 1
    assert "'ogx' (did you mean 'ogm'?)" in capsys.readouterr().err
