"""AV-MNIST: rows of large arrays; and the spoken digits in its place."""

import csv
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agm.pipeline.config.schema import ArrayFeatures, Dataset
from agm.pipeline.errors import AgmError
from agm.pipeline.io.files import read_json
from agm.pipeline.io.media import Unusable
from agm.pipeline.io.source import Source
from agm.pipeline.io.tables import SPLITS
from agm.pipeline.steps.extract import array
from agm.pipeline.steps.ingest.adapters import differences, read
from clone import ROOT
from pipeline import Pipeline

SPOKEN_DIGITS = ROOT.parent / "shared/data/spoken_digits"


def dataset(root: Path) -> Dataset:
    return Dataset(
        name="av_mnist",
        adapter="av_mnist",
        root=str(root),
        annotations={f"{half}_labels": f"{root}/{half}_labels.npy" for half in ("train", "test")},
        modalities={name: {"kind": "array", "column": name} for name in ("image", "audio")},
    )


def labels(root: Path, train: np.ndarray, test: np.ndarray) -> Dataset:
    root.mkdir(parents=True, exist_ok=True)
    np.save(root / "train_labels.npy", train)
    np.save(root / "test_labels.npy", test)
    return dataset(root)


# --- labels ---


def test_the_last_5000_training_clips_are_for_validation(tmp_path):
    data = labels(tmp_path, np.arange(60000) % 10, np.arange(10000) % 10)
    clips = read(data)
    assert Counter(clip.split for clip in clips) == {"train": 55000, "val": 5000, "test": 10000}
    assert set(Counter((clip.split, clip.label) for clip in clips).values()) == {5500, 500, 1000}
    assert differences(data, clips) == []
    assert clips[54999].split == "train" and clips[55000].split == "val"
    assert clips[55000].sources["image"] == Source("image/train_data.npy", member="55000")
    assert clips[60003].clip_id == "test_00003" and clips[60003].label == "3"
    assert clips[60003].sources["audio"] == Source("audio/test_data.npy", member="3")


def test_labels_may_be_floats_in_a_column(tmp_path):
    clips = read(labels(tmp_path, np.array([[7.0], [0.0]]), np.array([3.0])))
    assert [clip.label for clip in clips] == ["7", "0", "3"]


def test_another_number_of_clips_is_a_note(tmp_path):
    data = labels(tmp_path, np.arange(12) % 10, np.arange(3))
    assert differences(data, read(data))[0] == "The annotations have 11 clips in train; officially there are 55,000"


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        (np.array([1, 10, 2, -1]), "row 1: 10 is no digit"),
        (np.array([1.0, 2.5]), "row 1: 2.5 is no digit"),
        (np.array([1.0, np.nan]), "row 1: nan is no digit"),
        (np.eye(10), "one label for each clip, found an array [10, 10]"),
        (np.array(["one", "two"]), "holds <U3, not integers"),
        (np.array([{"a": 1}], object), "made of Python objects"),
    ],
)
def test_wrong_labels_are_refused(tmp_path, wrong, expected):
    with pytest.raises(AgmError) as error:
        read(labels(tmp_path, wrong, np.array([1])))
    assert expected in str(error.value) and "train_labels.npy" in str(error.value)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 150), st.integers(0, 8), st.binary(max_size=8))
def test_no_edit_of_the_labels_ends_in_a_traceback_or_a_wrong_label(tmp_path_factory, place, length, new):
    data = labels(tmp_path_factory.mktemp("labels"), np.arange(10, dtype=np.uint8), np.arange(4))
    path = Path(data.annotations["train_labels"])
    content = path.read_bytes()
    path.write_bytes(edited := content[:place] + new + content[place + length :])
    try:
        clips = read(data)
    except AgmError as error:
        assert str(path) in str(error)
        return
    assert all(clip.label in set("0123456789") for clip in clips)
    if edited[:128] == content[:128]:
        assert [clip.label for clip in clips if clip.split != "test"] == [str(byte) for byte in edited[128:138]]


# --- the kind `array` ---


def test_an_array_is_brought_to_its_shape_and_scale(tmp_path):
    rows = np.arange(2 * 6, dtype=np.float64).reshape(2, 6)
    np.save(tmp_path / "rows.npy", rows)
    asked = ArrayFeatures(kind="array", shape=[1, 2, 3], scale=2.0)
    found = array.load(Source(str(tmp_path / "rows.npy"), member="1"), asked)
    assert found.dtype == np.float32 and found.shape == array.feature(asked).shape == (1, 2, 3)
    np.testing.assert_array_equal(found[0], [[3.0, 3.5, 4.0], [4.5, 5.0, 5.5]])
    whole = array.load(Source(str(tmp_path / "rows.npy")), ArrayFeatures(kind="array", shape=[3, 2, 2]))
    np.testing.assert_array_equal(whole.ravel(), np.arange(12))


