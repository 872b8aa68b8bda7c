"""UR-FUNNY: the official pickles, the traps, and from the official folder to a trained network."""

import pickle
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agm.pipeline.config.schema import Dataset
from agm.pipeline.errors import AgmError
from agm.pipeline.io.source import Source
from agm.pipeline.steps.ingest.adapters import read
from edits import edited
from media import tone, write_video
from pipeline import Pipeline, official

KINDS = {"video": "video", "text": "text", "context": "text"}


def dataset(root: Path, *columns: str, **annotations: Path) -> Dataset:
    return Dataset(
        name="ur_funny",
        adapter="ur_funny",
        root=str(root),
        annotations={key: str(path) for key, path in annotations.items()},
        modalities={name: {"kind": KINDS.get(name, "sequence"), "column": name} for name in columns},
    )


def pickled(path: Path, value: Any) -> Path:
    path.write_bytes(pickle.dumps(value, protocol=2))
    return path


FOLDS = {"train": [1, 2, 3], "dev": [4], "test": [5]}
LABELS = {1: 0, 2: 1, 3: 0, 4: 1, 5: 0}
SPOKEN = {
    1: {
        "punchline_embedding_indexes": [3, 0, 3],
        "punchline_sentence": "so I did",
        "context_sentences": [["what", "now"], ["he asked"]],
        "context_embedding_indexes": [[1], [2]],
    },
    2: {"punchline_embedding_indexes": [1], "punchline_sentence": ["two", "words"], "context_sentences": []},
}


def small(root: Path, folds: Any = FOLDS, labels: Any = LABELS, spoken: Any = None) -> Dataset:
    annotations = {"folds": pickled(root / "f.pkl", folds), "labels": pickled(root / "l.pkl", labels)}
    if spoken is None:
        return dataset(root, "video", "openface", **annotations)
    annotations["language"] = pickled(root / "s.pkl", spoken)
    return dataset(root, "text", "context", "glove", **annotations)


def refused(data: Dataset) -> str:
    with pytest.raises(AgmError) as error:
        read(data)
    return str(error.value)


def test_the_official_folds_and_labels(tmp_path):
    files = {"folds": "data_folds.pkl", "labels": "humor_label_sdk.pkl"}
    annotations = {key: official(f"ur_funny/{name}") for key, name in files.items()}
    clips = read(dataset(tmp_path, "video", "openface", "covarep", **annotations))
    assert Counter((clip.split, clip.label) for clip in clips) == {
        ("train", "1"): 5306,
        ("train", "0"): 5292,
        ("val", "1"): 1313,
        ("val", "0"): 1313,
        ("test", "1"): 1638,
        ("test", "0"): 1652,
    }
    assert len({clip.clip_id for clip in clips}) == 16514
    assert clips[17].sources["covarep"] == Source("covarep_features_sdk.pkl", member="17/punchline_features")
    assert clips[17].sources["video"] == Source("urfunny2_videos/17.mp4")


def test_what_is_said(tmp_path):
    first, second, third, *_ = read(small(tmp_path, spoken=SPOKEN))
    assert first.sources["text"].text == "so I did"
    assert first.sources["context"].text == "what now he asked"
    assert first.sources["glove"] == Source("word_embedding_list.pkl", member="3,0,3,")
    assert second.sources["text"].text == "two words" and "context" not in second.sources
    assert second.sources["glove"].member == "1,", "one word is a sequence too"
    assert third.sources == {}, "what the language lacks costs its clip"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"folds": FOLDS | {"train": [1, 1]}}, "train: the id 1 is there already"),
        ({"folds": FOLDS | {"dev": [1, "2"]}}, "dev: the id 1 is there already"),
        ({"folds": FOLDS | {"test": [9]}}, "test: the id 9 has no label in humor_label_sdk.pkl"),
        ({"folds": FOLDS | {"test": ["../5"]}}, "test: '../5' is no id"),
        ({"folds": FOLDS | {"test": [None, [1]]}}, "test: '[1]' is no id"),
        ({"folds": {"train": [1], "valid": [2]}}, "The pickle has no list of ids under 'dev'"),
        ({"folds": [1, 2]}, "The pickle holds a list, not a dict"),
        ({"labels": LABELS | {5: 2}}, "test: the id 5 has the label '2', not 0 or 1"),
        ({"labels": LABELS | {5: [0]}}, "the id 5 has the label '[0]'"),
        ({"labels": LABELS | {5: "no"}}, "the id 5 has the label 'no'"),
        ({"labels": LABELS | {5: Path("/")}}, "The pickle is refused: it names pathlib"),
    ],
)
def test_wrong_pickles_are_refused(tmp_path, change, expected):
    assert expected in refused(small(tmp_path, **change))


