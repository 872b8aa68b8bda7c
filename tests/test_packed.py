"""One clip of a file that holds many: .npy, HDF5, .csd and pickles, and sequences made of them."""

import pickle
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from agm.pipeline.config.schema import SequenceFeatures
from agm.pipeline.io import packed
from agm.pipeline.io.media import Unusable
from agm.pipeline.io.source import Source
from agm.pipeline.steps.extract import sequence
from agm.pipeline.steps.ingest.probe import Media, probe

ROWS = np.arange(24, dtype=np.float32).reshape(4, 3, 2)


def saved(folder: Path, name: str, value: Any) -> str:
    path = folder / name
    if path.suffix == ".npy":
        np.save(path, value)
    else:
        path.write_bytes(pickle.dumps(value))
    return str(path)


def csd(path: Path, features: np.ndarray, intervals: np.ndarray) -> str:
    """A file of the CMU multimodal SDK with one video."""
    with h5py.File(path, "w") as file:
        video = file.create_group("glove_vectors/data/a video")
        video["features"], video["intervals"] = features, intervals
        file.create_group("glove_vectors/metadata")["md5"] = "abc"
    return str(path)


def refused(source: Source) -> str:
    with pytest.raises(Unusable) as error:
        packed.opened(source)
    return str(error.value)


def test_a_row_of_a_numpy_file(tmp_path):
    path = saved(tmp_path, "a.npy", ROWS)
    np.testing.assert_array_equal(packed.opened(Source(path, member="2")), ROWS[2])
    assert refused(Source(path, member="4")) == "the file has no '4': 4 elements are numbered from 0"
    for member in ("-1", "x", "", "²"):
        assert "the file has no" in refused(Source(path, member=member))


def test_parts_of_an_hdf5_file(tmp_path):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["avadataset"] = ROWS
        file["clips/x"] = ROWS[0]
        file["words"] = np.array([b"a", b"b"])
        file["objects"] = np.array(["a", "b"], h5py.string_dtype())
    np.testing.assert_array_equal(packed.opened(Source(str(path), member="avadataset/3")), ROWS[3])
    np.testing.assert_array_equal(packed.opened(Source(str(path), member="clips/x")), ROWS[0])
    for member in ("avadataset/4", "nothing", "nothing/0", "clips", "avadataset/x", "clips/y", ""):
        assert "the file has no" in refused(Source(str(path), member=member))
    assert refused(Source(str(path), member="words")) == "'words' holds |S1, not numbers"
    assert refused(Source(str(path), member="objects")) == "'objects' holds object, not numbers"


def test_the_steps_of_a_csd_file_that_overlap_the_clip(tmp_path):
    intervals = np.array([[0, 1], [1, 2], [2, 3], [3, 4]], float)
    path = csd(tmp_path / "a.csd", np.arange(8.0).reshape(4, 2), intervals)

    def steps(**piece: float) -> list[float]:
        return packed.opened(Source(path, member="a video", **piece))[:, 0].tolist()

    assert steps() == [0, 2, 4, 6]
    assert steps(start=1.0, end=3.0) == [2, 4]  # what only touches it does not overlap it
    assert steps(start=0.5, end=2.5) == [0, 2, 4]
    assert steps(start=1.2, end=1.3) == [2]
    assert steps(start=3.5) == [6]
    assert refused(Source(path, member="a video", start=4.0, end=5.0)) == "'a video' is empty: its shape is [0, 2]"
    assert refused(Source(path, member="another")) == "the file has no 'another'"


def test_damaged_hdf5_files(tmp_path):
    wrong = csd(tmp_path / "wrong.csd", np.ones((4, 2)), np.ones((3, 2)))
    assert "has features [4, 2] and intervals [3, 2]" in refused(Source(wrong, member="a video"))
    good = Path(csd(tmp_path / "good.csd", np.ones((400, 20)), np.ones((400, 2)))).read_bytes()
    for name, content in {"cut.csd": good[:-3000], "text.h5": b"no HDF5 at all", "empty.hdf5": b""}.items():
        (tmp_path / name).write_bytes(content)
        assert refused(Source(str(tmp_path / name), member="a video")).startswith("not an HDF5 file, truncated")


