"""`agm compose --migrate`: old names in a file become the new ones, and nothing else changes."""

import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from agm.pipeline import cli, config
from agm.pipeline.config import migrate, renamed
from agm.pipeline.config.compose import compose
from agm.pipeline.config.renamed import RENAMED, Renamed
from agm.pipeline.errors import AgmError
from clone import ROOT
from test_renamed import GROUPS, STUDY, places, value_at

GROUP = """\
# @package _global_
# A data set of mine.

defaults:
  - /encoder@encoders.sound: transformer   # two spaces and more
  - _self_

dataset:
    modalities:
        sound: {kind: audio, column: "a: b"}
        film:   {kind: video, column: 'v'}
    skip: [silent, still]   # dataset.skip stays in comments

features:
    sound: {rate: 1.6e4, "hop": 256, fit: "${oc.select:dataset.fit,pad}", frozen: ~}
    film:
        frames: 3
        # of the film
        rate: 0x2

parts: # many
    - 0
    - 1   # the last
trainer: {clip: 1, threads: "${parts}", epochs: "${.select}", x: '${features.film.rate}, ${trainer.clip}'}
"""
EXPECTED = """\
# @package _global_
# A data set of mine.

defaults:
  - /encoder@encoders.sound: transformer   # two spaces and more
  - _self_

dataset:
    modalities:
        sound: {kind: audio, column: "a: b"}
        film:   {kind: video, column: 'v'}
    quarantine: [silent, still]   # dataset.skip stays in comments

features:
    sound: {sample_rate: 1.6e4, hop_length: 256, fit: "${oc.select:dataset.fit,pad}", frozen: ~}
    film:
        frames: 3
        # of the film
        fps: 0x2

num_parts: 2   # the last
trainer: {grad_clip: 1, threads: "${num_parts}", epochs: "${.monitor}", x: '${features.film.fps}, ${trainer.grad_clip}'}
"""


def migrated(folder: Path, text: str, name: str = "mine.yaml") -> str:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode())
    migrate.migrate([str(path)])
    return path.read_bytes().decode()


def aged(content: dict[str, Any]) -> dict[str, Any]:
    """The configuration with every key that was renamed under its old name."""
    old_content = yaml.safe_load(yaml.safe_dump(content))
    for row in RENAMED:
        for old, new in places(row, content):
            value = value_at(old_content, new[:-1]).pop(new[-1])
            value_at(old_content, old[:-1])[old[-1]] = list(range(value)) if row.old == "parts" else value
    # There was no such block.
    old_content.pop("dvc")
    return old_content


def test_every_old_name_of_a_whole_file_is_rewritten(tmp_path: Path) -> None:
    compose(STUDY, tmp_path / "params.yaml", GROUPS)
    content = config.read(tmp_path / "params.yaml")
    old = aged(content)
    assert len(renamed.found(old)) > 20
    text = migrated(tmp_path, yaml.safe_dump(old, sort_keys=False), "old.yaml")
    assert yaml.safe_load(text) == content
    config.load(tmp_path / "old.yaml")
    assert migrated(tmp_path, text, "old.yaml") == text


def test_nothing_but_names_changes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert migrated(tmp_path, GROUP) == EXPECTED
    said = capsys.readouterr().err
    assert f"{tmp_path / 'mine.yaml'}: features.film.rate is now features.film.fps" in said
    assert "the reference .select is now .monitor" in said
    assert migrated(tmp_path, EXPECTED) == EXPECTED
    assert "there are no old names" in capsys.readouterr().err


def test_line_ends_of_windows_stay(tmp_path: Path) -> None:
    assert migrated(tmp_path, GROUP.replace("\n", "\r\n")) == EXPECTED.replace("\n", "\r\n")


def test_the_files_of_params_have_no_old_names(tmp_path: Path) -> None:
    for path in [ROOT / "params.yaml", *sorted(GROUPS.rglob("*.yaml"))]:
        text = path.read_text(encoding="utf-8")
        assert migrate.rewritten(text, path) == (text, [], [])


