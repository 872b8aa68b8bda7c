"""The documentation's example of a method of one's own, done as it says."""

import re
from pathlib import Path

import polars as pl
import pytest
import yaml

from clone import ROOT, Clone
from forked import Forked
from small_shards import write_shards
from test_train import PARAMS
from whole import with_lists

PAGE = (ROOT / "docs/adding_a_method.md").read_text()


@pytest.fixture(scope="module")
def clone(forked: Forked, tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """A clone with the two files that the page shows, written to where it says."""
    clone = Clone.make(tmp_path_factory.mktemp("clone"), forked=forked)
    for path, content in re.findall(r"^`(\S+)`\n\n```\w+\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL):
        (clone.folder / path).write_text(content)
    (line,) = re.findall(r"^In `METHODS` of `(\S+)`:\n\n```\w+\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    registry = clone.folder / line[0]
    registry.write_text(registry.read_text().replace("METHODS = {\n", f"METHODS = {{\n{line[1]}"))
    return clone


def test_the_example_is_about_thirty_lines() -> None:
    code = re.search(r"```python\n(.*?)```", PAGE, re.DOTALL)[1]
    assert len([line for line in code.splitlines() if line.strip()]) <= 30


def test_one_word_puts_it_into_a_study(clone: Clone) -> None:
    clone.agm("compose", "method=[joint,agm,auxiliary]")
    params = yaml.safe_load((clone.folder / "params.yaml").read_text())
    assert params["study"]["methods"] == ["joint", "agm", "auxiliary"]
    said = clone.agm("compose", "method=[joint,agm,auxiliary]", "methods.auxiliary.strength=two", fails=True)
    assert "methods.auxiliary.strength: " in said and "found 'two'" in said


def test_it_trains(clone: Clone) -> None:
    methods = {**PARAMS["methods"], "auxiliary": {"name": "auxiliary", "strength": 1.0}}
    study = {**PARAMS["study"], "methods": list(methods)}
    params = with_lists({**PARAMS, "methods": methods, "study": study})
    (clone.folder / "params.yaml").write_text(yaml.safe_dump(params))
    write_shards(clone.folder / "data/tiny")
    runs = Path(clone.folder, "runs/tiny/late_sum")
    losses = {}
    for name in ("joint", "auxiliary"):
        clone.agm("train", "late_sum", name, "0")
        losses[name] = pl.read_parquet(runs / name / "seed-0/history.parquet")["train_loss"].to_list()
    assert losses["auxiliary"][0] > losses["joint"][0]
    assert losses["auxiliary"][-1] < losses["auxiliary"][0]
