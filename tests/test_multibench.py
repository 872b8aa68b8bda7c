"""The pickles of MultiBench: labels of several kinds, padding before the first step, and a trained network."""

import pickle
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agm.pipeline.config.schema import Dataset
from agm.pipeline.errors import AgmError
from agm.pipeline.io.source import Source
from agm.pipeline.steps.ingest.adapters import read
from agm.pipeline.steps.ingest.adapters.multibench import LABELS
from edits import edited
from pipeline import Pipeline

SENTIMENTS = [-3.0, -1.5, -0.5, 0.0, 0.5, 2.5]


def split(values: list[float], /, steps: int = 4, **others: Any) -> dict[str, Any]:
    """One split as MultiBench has it, padded before the first step: the first clip has one step, the next two, …"""
    random = np.random.default_rng(len(values))
    found: dict[str, Any] = {"labels": np.asarray(values, np.float64).reshape(-1, 1, 1)}
    for name, size in {"vision": 371, "audio": 81, "text": 300}.items():
        found[name] = random.normal(size=(len(values), steps, size)).astype(np.float32)
        for number, clip in enumerate(found[name]):
            clip[: max(0, steps - 1 - number)] = 0
    return found | others


def dataset(root: Path, content: Any, label: str | None = None, *columns: str) -> Dataset:
    path = root / "humor.pkl"
    path.write_bytes(content if isinstance(content, bytes) else pickle.dumps(content, protocol=2))
    return Dataset(
        name="multibench",
        adapter="multibench",
        root=str(root),
        annotations={"clips": str(path)},
        modalities={name: {"kind": "sequence", "column": name} for name in columns or ("vision", "text")},
        label=label,
    )


def three(values: list[float], /, **others: Any) -> dict[str, Any]:
    return {name: split(values, **others) for name in ("train", "valid", "test")}


def refused(data: Dataset) -> str:
    with pytest.raises(AgmError) as error:
        read(data)
    return str(error.value)


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        ("nonneg", ["negative"] * 3 + ["non-negative"] * 3),
        ("posneg", ["negative"] * 3 + ["positive"] * 2),
        ("seven", ["-3", "-2", "0", "0", "0", "2"]),
    ],
)
def test_labels_of_sentiment(tmp_path, label, expected):
    clips = read(dataset(tmp_path, three(SENTIMENTS), label))
    assert [clip.label for clip in clips if clip.split == "val"] == expected
    assert Counter(clip.split for clip in clips) == dict.fromkeys(("train", "val", "test"), len(expected))
    assert clips[-1].sources["text"] == Source("humor.pkl", member="test/text/5"), "its own row, whoever is left out"


@pytest.mark.parametrize("values", [[0, 1, 1], [-1, 1, 1]])
def test_labels_of_humor_and_sarcasm(tmp_path, values):
    assert [clip.label for clip in read(dataset(tmp_path, three(values)))] == ["0", "1", "1"] * 3


@given(st.floats(-3, 3))
def test_every_sentiment_has_its_class(value):
    assert LABELS["seven"](value) in {str(number) for number in range(-3, 4)}
    assert (LABELS["nonneg"](value) == "negative") == (value < 0) == (LABELS["posneg"](value) == "negative")


def test_videos_are_groups(tmp_path):
    ids = {
        "segments": np.array([["a[0]"], ["a[1]"], ["1234[0]"]]),
        "times": np.array([[b"a", b"0.0", b"1.0"], [b"a", b"1.0", b"2.0"], [b"1234", b"0.0", b"1.0"]]),
        "lists": [["a", 0.0, 1.0], ["a", 1.0, 2.0], ["1234", 0, 1]],
    }
    for given_ids in ids.values():
        clips = read(dataset(tmp_path, three([0, 1, 0], id=given_ids)))
        assert [clip.group for clip in clips[:3]] == ["a", "a", "1234"]
    for given_ids in (np.arange(3), ["10", "11", "12"]):  # numbers of clips
        assert {clip.group for clip in read(dataset(tmp_path, three([0, 1, 0], id=given_ids)))} == {None}


