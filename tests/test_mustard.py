"""MUStARD: the official annotations and folds, the traps, and from the official folder to a trained network."""

import json
import pickle
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agm.pipeline.config.schema import Dataset, Split
from agm.pipeline.errors import AgmError
from agm.pipeline.io.source import Source
from agm.pipeline.steps.ingest.adapters import differences, read
from agm.pipeline.steps.ingest.split import assign
from edits import edited
from media import tone, write_video
from pipeline import Pipeline, official

KINDS = {"video": "video", "context_video": "video", "text": "text", "context": "text"}


def dataset(path: Path, scheme: str | None = None, folds: Path | None = None) -> Dataset:
    return Dataset(
        name="mustard",
        adapter="mustard",
        root=str(path.parent),
        annotations={"clips": str(path)} | ({"folds": str(folds)} if folds else {}),
        modalities={name: {"kind": kind, "column": name} for name, kind in KINDS.items()},
        split=Split(scheme=scheme),
    )


def entry(number: int, **changes: Any) -> dict[str, Any]:
    """One clip, of a person and series of its own for each number."""
    return {
        "utterance": f"Oh, great {number}.",
        "speaker": f"PERSON{number}",
        "context": ["What?", "So."],
        "context_speakers": ["A", "B"],
        "show": "FRIENDS" if number % 3 == 0 else "BBT",
        "sarcasm": number % 2 == 0,
    } | changes


def written(folder: Path, content: Any) -> Path:
    path = folder / "sarcasm_data.json"
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return path


def refused(data: Dataset) -> str:
    with pytest.raises(AgmError) as error:
        read(data)
    return str(error.value)


# --- the official files ---


def official_data(scheme: str | None = None) -> Dataset:
    return dataset(official("mustard/sarcasm_data.json"), scheme, official("mustard/split_indices.p"))


def test_the_official_annotations():
    data = official_data()
    clips = read(data)
    assert Counter((clip.split, clip.label) for clip in clips) == {
        ("test", "sarcastic"): 152,
        ("test", "not sarcastic"): 204,
        ("train", "sarcastic"): 193,
        ("train", "not sarcastic"): 141,
    }
    assert differences(data, clips) == []
    first = clips[0]
    assert (first.clip_id, first.label, first.group, first.row) == ("1_60", "sarcastic", "SHELDON (BBT)", 1)
    assert first.sources["video"] == Source("utterances_final/1_60.mp4")
    assert first.sources["context_video"] == Source("context_final/1_60_c.mp4")
    assert first.sources["text"].text == "It's just a privilege to watch your mind at work."
    assert first.sources["context"].text.endswith("My apologies. What's your plan?")


def test_by_default_no_speaker_is_in_two_splits():
    data = official_data()
    clips = read(data)
    splits = assign(clips, data.split)
    groups = defaultdict(set)
    for clip, split in zip(clips, splits, strict=True):
        groups[split].add(clip.group)
    assert set(groups) == {"train", "val", "test"}
    assert sum(map(len, groups.values())) == len({clip.group for clip in clips}) == 23
    assert 30 < Counter(splits)["val"] < 80


@pytest.mark.parametrize("number", range(1, 6))
def test_the_official_folds(number):
    data = official_data(f"fold{number}")
    clips = read(data)
    train, test = json.loads(official("mustard/split_indices.json").read_text())[number - 1]
    assert [row for row, clip in enumerate(clips) if clip.split == "test"] == sorted(test)
    assert [row for row, clip in enumerate(clips) if clip.split == "train"] == sorted(train)
    assert (len(train), len(test)) == (552, 138) and differences(data, clips) == []
    groups = {split: {clip.group for clip in clips if clip.split == split} for split in ("train", "test")}
    assert len(groups["train"] & groups["test"]) > 10, "a leak, which ingest finds and the report marks"


# --- what is wrong ---


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"sarcasm": 1}, "entry 2 ('1_1'): sarcasm is neither true nor false"),
        ({"sarcasm": "true"}, "sarcasm is neither true nor false"),
        ({"sarcasm": None}, "sarcasm is neither true nor false"),
        ({"utterance": ""}, "entry 2 ('1_1'): utterance is no text"),
        ({"utterance": "\ud800"}, "utterance is no text"),
        ({"speaker": None}, "speaker is no text"),
        ({"show": ["BBT"]}, "show is no text"),
        ({"context": "What?"}, "context is no list of texts"),
        ({"context": ["a", 1]}, "context is no list of texts"),
    ],
)
def test_a_wrong_entry_is_refused(tmp_path, changes, expected):
    path = written(tmp_path, {"1_0": entry(0), "1_1": entry(1, **changes)})
    message = refused(dataset(path))
    assert expected in message and str(path) in message


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "The annotations are not JSON"),
        (b'{"1_0": ', "The annotations are not JSON"),
        (b"[1]", "The annotations are no JSON object of clips"),
        (b"{}", "The annotations are no JSON object of clips"),
        (b'{"1_0": 1, "1_1": 2, "1_0": 3}', "The annotations are not JSON: the key '1_0' is there twice"),
        (b'{"1_0": {"sarcasm": true, "sarcasm": false}}', "the key 'sarcasm' is there twice"),
        (b'{"1_0": [true]}', "entry 1 ('1_0'): it is no object"),
        (json.dumps({"../1": entry(1)}).encode(), "entry 1 ('../1'): its id is not fit for a file name"),
        (json.dumps({"..": entry(1)}).encode(), "its id is not fit for a file name"),
        (b'{"1_0": "\xff"}', "not UTF-8: row 1 has the byte 0xff"),
        (b"[" * 100_000, "The annotations are not JSON"),
    ],
)
def test_a_wrong_file_is_refused(tmp_path, content, expected):
    assert expected in refused(dataset(written(tmp_path, content)))


