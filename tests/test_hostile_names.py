"""Names in params.yaml that a shell or a file system reads as more than a name: nothing runs, is written or deleted.

DVC puts names into commands and paths before `agm` looks at them. So the stage `code`, which checks them, comes first.
"""

import subprocess
import sys
from pathlib import Path

import pytest

from clone import Clone

pytestmark = pytest.mark.heavy

UNSEEN = {".git", ".dvc", ".snakemake", "__pycache__"}
"""Folders in which the tools keep their own files."""
EDITS = {
    "a method": ("  agm:\n    name: agm\n", "  x; touch y:\n    name: agm\n", "  - agm\n", "  - x; touch y\n"),
    "a method that is not defined": ("  - agm\n", "  - $(touch y)\n"),
    "a fusion": ("  - late_concat\n", "  - ../../x;touch y\n"),
    "a modality": ("  - video\n  - audio\n", "  - v;touch y\n  - audio\n"),
    "a demo set": ("  generated:\n  - dial\n", "  generated:\n  - dial;touch y\n"),
    "a key of the annotations": ("    clips: data/raw", "    c;touch y: data/raw"),
    "the data set": ("  name: dial\n", "  name: ../../escape\n"),
    "a long name": ("  name: dial\n", f"  name: {'a' * 300}\n"),
    "a key twice": ("trainer:\n", "trainer: {}\ntrainer:\n"),
    "a key that DVC's stages name": ("  links: []\n", ""),
}
TOOLS = (("dvc", "repro"), ("dvc", "exp", "run"), ("snakemake", "--cores", "1"))


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """A study whose names were checked once, with files of the user around it."""
    folder = tmp_path_factory.mktemp("parent") / "a" / "clone"
    clone = Clone.make(folder)
    clone.dvc("repro", "code")
    clone.commit()
    for kept in (folder, folder.parent, folder.parent.parent):
        (kept / "escape" / "late_concat" / "joint").mkdir(parents=True)
        (kept / "escape" / "late_concat" / "joint" / "kept.txt").write_text("kept")
        (kept / "escape" / "listing.json").write_text("kept")
    return clone


def files(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, but for what the tools keep."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if path.is_file() and UNSEEN.isdisjoint(name.parts):
            found[str(name)] = path.read_bytes()
    return found


@pytest.mark.parametrize("edit", EDITS)
def test_nothing_runs(clone: Clone, edit: str) -> None:
    clone.run("git", "checkout", "--quiet", "params.yaml")
    text = (clone.folder / "params.yaml").read_text()
    pieces = EDITS[edit]
    for old, new in zip(pieces[::2], pieces[1::2], strict=True):
        assert text.count(old) >= 1
        text = text.replace(old, new)
    (clone.folder / "params.yaml").write_text(text)
    before = files(clone.folder.parent.parent)
    for tool in TOOLS:
        said = clone.run(sys.executable, "-m", *tool, fails=True)
        assert "Traceback" not in said
        assert files(clone.folder.parent.parent) == before, tool
    # It may show the stages, or refuse.
    subprocess.run(
        [sys.executable, "-m", "dvc", "status"], cwd=clone.folder, env=clone.environment, capture_output=True
    )
    assert files(clone.folder.parent.parent) == before


def test_a_change_of_any_name_is_looked_at_first(clone: Clone) -> None:
    clone.run("git", "checkout", "--quiet", "params.yaml")
    clone.edit("params.yaml", "  - joint\n  - agm\n  settings", "  - joint2\n  - agm\n  settings")
    assert "code" in clone.changed()