def test_a_clip_without_words_is_left_out(tmp_path):
    content = three([0, 1])
    content["train"]["text"][1] = 0
    assert [clip.left_out for clip in read(dataset(tmp_path, content))] == [None, "it has no word"] + [None] * 4


@pytest.mark.parametrize(
    ("content", "label", "expected"),
    [
        (three(SENTIMENTS), None, "dataset.label is 'binary', and the labels in the pickle are 6 numbers of up to 3"),
        (three([0, 1]), "nonneg", "dataset.label is 'nonneg', and the labels in the pickle are 0 and 1"),
        (three([0, 1]), "eight", "dataset.label: multibench has no 'eight'"),
        ({"train": split([0, 1])}, None, "The pickle does not hold a dict of train, valid, test"),
        ([1], None, "The pickle does not hold a dict"),
        (three([0, 1]) | {"test": {"text": np.ones((2, 3))}}, None, "`labels` is not one number for each clip"),
        (three([0, 1], labels=np.ones((2, 3))), None, "`labels` is not one number for each clip"),
        (three([0, 1], labels=["a", "b"]), None, "`labels` is not one number for each clip"),
        (three([0, 1], labels=[0.0, np.nan]), None, "`labels` is not one number for each clip"),
        (three([0, 1], vision=np.ones((3, 4, 5))), None, "train/vision is not one array for each of the 2 labels"),
        (three([0, 1], text=None), None, "train/text is not one array for each of the 2 labels"),
        (b"cos\nsystem\n.", None, "The pickle is refused: it names os.system"),
    ],
)
def test_other_pickles_are_refused(tmp_path, content, label, expected):
    message = refused(dataset(tmp_path, content, label))
    assert expected in message and "fix:" in message


def test_the_pickle_lies_below_the_root(tmp_path):
    data = dataset(tmp_path, three([0, 1]))
    (tmp_path / "other").mkdir()
    assert "not below dataset.root" in refused(data.model_copy(update={"root": str(tmp_path / "other")}))


HUMOR = pickle.dumps(three([0, 1, 1, 0], steps=2), protocol=2)


@settings(max_examples=40, deadline=None)
@given(content=edited(HUMOR[:400]))
def test_a_damaged_pickle_is_refused_or_read(tmp_path_factory, content):
    data = dataset(tmp_path_factory.getbasetemp(), content + HUMOR[400:])
    try:
        clips = read(data)
    except AgmError as error:
        assert "humor.pkl" in str(error)
    else:
        assert {clip.label for clip in clips} <= {"0", "1"}


def test_from_the_pickle_to_a_trained_network(tmp_path, monkeypatch):
    root = tmp_path / "raw"
    root.mkdir()
    content = {"train": split([0, 1] * 6), "valid": split([1, 0]), "test": split([0, 1, 0])}
    content["train"]["text"][3] = 0
    content["train"]["audio"][4, 3, 5] = -np.inf  # what COVAREP says of silence
    dataset(root, content)
    small = [
        f"encoders.{name}.{key}"
        for name in ("vision", "audio", "text")
        for key in ("dim=8", "num_heads=2", "num_layers=1", "dim_feedforward=8")
    ]
    pipeline = Pipeline(tmp_path / "work", monkeypatch, "study=ur_funny", f"dataset.root={root}", *small).run()
    assert pipeline.quarantine == {"train-3": "it has no word"}
    assert pipeline.index["clips"] == {"train": 11, "val": 2, "test": 3}
    pipeline.train()
    rows = pl.read_parquet(pipeline.data / "features/text/part-0.parquet")
    tensors = {
        name: np.frombuffer(each, "<f4").reshape(50, 300) for name, each in rows.select("clip_id", "tensor").iter_rows()
    }
    np.testing.assert_array_equal(tensors["train-0"][0], content["train"]["text"][0, 3])
    assert not tensors["train-0"][1:].any()