@pytest.mark.parametrize(
    ("folds", "expected"),
    [
        ([([0], [1])] * 5, "Fold 2 does not have each of the 3 clips once: 1 to train on, 1 to test on"),
        ([([0, 1], [1, 2])] * 5, "Fold 2 does not have each of the 3 clips once"),
        ([([0, 1], [2])], "The pickle has no fold 2 of two lists"),
        ({"train": [0]}, "The pickle has no fold 2 of two lists"),
        ([1, 2, 3], "The pickle has no fold 2 of two lists"),
        ([([0, 1], ["x"])] * 5, "The pickle has no fold 2 of two lists"),
        (Path("/"), "The pickle is refused: it names pathlib"),
    ],
)
def test_wrong_folds_are_refused(tmp_path, folds, expected):
    path = tmp_path / "split_indices.p"
    path.write_bytes(pickle.dumps(folds, protocol=2))
    clips = written(tmp_path, {f"1_{number}": entry(number) for number in range(3)})
    assert expected in refused(dataset(clips, "fold2", path))
    assert read(dataset(clips, "speakers", path)), "which does not read them"


def test_folds_that_are_not_given_are_asked_for(tmp_path):
    assert "dataset.annotations lacks 'folds'" in refused(dataset(written(tmp_path, {"1_0": entry(0)}), "fold1"))


CLIPS = {f"1_{number}": entry(number) for number in range(4)}


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_edited_annotations_are_refused_or_read_right(tmp_path_factory, data):
    content = data.draw(edited(json.dumps(CLIPS).encode()))
    path = written(tmp_path_factory.getbasetemp(), content)
    try:
        clips = read(dataset(path))
    except AgmError as error:
        assert str(path) in str(error)
    else:
        labels = {clip.clip_id: clip.label for clip in clips}
        for name, each in CLIPS.items():
            if f'"{name}": {json.dumps(each)}'.encode() in content and name in labels:
                assert labels[name] == ("sarcastic" if each["sarcasm"] else "not sarcastic")


# --- to a trained network ---


@pytest.mark.parametrize("scheme", ["speakers", "fold1"])
def test_from_the_official_folder_to_a_trained_network(tmp_path, monkeypatch, scheme):
    root = tmp_path / "raw"
    for folder in ("data", "utterances_final", "context_final"):
        (root / folder).mkdir(parents=True)
    people = ["SHELDON", "PENNY", "LEONARD", "RAJ"]
    content = {
        f"1_{number}": entry(number, speaker=people[number % 4], show="FRIENDS" if number >= 12 else "BBT")
        for number in range(18)
    }
    content["1_4"]["context"] = []
    written(root / "data", content)
    halves = [number for number in range(18) if number % 4 != 1], [1, 5, 9, 13, 17]
    (root / "data/split_indices.p").write_bytes(pickle.dumps([halves] * 5, protocol=2))
    for name in content:
        write_video(root / f"utterances_final/{name}.mp4", 4, sound=tone(300, 0.5, 16000))
    (root / "utterances_final/1_0.mp4").unlink()
    (root / "utterances_final/1_1.mp4").write_bytes(b"damaged")
    write_video(root / "utterances_final/1_2.mp4", 4)
    pipeline = Pipeline(
        tmp_path / "work",
        monkeypatch,
        "study=mustard",
        f"dataset.root={root}",
        f"dataset.split.scheme={scheme}",
        "encoder@encoders.video=conv",
        "encoder@encoders.audio=conv",
        "features.video.size=16",
        "features.audio.seconds=0.5",
        "encoders.text.dim=8",
        "encoders.text.num_heads=2",
    ).run()
    assert {name: reason.split(":")[0] for name, reason in pipeline.quarantine.items()} == {
        "1_0": "the file is not there",
        "1_1": "not a video or sound file, truncated or damaged",
        "1_2": "the video has no sound",
    }
    assert pipeline.index["leaks"] == []
    assert pipeline.index["classes"] == ["not sarcastic", "sarcastic"]
    pipeline.train()
