"""params.yaml means to `agm` what it means to DVC, or is refused with the line and the key."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from agm.pipeline.config import read
from agm.pipeline.config.plain import parse
from agm.pipeline.errors import AgmError
from clone import ROOT

PIECES = [
    *"abefnoxyNTIF0189_+-.:,~=<!&*%@#|>'\"?[]{}\\ \n\t",
    "\n  ",
    "- ",
    ": ",
    "---\n",
    "0x",
    "0o",
    "1e",
    "yes",
    "null",
    "true",
    "Off",
    ".inf",
    "2020-01-02",
    "10:20",
    "<<: ",
    "!!int ",
    "\u0085",
    "\ufeff",
    "é",
]
SCALARS = st.text("0123456789abcdefoxyEFINOT_+-.:~=", max_size=8)


def by_dvc(text: str) -> Any:
    from dvc.utils.serialize import parse_yaml

    return parse_yaml(text, "params.yaml")


def same(ours: Any, theirs: Any) -> bool:
    """Equal, and of the same types: 1, 1.0 and true are three values."""
    return repr(ours) == repr(theirs)


@given(st.lists(st.sampled_from(PIECES), max_size=12).map("".join))
def test_any_text_that_is_accepted_is_the_same_to_dvc(text: str) -> None:
    try:
        content = parse(text)
    except ValueError:
        return
    assert same(content or {}, by_dvc(text))


@given(st.lists(SCALARS, min_size=1, max_size=3))
def test_any_scalars_that_are_accepted_are_the_same_to_dvc(values: list[str]) -> None:
    text = "".join(f"key{place}: {value}\n" for place, value in enumerate(values))
    try:
        content = parse(text)
    except ValueError:
        assume(False)
    assert same(content, by_dvc(text))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63) + 1, 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
)


@given(JSON | st.text(max_size=10))
def test_what_dvc_writes_is_accepted(value: Any) -> None:
    """`dvc exp run -S` writes the file with its own functions."""
    from dvc.utils.serialize import dumps_yaml

    text = dumps_yaml({"key": value})
    assume(same(by_dvc(text), {"key": value}))
    try:
        assert same(parse(text), {"key": value})
    except ValueError as error:
        # Texts that YAML 1.1 takes for something else are written without quotes; -S of one is refused.
        assert "in YAML 1.1" in str(error) or "must be a text" in str(error) or "a sign of" in str(error)


@pytest.mark.parametrize("value", ["1", "-3", "0x1F", "1_000", "1.5", "1e3", "1e-08", "1.0e-07", "~", "true", "'010'"])
def test_plain_values(value: str) -> None:
    assert same(parse(f"key: {value}"), by_dvc(f"key: {value}"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 1\nb: {c: [0, 010]}", "line 2: b.c.1: 010 is 8 in YAML 1.1 and 10 in YAML 1.2; write what is meant"),
        ("a: 0o10", 'line 1: a: 0o10 is "0o10" in YAML 1.1 and 8 in YAML 1.2'),
        ("a: 1:30", 'line 1: a: 1:30 is 90 in YAML 1.1 and "1:30" in YAML 1.2'),
        ("a: yes", 'line 1: a: yes is true in YAML 1.1 and "yes" in YAML 1.2'),
        ("a: Off", 'line 1: a: Off is false in YAML 1.1 and "Off" in YAML 1.2'),
        ("a: 2020-01-02", "line 1: a: 2020-01-02 is a date; put it in quotes"),
        ("a: 2020-13-99", "line 1: a: 2020-13-99 is a date"),
        ("a: .inf", "line 1: a: .inf is not a finite number"),
        ("a: .nan", "line 1: a: .nan is not a finite number"),
        ("a: -1e400", "line 1: a: -1e400 is not a finite number"),
        ("a: " + "9" * 5000, "is the beginning of a number of 5,000 digits"),
        ("a: 9223372036854775808", "line 1: a: 9223372036854775808 is beyond 9223372036854775807"),
        ("a: 1\na: 2", 'line 2: found duplicate key "a"'),
        ("on: 1", "line 1: a key must be a text"),
        ("1: 1", "line 1: a key must be a text"),
        ("a: &x 1\nb: *x", "line 1: anchors and aliases"),
        ("a: {b: 1}\nc:\n  <<: {b: 1}", "line 3: a key must be a text"),
        ("a: !!str 5", "line 1: tags are not read"),
        ("a: !x 5", "line 1: tags are not read: take out '!x'"),
        ("a: 1\n---\nb: 2", "found another document"),
        ('a: "\\ud800"', "it has half a character"),
        ("[" * 3000, "it is nested too deeply"),
        ("a: [1", "line 1: "),
        ("- 1", "not a mapping"),
        ("", "not a mapping"),
    ],
    ids=lambda text: text[:20],
)
def test_what_is_refused(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(text)
    with pytest.raises(AgmError) as error:
        read(path)
    assert said in str(error.value) and "Traceback" not in str(error.value)


def test_a_file_that_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_bytes(b"a: \xff")
    with pytest.raises(AgmError, match="not UTF-8"):
        read(path)


def test_the_project_s_own_file() -> None:
    assert same(read(ROOT / "params.yaml"), by_dvc((ROOT / "params.yaml").read_text()))