def test_missing_annotations_are_named(tmp_path):
    data = small(tmp_path)
    assert "dataset.annotations lacks 'language'" in refused(
        dataset(tmp_path, "text", **{key: Path(path) for key, path in data.annotations.items()})
    )


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_damaged_pickle_is_refused_or_read_right(tmp_path_factory, data):
    root = tmp_path_factory.getbasetemp()
    description = small(root)
    path = Path(description.annotations[data.draw(st.sampled_from(["folds", "labels"]))])
    path.write_bytes(data.draw(edited(path.read_bytes())))
    try:
        clips = read(description)
    except AgmError as error:
        assert str(root) in str(error)
    else:
        assert {clip.label for clip in clips} <= {"0", "1"}


def official_folder(root: Path) -> Path:
    """The folder of version 2: eleven clips, of which some have something missing."""
    (root / "urfunny2_videos").mkdir(parents=True)
    random = np.random.default_rng(0)
    ids = list(range(1, 12))
    pickled(root / "data_folds.pkl", {"train": ids[:6], "dev": ids[6:8], "test": ids[8:]})
    pickled(root / "humor_label_sdk.pkl", {each: each % 2 for each in ids})
    words = {each: [int(number) for number in random.integers(1, 5, 1 + each % 4)] for each in ids}
    pickled(
        root / "language_sdk.pkl",
        {each: {"punchline_embedding_indexes": words[each], "punchline_sentence": "a b"} for each in ids if each != 2},
    )
    pickled(root / "word_embedding_list.pkl", [random.normal(size=300).tolist() for _ in range(5)])
    for name, size in {"openface": 371, "covarep": 81}.items():
        features = {each: {"punchline_features": random.normal(size=(len(words[each]), size))} for each in ids}
        features[1]["punchline_features"] = features[1]["punchline_features"].tolist()
        if name == "covarep":
            features[3]["punchline_features"] = np.full((2, 81), -np.inf)  # silence: read as zeros
            del features[4]
            features[5]["punchline_features"] = np.ones((2, 75))  # version 1 of another feature
        pickled(root / f"{name}_features_sdk.pkl", features)
    for each in ids:
        write_video(root / f"urfunny2_videos/{each}.mp4", 4, sound=tone(300 + each, 0.5, 16000))
    return root


SMALL = [
    f"encoders.{name}.{key}"
    for name in ("vision", "audio", "text")
    for key in ("dim=8", "num_heads=2", "num_layers=1", "dim_feedforward=8")
]


def test_from_the_official_features_to_a_trained_network(tmp_path, monkeypatch):
    root = official_folder(tmp_path / "raw")
    pipeline = Pipeline(
        tmp_path / "work", monkeypatch, "study=ur_funny", "dataset=ur_funny", f"dataset.root={root}", *SMALL
    ).run()
    assert pipeline.quarantine == {
        "2": "the annotations name no file for text",
        "4": "the file has no '4/punchline_features'",
        "5": "each step of the array has the shape [75], and [81] is expected",
    }
    assert pipeline.index["clips"] == {"train": 5, "val": 2, "test": 3}
    pipeline.train()


def test_from_the_raw_videos(tmp_path, monkeypatch):
    root = official_folder(tmp_path / "raw")
    (root / "urfunny2_videos/1.mp4").unlink()
    (root / "urfunny2_videos/2.mp4").write_bytes(b"damaged")
    write_video(root / "urfunny2_videos/3.mp4", 4)
    pipeline = Pipeline(
        tmp_path / "work",
        monkeypatch,
        "study=ur_funny",
        "dataset=ur_funny",
        f"dataset.root={root}",
        "encoder@encoders.vision=conv",
        "encoder@encoders.audio=conv",
        "dataset.modalities.vision={kind:video,column:video}",
        "dataset.modalities.audio={kind:audio,column:video}",
        "~features.vision",
        "~features.audio",
        "+features.vision={frames:1,size:16}",
        "+features.audio={sample_rate:8000,seconds:0.5,n_fft:256,hop_length:256}",
        *SMALL[8:],
    ).run()
    assert {name: reason.split(":")[0] for name, reason in pipeline.quarantine.items()} == {
        "1": "the file is not there",
        "2": "not a video or sound file, truncated or damaged",
        "3": "the video has no sound",
    }
    pipeline.train()