@pytest.mark.parametrize(
    ("rows", "member", "expected"),
    [
        (np.zeros((2, 7)), "1", r"shape \[7\], and \[1, 2, 3\] is expected"),
        (np.zeros((2, 6)), "2", "numbered from 0"),
        (np.full((2, 6), np.nan), "0", "not finite"),
        (np.full((2, 6), 1e300), "0", "too large"),
        (np.full((2, 6), "x"), "0", "not integers or floating-point numbers"),
    ],
)
def test_an_array_that_does_not_fit_costs_its_clip(tmp_path, rows, member, expected):
    np.save(tmp_path / "rows.npy", rows)
    with pytest.raises(Unusable, match=expected):
        array.load(Source(str(tmp_path / "rows.npy"), member=member), ArrayFeatures(kind="array", shape=[1, 2, 3]))


# --- from the raw folder to a trained network ---

CONV = ("encoder@encoders.image=conv", "encoder@encoders.audio=conv", "trainer=small")


def test_from_the_official_folder_to_a_trained_network(tmp_path, monkeypatch):
    """24 training and 8 test clips; a row with a number that is not finite, and one label without its row."""
    root, chance = tmp_path / "avmnist", np.random.default_rng(0)
    labels(root, np.arange(24) % 10, np.arange(9) % 10)
    for modality, shape in (("image", (784,)), ("audio", (112, 112))):
        (root / modality).mkdir()
        for half, count in (("train", 24), ("test", 8)):
            values = chance.uniform(0, 255, (count, *shape))
            if (modality, half) == ("audio", "train"):
                values[5, 0, 0] = np.nan
            np.save(root / modality / f"{half}_data.npy", values)
    run = Pipeline(tmp_path / "run", monkeypatch, "study=av_mnist", *CONV, f"dataset.root={root}").run()
    assert run.train()
    assert run.index["clips"] == {"train": 22, "val": 2, "test": 9}
    assert run.quarantine.keys() == {"train_00005", "test_00008"}
    assert "not finite" in run.quarantine["train_00005"] and "numbered from 0" in run.quarantine["test_00008"]


def test_a_data_file_that_is_missing_is_told(tmp_path, monkeypatch):
    root = tmp_path / "avmnist"
    labels(root, np.arange(24) % 10, np.arange(9) % 10)
    run = Pipeline(tmp_path / "run", monkeypatch, "study=av_mnist", *CONV, f"dataset.root={root}")
    run.run(("annotations", "list"))
    with pytest.raises(AssertionError, match="ingest"):
        run.run(("ingest",))


def test_spoken_digits_in_its_place_by_configuration_alone(tmp_path, monkeypatch):
    """The study of AV-MNIST on the written and spoken digits: 28 × 28 images, mel spectrograms of 112 × 112."""
    if not SPOKEN_DIGITS.exists():
        pytest.skip("the spoken digits are not here")
    with open(SPOKEN_DIGITS / "manifest.csv", newline="") as file:
        header, *rows = csv.reader(file)
    subset = [row for split in SPLITS for row in [row for row in rows if row[1] == split][:20]]
    with open(tmp_path / "subset.csv", "w", newline="") as file:
        csv.writer(file).writerows([header, *subset])
    # 8,000 samples, a window every 72: 1 + 8000 // 72 = 112.
    run = Pipeline(
        tmp_path / "run",
        monkeypatch,
        "study=av_mnist",
        "dataset=spoken_digits",
        "encoder@encoders.image=conv",
        "encoder@encoders.audio=conv",
        "trainer=small",
        "features.audio.n_mels=112",
        "features.audio.hop_length=72",
        "features.audio.n_fft=1024",
        f"dataset.root={SPOKEN_DIGITS}",
        f"dataset.annotations.clips={tmp_path}/subset.csv",
    ).run()
    assert run.index["clips"] == {"train": 20, "val": 20, "test": 20}
    assert run.quarantine == {}
    shapes = {name: read_json(run.data / f"features/{name}/part-0.json")["feature"]["shape"] for name in header[3:5]}
    assert shapes == {"image": [1, 28, 28], "audio": [1, 112, 112]}
    assert run.train()