@pytest.mark.parametrize(
    ("name", "before", "after"),
    [
        ("trainer/mine.yaml", "# @package trainer\nclip: 1\n", "# @package trainer\ngrad_clip: 1\n"),
        ("trainer/mine.yaml", "clip: 1\n", "grad_clip: 1\n"),
        ("encoder/mine.yaml", "name: transformer\nheads: 4\n", "name: transformer\nnum_heads: 4\n"),
        ("method/mine.yaml", "# @package methods.lfm\nrate: 1\n", "# @package methods.lfm\nrate: 1\n"),
        ("fusion/mine.yaml", "# @package fusions.mine\nlayers: 1\n", "# @package fusions.mine\nnum_layers: 1\n"),
        ("notes/mine.yaml", "clip: 1\n", "clip: 1\n"),
    ],
)
def test_keys_of_a_group_are_those_of_its_package(tmp_path: Path, name: str, before: str, after: str) -> None:
    (tmp_path / "config.yaml").touch()
    assert migrated(tmp_path, before, name) == after


@pytest.mark.parametrize(
    ("block", "new"),
    [
        ("{rate: 8000, seconds: 1.0}", "{sample_rate: 8000, seconds: 1.0}"),
        ("{frames: 8, rate: 2, size: 64}", "{frames: 8, fps: 2, size: 64}"),
        ("{frames: 8, rate: 2, stack: 5}", "{frames: 8, fps: 2, stack: 5}"),
        ("{words: 8}", "{max_tokens: 8}"),
    ],
)
def test_a_block_shows_of_what_kind_its_modality_is(tmp_path: Path, block: str, new: str) -> None:
    assert migrated(tmp_path, f"features:\n  m: {block}\n") == f"features:\n  m: {new}\n"


