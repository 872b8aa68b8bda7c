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
def test_a_path_is_taken_as_it_is(tmp_path, name):
    """As the root and as a file of annotations, which are read alike; the name at the end and within."""
    paths = {"clips": f"/data/{name}/clips.csv", "within": f"data/{name}/x", "last": f"data/{name}"}
    added = [f"+dataset.annotations.{key}={path}" for key, path in paths.items() if key != "clips"]
    target = tmp_path / "params.yaml"
    given = [f"dataset.root=/data/{name}", f"dataset.annotations.clips={paths['clips']}", *added]
    compose(["study=spoken_digits", *given], target, GROUPS)
    dataset = load(target).dataset
    assert (dataset.root, dataset.annotations) == (f"/data/{name}", paths)


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


def test_both_engines_read_a_folder_of_any_name(forked, tmp_path):
    root = tmp_path / ALL
    root.mkdir()
    rows = [f"c{number},{split},{number % 2},{number}.txt" for number, split in enumerate(("train", "val", "test") * 4)]
    for number in range(12):
        (root / f"{number}.txt").write_text("a word")
    clone = Clone.make(tmp_path / "clone", forked=forked)
    changes = ["~dataset.modalities", "+dataset.modalities={text: {kind: text, column: text}}"]
    changes += ["~features", "+features={text: {max_tokens: 4}}", "~encoders", "+encoders={text: {name: transformer}}"]
    (root / "manifest.csv").write_text("clip_id,split,label,text\n")
    clone.agm("compose", "study=spoken_digits", f"dataset.root={root}", *changes)
    assert yaml.safe_load((clone.folder / "params.yaml").read_text())["dataset"]["root"] == str(root)
    # Each time the annotations have changed, which the engine whose turn it is must notice.
    for engine, clips in ((clone.dvc, 4), (clone.snakemake, 3), (clone.dvc, 2)):
        lines = ["clip_id,split,label,text", *rows[: 3 * clips], ""]
        (root / "manifest.csv").write_text("\n".join(lines))
        engine(*(("repro", "ingest") if engine == clone.dvc else ("ingest",)))
        found = read_json(clone.folder / "data/spoken_digits/manifest.json")["clips"]
        assert found == {"train": clips, "val": clips, "test": clips}
