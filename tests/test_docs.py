"""Every `agm compose` that the documentation shows is accepted, and its links lead somewhere."""

import re
import shlex
from pathlib import Path

import pytest

from agm.pipeline import config
from agm.pipeline.config.compose import compose
from clone import ROOT

# The page on methods adds one first: tests/test_adding_a_method.py does as it says.
PAGES = [
    ROOT / "README.md",
    *(page for page in sorted((ROOT / "docs").rglob("*.md")) if page.stem != "adding_a_method"),
]
BLOCK = re.compile(r"^```\w*\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def commands() -> list[tuple[str, str]]:
    """Page and overrides of every command that is shown in full."""
    found = []
    for page in PAGES:
        for block in BLOCK.findall(page.read_text(encoding="utf-8")):
            for line in re.sub(r"\\\n\s*", "", block).splitlines():
                whole = "…" not in line and "--migrate" not in line
                if line.startswith("agm compose ") and whole:
                    found.append((str(page.relative_to(ROOT)), line.removeprefix("agm compose ")))
    return found


def different() -> dict[tuple[str, ...], str]:
    """The overrides of every command, wherever the data are, and a page that shows them."""
    found: dict[tuple[str, ...], str] = {}
    for page, overrides in commands():
        words = shlex.split(overrides, comments=True)
        roots = [word for word in words if word.startswith("dataset.root=")]
        # One that needs quotes of its own is composed as it is.
        plain = all(re.fullmatch(r"[\w/.=-]+", word) for word in roots)
        found[tuple(word for word in words if word not in roots or not plain)] = page
    return found


@pytest.mark.parametrize("words", different(), ids=lambda words: f"{different()[words]} {' '.join(words)}")
def test_a_command_of_the_documentation(tmp_path: Path, words: tuple[str, ...]) -> None:
    root = [] if any(word.startswith("dataset.root=") for word in words) else ["dataset.root=raw"]
    compose([*root, *words], tmp_path / "params.yaml", ROOT / "params")
    config.load(tmp_path / "params.yaml")


def test_the_pages_have_commands() -> None:
    assert len(commands()) > 30 and len({page for page, _ in commands()}) > 12


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8"))
    assert not [target for target in targets if not (page.parent / target).exists()]
