"""UCF-101: the official lists, and a small tree in its layout."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agm.pipeline.config.schema import Dataset, Split
from agm.pipeline.errors import AgmError
from agm.pipeline.steps.ingest.adapters import differences, read
from media import tone, write_video
from pipeline import Pipeline, official

LISTS = "ucf101/ucfTrainTestlist"


def dataset(root: Path, lists: Path, scheme: str | None = None, **kinds: str) -> Dataset:
    modalities = {name: {"kind": kind, "column": "video"} for name, kind in (kinds or {"rgb": "video"}).items()}
    return Dataset(
        name="ucf101",
        adapter="ucf101",
        root=str(root),
        annotations={"lists": str(lists)},
        modalities=modalities,
        split=Split(scheme=scheme),
    )


# --- the official lists ---


@pytest.mark.parametrize(
    ("scheme", "train", "test", "first"),
    [(None, 9537, 3783, (101, 44)), ("split2", 9586, 3734, (106, 39)), ("split3", 9624, 3696, (108, 37))],
)
def test_the_official_counts(tmp_path, scheme, train, test, first):
    data = dataset(tmp_path, official(LISTS), scheme)
    clips = read(data)
    assert Counter(clip.split for clip in clips) == {"train": train, "test": test}
    assert differences(data, clips) == []
    assert len({clip.clip_id for clip in clips}) == 13320
    assert len({clip.label for clip in clips}) == 101
    classes = Counter((clip.split, clip.label) for clip in clips)
    assert (classes["train", "ApplyEyeMakeup"], classes["test", "ApplyEyeMakeup"]) == first
    groups = {split: {clip.group for clip in clips if clip.split == split} for split in ("train", "test")}
    assert not groups["train"] & groups["test"]
    assert len(groups["train"] | groups["test"]) == 2525, "25 groups of each class"


def test_counts_of_each_class_are_those_of_the_lists(tmp_path):
    """Counted in another way: by the number behind each training clip, and the folder of each test clip."""
    lists = official(LISTS)
    numbers = dict(line.split()[::-1] for line in (lists / "classInd.txt").read_text().splitlines())
    train = Counter(line.split()[1] for line in (lists / "trainlist01.txt").read_text().splitlines())
    test = Counter(line.split("/")[0] for line in (lists / "testlist01.txt").read_text().splitlines())
    found = Counter((clip.split, clip.label) for clip in read(dataset(tmp_path, lists)))
    assert found == {("train", name): train[number] for name, number in numbers.items()} | {
        ("test", name): test[name] for name in numbers
    }


def test_a_class_that_is_spelt_in_two_ways_is_found(tmp_path):
    (tmp_path / "UCF-101/HandStandPushups").mkdir(parents=True)
    (tmp_path / "UCF-101/HandStandPushups/v_HandstandPushups_g01_c01.avi").touch()
    clips = {clip.clip_id: clip for clip in read(dataset(tmp_path, official(LISTS)))}
    clip = clips["v_HandStandPushups_g01_c01"]
    assert clip.label == "HandstandPushups"
    assert clip.sources["rgb"].path == "UCF-101/HandStandPushups/v_HandstandPushups_g01_c01.avi"
    missing = clips["v_HandStandPushups_g01_c02"].sources["rgb"].path
    assert missing == "UCF-101/HandStandPushups/v_HandStandPushups_g01_c02.avi"


# --- small lists ---

CLASSES = b"1 Archery\r\n2 HandstandPushups\r\n"
TRAIN = (
    b"Archery/v_Archery_g03_c01.avi 1\r\nArchery/v_Archery_g04_c01.avi 1\r\nArchery/v_Archery_g05_c01.avi 1\r\n"
    b"HandstandPushups/v_HandStandPushups_g03_c01.avi 2\r\nHandstandPushups/v_HandStandPushups_g04_c01.avi 2\r\n"
    b"HandstandPushups/v_HandStandPushups_g05_c01.avi 2\r\n"
)
TEST = b"Archery/v_Archery_g01_c01.avi\r\nHandstandPushups/v_HandStandPushups_g01_c01.avi\r\n"


def small(root: Path, train: bytes = TRAIN, test: bytes = TEST, classes: bytes = CLASSES) -> Path:
    lists = root / "ucfTrainTestlist"
    lists.mkdir(parents=True, exist_ok=True)
    for name, content in (("classInd", classes), ("trainlist01", train), ("testlist01", test)):
        (lists / f"{name}.txt").write_bytes(content)
    return lists


def test_the_same_group_number_in_two_classes_is_two_groups(tmp_path):
    clips = read(dataset(tmp_path, small(tmp_path)))
    assert [clip.group for clip in clips if "_g03_" in clip.clip_id] == ["Archery_g03", "HandstandPushups_g03"]


@pytest.mark.parametrize(
    ("lists", "expected"),
    [
        ({"train": TRAIN + b"Archery/v_Archery_g09_c01.avi\r\n"}, "row 7: the number of the class is missing"),
        (
            {"train": TRAIN + b"Archery/v_Archery_g09_c01.avi 2\r\n"},
            "row 7: Archery has the number 1 in classInd.txt, not 2",
        ),
        (
            {"train": TRAIN + b"Archery/v_Bowling_g09_c01.avi 1\r\n"},
            "row 7: the clip v_Bowling_g09_c01 is in the folder of",
        ),
        ({"test": TEST + b"Bowling/v_Bowling_g09_c01.avi\r\n"}, "row 3: classInd.txt has no class 'Bowling'"),
        ({"test": TEST + b"../../etc/passwd\r\n"}, "row 3: not `<Class>/v_<Class>_g<group>_c<clip>.avi`"),
        ({"test": TEST + TRAIN}, "row 3: v_Archery_g03_c01 is in the train list already"),
        ({"classes": CLASSES + b"three Bowling\r\n"}, "row 3: not `<number> <Class>`"),
        ({"classes": CLASSES + b"2 Bowling\r\n"}, "row 3: the class or its number is there already"),
    ],
)
def test_wrong_rows_are_refused_with_file_and_row(tmp_path, lists, expected):
    with pytest.raises(AgmError) as error:
        read(dataset(tmp_path, small(tmp_path, **lists)))
    assert expected in str(error.value) and "ucfTrainTestlist" in str(error.value)


def test_a_missing_list_is_named(tmp_path):
    with pytest.raises(AgmError, match="has no trainlist02"):
        read(dataset(tmp_path, small(tmp_path), "split2"))


@settings(max_examples=50, deadline=None)
@given(st.integers(0, len(TRAIN) - 1), st.integers(1, 8), st.binary(max_size=8))
def test_no_edit_of_a_list_ends_in_a_traceback_or_a_wrong_label(tmp_path_factory, place, length, new):
    root = tmp_path_factory.mktemp("lists")
    edited = TRAIN[:place] + new + TRAIN[place + length :]
    before = {clip.row: clip for clip in read(dataset(root, small(root))) if clip.split == "train"}
    try:
        after = read(dataset(root, small(root, edited)))
    except AgmError as error:
        assert "ucfTrainTestlist" in str(error)
        return
    for clip in after:
        assert clip.label.lower() in clip.clip_id.lower()
    untouched = {line: row for row, line in enumerate(TRAIN.splitlines(), 1) if line in edited.splitlines()}
    labels = {clip.clip_id: clip.label for clip in after}
    assert all(labels[before[row].clip_id] == before[row].label for row in untouched.values())


# --- from the raw folder to a trained network ---


def tree(root: Path) -> None:
    """Clips of two classes; some missing, damaged, mute or too short."""
    lists = small(
        root,
        TRAIN + b"Archery/v_Archery_g06_c01.avi 1\nArchery/v_Archery_g07_c01.avi 1\nArchery/v_Archery_g08_c01.avi 1\n",
        TEST + b"Archery/v_Archery_g02_c01.avi\nHandstandPushups/v_HandStandPushups_g02_c01.avi\n",
    )
    sound = tone(440, 1.0, 16000)
    for line in (lists / "trainlist01.txt").read_text().split() + (lists / "testlist01.txt").read_text().split():
        if not line.endswith(".avi"):
            continue
        path = root / "UCF-101" / line.replace("HandstandPushups/", "HandStandPushups/")
        path.parent.mkdir(parents=True, exist_ok=True)
        chance = np.random.default_rng(len(line))
        picture = chance.integers(0, 255, (24, 32), dtype=np.uint8)
        write_video(path, 6, (32, 24), sound=sound, codec="mpeg4", picture=picture)
    archery = root / "UCF-101/Archery"
    (archery / "v_Archery_g06_c01.avi").unlink()
    (archery / "v_Archery_g07_c01.avi").write_bytes((archery / "v_Archery_g03_c01.avi").read_bytes()[:300])
    write_video(archery / "v_Archery_g08_c01.avi", 6, (32, 24), codec="mpeg4")
    write_video(archery / "v_Archery_g02_c01.avi", 6, (32, 24), codec="mpeg4", sound=sound[:100])


SMALL = (
    "study=ucf101",
    "trainer=small",
    "encoder@encoders.rgb=conv",
    "encoder@encoders.flow=conv",
    "features.rgb={frames: 1, fps: null, size: 16, channels: 3}",
    "features.flow.frames=1",
    "features.flow.size=16",
    "dataset.split.val=0.3",
)


def test_from_the_official_folder_to_a_trained_network(tmp_path, monkeypatch):
    tree(tmp_path / "raw")
    run = Pipeline(tmp_path / "run", monkeypatch, *SMALL, f"dataset.root={tmp_path}/raw").run()
    assert run.train()
    assert run.quarantine.keys() == {"v_Archery_g06_c01", "v_Archery_g07_c01"}
    assert run.quarantine["v_Archery_g06_c01"] == "the file is not there"
    assert run.index["leaks"] == []
    groups = run.manifest.select("group", "split").unique()
    assert len(groups) == groups["group"].n_unique(), "validation takes whole groups of the training list"
    assert "The annotations have 9 clips in train; officially there are 9,537" in run.index["warnings"]


def test_clips_without_sound_cost_themselves_where_sound_is_wanted(tmp_path, monkeypatch):
    tree(tmp_path / "raw")
    audio = "{sample_rate: 8000, seconds: 0.5, representation: mel, n_fft: 2048, hop_length: 256, power: 2, n_mels: 16}"
    run = Pipeline(
        tmp_path / "run",
        monkeypatch,
        *SMALL,
        f"dataset.root={tmp_path}/raw",
        "+dataset.modalities.audio={kind: audio, column: video}",
        f"+features.audio={audio}",
        "+encoder@encoders.audio=conv",
    ).run()
    assert run.quarantine["v_Archery_g08_c01"] == "the video has no sound"
    assert run.quarantine["v_Archery_g02_c01"].startswith("the sound is too short")
    assert "v_Archery_g03_c01" in set(run.manifest["clip_id"])
