"""Keys that had another name: refused with the new one wherever they are written, and listed on a page."""

import copy
import re
import runpy
from pathlib import Path
from typing import Any

import pytest

from agm.pipeline import config
from agm.pipeline.config import renamed
from agm.pipeline.config.compose import compose
from agm.pipeline.config.renamed import RENAMED, Renamed
from agm.pipeline.errors import AgmError
from clone import ROOT, Clone
from forked import Forked

GROUPS = ROOT / "params"
STUDY = ["study=demo", "fusion=[late_concat,cross_attention]"]


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A configuration that has every key that was renamed."""
    target = tmp_path_factory.mktemp("composed") / "params.yaml"
    compose(STUDY, target, GROUPS)
    return config.read(target)


def places(row: Renamed, content: dict[str, Any]) -> list[tuple[tuple[str, ...], tuple[str, ...]]]:
    """Old and new key of a row, for each place where the new one is."""
    kinds = renamed.kinds_in(content)
    new = row.new.split(".")
    found = []
    for path in renamed.keys_of(content):
        same = len(path) == len(new) and all(name in ("*", given) for name, given in zip(new, path, strict=True))
        if same and (not row.kinds or kinds.get(path[1]) in row.kinds):
            free = [given for name, given in zip(new, path, strict=True) if name == "*"]
            old = [free.pop(0) if name == "*" else name for name in row.old.split(".")]
            found.append((tuple(old), path))
    return found


def value_at(content: Any, path: tuple[str, ...]) -> Any:
    for name in path:
        content = content[name]
    return content


@pytest.mark.parametrize("row", RENAMED, ids=lambda row: f"{row.old} {' '.join(row.kinds)}")
def test_every_old_key_is_refused_with_its_new_name(row: Renamed, content: dict[str, Any]) -> None:
    found = places(row, content)
    assert found, "the new key is one of the configuration"
    for old, new in found:
        changed = copy.deepcopy(content)
        section = value_at(changed, old[:-1])
        section[old[-1]] = value_at(changed, new)
        with pytest.raises(AgmError) as error:
            config.check(changed, Path("params.yaml"))
        assert f"\n  {'.'.join(old)} is now {'.'.join(new)}\n" in str(error.value)
        assert "fix:   `agm compose --migrate params.yaml` rewrites an old file" in str(error.value)


def test_a_key_has_its_new_name_by_the_kind_of_its_modality(content: dict[str, Any]) -> None:
    kinds = renamed.kinds_in(content)
    assert renamed.now(("features", "audio", "rate"), kinds) == "features.audio.sample_rate"
    assert renamed.now(("features", "video", "rate"), kinds) == "features.video.fps"
    assert renamed.now(("features", "text", "rate"), kinds) is None
    assert renamed.now(("features", "other", "rate"), kinds) == "features.other.sample_rate or features.other.fps"


def test_parameters_of_methods_keep_their_names(content: dict[str, Any]) -> None:
    """`rate` of `lfm`, `window` of `agm` and others are the methods' own."""
    for method in ("lfm", "amco"):
        assert renamed.now(("methods", method, "rate"), renamed.kinds_in(content)) is None


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["trainer.clip=2"], "trainer.clip is now trainer.grad_clip"),
        (["+trainer.clip=2"], "trainer.clip is now trainer.grad_clip"),
        (["++trainer.select=loss"], "trainer.select is now trainer.monitor"),
        (["~dataset.skip"], "dataset.skip is now dataset.quarantine"),
        (["parts=[0,1]"], "parts is now num_parts"),
        (["features.audio.rate=16000"], "features.audio.rate is now features.audio.sample_rate"),
        (["features.video.rate=2"], "features.video.rate is now features.video.fps"),
        (["+features.text={words: 24}"], "features.text.words is now features.text.max_tokens"),
        (["trainer.optimiser.lr=0.1"], "trainer.optimiser.lr is now trainer.optimizer.lr"),
        (["encoders.text.heads=2"], "encoders.text.heads is now encoders.text.num_heads"),
    ],
)
def test_an_override_with_an_old_key_is_refused(tmp_path: Path, overrides: list[str], said: str) -> None:
    with pytest.raises(AgmError) as error:
        compose(overrides, tmp_path / "params.yaml", GROUPS)
    assert said in str(error.value)
    assert "fix:   write the new name; `agm compose --migrate FILE` rewrites an old file" in str(error.value)
    assert not (tmp_path / "params.yaml").exists()


@pytest.fixture(scope="module")
def clone(forked: Forked, tmp_path_factory: pytest.TempPathFactory) -> Clone:
    return Clone.make(tmp_path_factory.mktemp("clone"), forked=forked)


def test_a_group_of_ones_own_that_refers_to_an_old_key_is_refused(clone: Clone) -> None:
    path = clone.folder / "params/trainer/mine.yaml"
    path.write_text("# @package trainer\ndefaults: [small]\n\nthreads: ${parts}\n")
    said = clone.agm("compose", "trainer=mine", fails=True)
    assert "A file of params/ refers to an old key: parts is now num_parts" in said
    clone.agm("compose", "--migrate", "params/trainer/mine.yaml")
    clone.agm("compose", "trainer=mine")
    assert config.load(clone.folder / "params.yaml").trainer.threads == 4
    clone.run("git", "checkout", "--quiet", "params.yaml")


def test_an_old_file_stops_every_command_and_is_rewritten_by_one(clone: Clone) -> None:
    path = clone.folder / "params.yaml"
    new = path.read_text()
    path.write_text(re.sub(r"^  grad_clip: ", "  clip: ", new, flags=re.MULTILINE))
    for said in (
        clone.agm("list", fails=True),
        clone.agm("code", fails=True),
        clone.run(*clone._program("snakemake"), "--dry-run", fails=True),
        clone.run(*clone._program("dvc"), "repro", "code", fails=True),
    ):
        assert "trainer.clip is now trainer.grad_clip" in said
        assert "`agm compose --migrate params.yaml` rewrites an old file" in said
        assert "Traceback" not in said
    assert "params.yaml: trainer.clip is now trainer.grad_clip" in clone.agm("compose", "--migrate", "params.yaml")
    assert path.read_text() == new
    clone.snakemake("--dry-run")
    said = clone.run(*clone._program("dvc"), "exp", "run", "--set-param=+trainer.clip=2", "code", fails=True)
    assert "trainer.clip is now trainer.grad_clip" in said


def test_the_page_is_made_of_the_table() -> None:
    page = runpy.run_path(str(ROOT / "docs/renamed.py"))["page"]()
    assert (ROOT / "docs/renamed.md").read_text(encoding="utf-8") == page, "`python docs/renamed.py` writes it anew"
    for row in RENAMED:
        assert row.about in page
