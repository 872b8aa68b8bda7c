"""The fingerprints of the source: what counts as a change, and that every Python finds the same one."""

import json
from pathlib import Path

import pytest

from agm.pipeline import config
from agm.pipeline.config.compose import compose
from agm.pipeline.dag import code, fingerprints
from clone import ROOT

SOURCE = '''
"""About the module."""
import os

LIMIT: int = 10_000


@property
def area(width: float, *, height=1.5, **rest) -> float:
    """Say what it does."""
    if (n := width) > 2 and not rest:
        return f"{n!r:>{LIMIT}} {height}" * 2  # a comment
    match rest:
        case {"a": [1, *others], **more} if more:
            return lambda x, /, y=b"\\0": [x async for x in y]
    try:
        raise ValueError from None
    except* (ValueError, TypeError) as error:
        del error, others[1:-1:2]
'''
STORED = "c46bf02b6c23d7c1d69f21112713db9edffe2360e2d45992296fd22404a93f14"
"""Found by Python 3.11; 3.12 and 3.13 find it too."""


def test_every_python_finds_this_value() -> None:
    assert code.of_source(SOURCE) == STORED


@pytest.mark.parametrize(
    "same",
    [
        SOURCE.replace("# a comment", "# another one"),
        SOURCE.replace('"""Say what it does."""', '"""Say more."""'),
        SOURCE.replace('"""About the module."""\n', ""),
        SOURCE.replace("10_000", "10000"),
        SOURCE.replace("import os\n", "import os\n\n\n"),
        SOURCE.replace("height=1.5, **rest", "height=1.50,\n    **rest"),
        SOURCE.replace('"a"', "'a'"),
    ],
)
def test_layout_comments_and_docstrings_are_no_change(same: str) -> None:
    assert same != SOURCE and code.of_source(same) == code.of_source(SOURCE)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("10_000", "10_000.0"),
        ("10_000", "10_001"),
        ("1.5", "1.6"),
        ("not rest", "rest"),
        ("> 2", ">= 2"),
        (" * 2", " * 2j"),
        ('b"', '"'),
        ("*, height", "height"),
        ("from None", ""),
        ("x, /, y", "x, y"),
        ("except*", "except"),
        ("-1:2", "-1"),
        ("!r", "!s"),
    ],
)
def test_what_says_something_else_is_a_change(old: str, new: str) -> None:
    other = SOURCE.replace(old, new)
    assert other != SOURCE and code.of_source(other) != code.of_source(SOURCE)


def test_a_text_that_is_no_docstring_counts() -> None:
    assert code.of_source("x = 1\n'a'") != code.of_source("x = 1\n'b'")


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package of a few files, as the source of this one."""
    for name, text in {
        "methods/one.py": "from agm.methods.two import two\n",
        "methods/two.py": "from agm.methods.method import Method\ntwo = 2\n",
        "methods/three.py": "three = 3\n",
        "methods/method.py": "class Method: pass\n",
        "methods/__init__.py": "",
        "pipeline/steps/report/step.py": "page = 1\n",
        "pipeline/steps/report/page.html.j2": "<p>{{ page }}</p>\n",
        "metrics/competition.py": "",
        "metrics/intervals.py": "",
        "pipeline/io/tables.py": "",
        "pipeline/runtime/terminal.py": "",
    }.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.setattr(code, "PACKAGE", tmp_path)
    code.forget()
    return tmp_path


def prints() -> dict[str, str]:
    code.forget()
    return {name: code.fingerprint(name) for name in ("report", "methods/one", "methods/two", "methods/three")}


def test_a_method_counts_with_those_it_builds_on(package: Path) -> None:
    assert code.method_files("one") == ("methods/one.py", "methods/two.py")
    before = prints()
    (package / "methods/two.py").write_text("two = 22\n")
    assert {name for name, found in prints().items() if found != before[name]} == {"methods/one", "methods/two"}


@pytest.mark.parametrize(
    ("file", "text", "changes"),
    [
        ("report/page.html.j2", "<p>{{ page }}</p> \n", True),  # byte for byte
        ("report/style.css", "p {}", True),
        ("report/more.py", "", True),
        ("report/step.py", "page = 1  # of many\n", False),
        ("report/.step.py.swp", "x", False),
        ("report/.step.py", "x = 1", False),
        ("report/.DS_Store", "x", False),
        ("report/step.py~", "x", False),
        ("report/#step.py#", "x", False),
        ("report/notes.txt", "x", False),
    ],
)
def test_which_files_count(package: Path, file: str, text: str, changes: bool) -> None:
    before = prints()
    (package / "pipeline/steps" / file).write_text(text)
    after = prints()
    assert (after["report"] != before["report"]) == changes
    assert {**after, "report": ""} == {**before, "report": ""}


def test_they_are_written_for_dvc_and_stay_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    compose([], groups=ROOT / "params")
    fingerprints.write(config.load())
    files = {path: path.read_bytes() for path in Path("records/code").rglob("*.json")}
    assert {path.stem for path in files if path.parent.name == "methods"} == {"joint", "agm"}
    assert {path.stem for path in files if path.parent.name == "code"} == code.STEPS.keys()
    assert json.loads(files[Path("records/code/extract.json")])["libraries"]["av"] == code.versions("extract")["av"]
    compose(["method=joint"], groups=ROOT / "params")
    fingerprints.write(config.load())
    assert {path for path in files if not path.exists()} == {Path("records/code/methods/agm.json")}
