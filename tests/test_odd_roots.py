"""Folders that people have, whose names mean something to a shell, Hydra, Snakemake or DVC."""

import pytest
import yaml

from agm.pipeline.config import load
from agm.pipeline.config.compose import compose
from agm.pipeline.errors import AgmError
from agm.pipeline.io.files import read_json
from clone import ROOT, Clone

GROUPS = ROOT / "params"
NAMES = [
    "ünï",
    "名前",
    "data (1)",
    "a,b",
    "a#b",
    "[x]",
    "{x}",
    "a'b",
    'a"b',
    "a=b",
    "a&b;c!d",
    "~x",
    "100%",
    "x\\y",
    "it's \\'so\\",
    "$x",
    "a: b",
    "*?",
]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("form", ["/data/{}", "/data/{}/x", "data/{}", "dataset.annotations.clips"])
def test_a_path_is_taken_as_it_is(tmp_path, name, form):
    key, value = ("dataset.root", form.format(name)) if "{" in form else (form, f"/data/{name}/clips.csv")
    target = tmp_path / "params.yaml"
    root = [] if key == "dataset.root" else ["dataset.root=raw"]
    compose(["study=spoken_digits", *root, f"{key}={value}"], target, GROUPS)
    dataset = load(target).dataset
    assert (dataset.root if key == "dataset.root" else dataset.annotations["clips"]) == value


def test_a_name_without_a_slash_is_a_root_too(tmp_path):
    compose(["study=spoken_digits", "dataset.root=Übung (1)"], tmp_path / "params.yaml", GROUPS)
    assert load(tmp_path / "params.yaml").dataset.root == "Übung (1)"


def test_quotes_of_ones_own_are_left_alone(tmp_path):
    for given in ("dataset.root='/data/a,b'", 'dataset.root="/data/a,b"'):
        compose(["study=spoken_digits", given], tmp_path / "params.yaml", GROUPS)
        assert load(tmp_path / "params.yaml").dataset.root == "/data/a,b"


def test_what_is_no_path_is_refused_with_the_exact_quoting(tmp_path):
    with pytest.raises(AgmError) as error:
        compose(
            ["study=spoken_digits", "dataset.root=raw", "dataset.group=Sprecher:in (1)"],
            tmp_path / "params.yaml",
            GROUPS,
        )
    assert """agm compose 'dataset.root="/data/a,b (1)"'""" in str(error.value)


ALL = "ünï data (1) a,b a#b [x] {x} {{y}} 100% *?"


@pytest.mark.parametrize("engine", ["snakemake", "dvc"])
def test_both_engines_read_a_folder_of_any_name(forked, tmp_path, engine):
    root = tmp_path / ALL
    root.mkdir()
    rows = [f"c{number},{split},{number % 2},{number}.txt" for number, split in enumerate(("train", "val", "test") * 4)]
    (root / "manifest.csv").write_text("\n".join(["clip_id,split,label,text", *rows, ""]))
    for number in range(12):
        (root / f"{number}.txt").write_text("a word")
    clone = Clone.make(tmp_path / "clone", forked=forked)
    changes = ["~dataset.modalities", "+dataset.modalities={text: {kind: text, column: text}}"]
    changes += ["~features", "+features={text: {max_tokens: 4}}", "~encoders", "+encoders={text: {name: transformer}}"]
    clone.agm("compose", "study=spoken_digits", f"dataset.root={root}", *changes)
    run = {"snakemake": ("ingest",), "dvc": ("repro", "ingest")}[engine]
    getattr(clone, engine)(*run)
    manifest = clone.folder / "data/spoken_digits/manifest.json"
    assert read_json(manifest)["clips"] == {"train": 4, "val": 4, "test": 4}
    assert yaml.safe_load((clone.folder / "params.yaml").read_text())["dataset"]["root"] == str(root)
    (root / "manifest.csv").write_text("\n".join(["clip_id,split,label,text", *rows[:-3], ""]))
    getattr(clone, engine)(*run)
    assert read_json(manifest)["clips"] == {"train": 3, "val": 3, "test": 3}, "changed annotations are noticed"