PICKLE = {
    "train": {"text": ROWS, "lists": [[[1, 2], [3, 4]], [[5, 6]]], "labels": np.array([[[1.0]]])},
    7: {"punchline_features": [[0.5, -np.inf], [np.nan, 2]]},
    "ragged": [[1, 2], [3]],
    "words": ["a", "b"],
    "empty": [],
    "vectors": [[0.0, 0.0], [1.0, 1.0], [2.0, 2.0]],
}


@pytest.mark.parametrize(
    ("member", "expected"),
    [
        ("train/text/1", ROWS[1]),
        ("train/text/1/2", ROWS[1, 2]),
        ("train/lists/0", [[1, 2], [3, 4]]),
        ("7/punchline_features", [[0.5, 0], [0, 2]]),
        ("vectors", PICKLE["vectors"]),
        ("vectors/2,0,2", [[2, 2], [0, 0], [2, 2]]),
        ("vectors/2,", [[2, 2]]),
    ],
)
def test_a_part_of_a_pickle(tmp_path, member, expected):
    found = packed.opened(Source(saved(tmp_path, "a.pkl", PICKLE), member=member))
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, np.asarray(expected, np.float32))


@pytest.mark.parametrize(
    ("member", "reason"),
    [
        ("train/text/4", "the file has no 'train/text/4': 4 elements"),
        ("train/video/0", "the file has no 'train/video/0'"),
        ("8/punchline_features", "the file has no"),
        ("7/punchline_features/0/0/0", "the file has no"),
        ("vectors/1,3", "the file has no"),
        ("vectors/,", "the file has no"),
        ("train", "'train' holds object, not numbers"),
        ("ragged", "'ragged' is no array: its rows differ in length"),
        ("words", "'words' holds <U1, not numbers"),
        ("empty", "'empty' is empty: its shape is [0]"),
    ],
)
def test_what_a_pickle_does_not_have(tmp_path, member, reason):
    assert refused(Source(saved(tmp_path, "a.pickle", PICKLE), member=member)).startswith(reason)


def test_a_pickle_that_is_refused_costs_its_clips(tmp_path):
    for name, content in {"a.p": b"cos\nsystem\n.", "b.p": b"", "c.p": pickle.dumps(PICKLE)[:-9]}.items():
        (tmp_path / name).write_bytes(content)
        assert refused(Source(str(tmp_path / name), member="a")).startswith("The pickle is ")


def test_a_pickle_is_read_once_and_again_when_it_changes(tmp_path, monkeypatch):
    reads = []
    load = packed.unpickle.load
    monkeypatch.setattr(packed.unpickle, "load", lambda path: reads.append(path) or load(path))
    path = saved(tmp_path, "a.pkl", {"a": [1.0], "b": [2.0]})
    assert [packed.opened(Source(path, member=name)).tolist() for name in "abab"] == [[1], [2], [1], [2]]
    assert len(reads) == 1
    saved(tmp_path, "a.pkl", {"a": [3.0]})
    assert packed.opened(Source(path, member="a")).tolist() == [3] and len(reads) == 2


def test_other_files_are_refused(tmp_path):
    assert "files of many clips are .npy, .h5" in refused(Source(str(tmp_path / "a.zip"), member="a"))
    assert packed.in_pickle(Source("a.PKL", member="1")) and not packed.in_pickle(Source("a.pkl"))
    assert not packed.in_pickle(Source("a.h5", member="1")) and not packed.in_pickle(Source(text="a"))


def test_a_sequence_of_a_packed_file(tmp_path):
    rows = np.zeros((2, 5, 2), np.float32)
    rows[0, 3:] = [[1, 2], [3, 4]]
    source = Source(saved(tmp_path, "a.pkl", {"train": {"text": rows}}), member="train/text/0")
    assert probe(source, "sequence") == Media()
    kept = sequence.load(source, SequenceFeatures(kind="sequence", steps=4, shape=[2]))
    assert kept.tolist() == [[0, 0], [0, 0], [0, 0], [1, 2]]
    front = SequenceFeatures(kind="sequence", steps=4, shape=[2], padding="front")
    assert sequence.load(source, front).tolist() == [[1, 2], [3, 4], [0, 0], [0, 0]]
    nothing = Source(source.path, member="train/text/1")
    assert sequence.load(nothing, front).tolist() == [[0, 0]] * 4