def test_a_study_has_the_kinds_of_its_data_set(tmp_path: Path) -> None:
    (tmp_path / "dataset").mkdir()
    (tmp_path / "dataset/own.yaml").write_text("dataset: {modalities: {a: {kind: audio}, v: {kind: video}}}\n")
    text = "# @package _global_\ndefaults:\n  - override /dataset: own\nfeatures: {a: {rate: 1}, v: {rate: 2}}\n"
    expected = text.replace("a: {rate", "a: {sample_rate").replace("v: {rate", "v: {fps")
    assert migrated(tmp_path, text, "study/mine.yaml") == expected


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("features: {m: {rate: 1}}\n", "features.m.rate is now features.m.sample_rate or features.m.fps: this file"),
        ("trainer:\n  clip: 1\n  grad_clip: 2\n", "trainer.grad_clip is there already, with 2 where the old key has 1"),
        ("parts: [1, 2]\n", "parts is now num_parts: expected a list 0, 1, 2, …, found [1, 2]"),
        ("parts: ${other}\n", "parts is now num_parts: expected a list 0, 1, 2, …, found ${other}"),
    ],
)
def test_what_the_file_does_not_decide_is_left_and_named(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(AgmError) as error:
        migrated(tmp_path, text + "dataset: {skip: []}\n")
    assert said in str(error.value)
    assert (tmp_path / "mine.yaml").read_text() == text + "dataset: {quarantine: []}\n", "the rest is rewritten"


def test_the_same_value_under_both_names_is_kept_once(tmp_path: Path) -> None:
    text = "trainer:\n  clip: 1.0\n  grad_clip: 1.0\n  epochs: null  # none\n"
    assert migrated(tmp_path, text) == "trainer:\n  grad_clip: 1.0\n  epochs: null  # none\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [1\n", "The file cannot be read"),
        ("trainer: {clip: 1, clip: 2}\n", "The file cannot be read"),
        ("a: 1\n---\na: 2\n", "The file cannot be read"),
    ],
)
def test_what_is_no_yaml_is_left_alone(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(AgmError) as error:
        migrated(tmp_path, text)
    assert said in str(error.value) and (tmp_path / "mine.yaml").read_text() == text


@pytest.mark.parametrize("text", ["", "# nothing\n", "- 1\n", "text\n"])
def test_a_file_without_keys_is_left_alone(tmp_path: Path, text: str) -> None:
    assert migrated(tmp_path, text) == text


def test_a_link_and_the_rights_of_a_file_stay(tmp_path: Path) -> None:
    path, link = tmp_path / "real.yaml", tmp_path / "link.yaml"
    path.write_text("parts: [0]\n")
    path.chmod(0o640)
    link.symlink_to("real.yaml")
    migrate.migrate([str(link)])
    assert link.is_symlink() and path.read_text() == "num_parts: 1\n" and path.stat().st_mode & 0o777 == 0o640
    assert sorted(os.listdir(tmp_path)) == ["link.yaml", "real.yaml"]


def test_the_command_takes_files_or_overrides(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("parts: [0]\n")
    assert cli.main(["compose", "study=demo", "--migrate", str(path)]) == 1
    assert "Files are rewritten or a study is composed, not both" in capsys.readouterr().err
    assert cli.main(["compose", "--migrate", str(path), str(tmp_path / "absent.yaml")]) == 1
    assert "absent.yaml" in capsys.readouterr().err and path.read_text() == "num_parts: 1\n"


# --- keys that move to another section, which no row does yet ---

SECTIONS = (
    Renamed("old", "methods", "a section whose keys go into another one"),
    Renamed("study.old", "study.methods", "a list that is appended to another one"),
    Renamed("trainer.seed", "study.seed", "a key that goes to another section"),
)


@pytest.fixture
def sections(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(renamed, "RENAMED", SECTIONS)


@pytest.mark.usefixtures("sections")
def test_a_section_is_merged_into_another(tmp_path: Path) -> None:
    text = """\
study:
  methods:
  - joint  # first
  old:
  - umt
methods:
  joint:
    name: "joint"
  none: null
old:
  umt:
    name: umt
    weight: 1.0e-07  # small
trainer:
  seed: 3
  epochs: 2
"""
    expected = """\
study:
  methods:
  - joint  # first
  - umt
  seed: 3
methods:
  joint:
    name: "joint"
  none: null
  umt:
    name: umt
    weight: 1.0e-07  # small
trainer:
  epochs: 2
"""
    assert migrated(tmp_path, text) == expected
    assert migrated(tmp_path, expected) == expected


@pytest.mark.usefixtures("sections")
def test_an_empty_section_goes(tmp_path: Path) -> None:
    assert migrated(tmp_path, "methods: {a: {b: 1}}\nold: {}\n") == "methods: {a: {b: 1}}\n"
    assert migrated(tmp_path, "methods: {}\nold:\n  a: 1\n") == "methods:\n  a: 1\n"


@pytest.mark.usefixtures("sections")
def test_a_package_and_references_follow_their_section(tmp_path: Path) -> None:
    text = "# About it.\n# @package old.umt\ndefaults:\n  - /method@old.mine: umt\na: ${old.umt.weight}\n"
    expected = (
        "# About it.\n# @package methods.umt\ndefaults:\n  - /method@methods.mine: umt\na: ${methods.umt.weight}\n"
    )
    assert migrated(tmp_path, text) == expected
    text = "study:\n  methods: ${oc.dict.keys:methods}\n  old: ${oc.dict.keys:old}\n"
    assert migrated(tmp_path, text) == "study:\n  methods: ${oc.dict.keys:methods}\n"


@pytest.mark.usefixtures("sections")
def test_a_key_cannot_leave_the_package_of_its_file(tmp_path: Path) -> None:
    with pytest.raises(AgmError) as error:
        migrated(tmp_path, "# @package trainer\nseed: 3\n")
    assert "trainer.seed is now study.seed: this file is read into trainer" in str(error.value)


@pytest.mark.usefixtures("sections")
def test_a_section_is_named_once(tmp_path: Path) -> None:
    assert renamed.found({"old": {"umt": {"weight": 1}}}) == ["old is now methods"]
    assert renamed.now(("old", "umt", "weight"), {}) == "methods.umt.weight"
