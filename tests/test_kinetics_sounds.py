"""Kinetics-Sounds: the official lists, the traps, and from the official folder to a trained network."""

import csv
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings

from agm.pipeline.config import load
from agm.pipeline.config.compose import compose
from agm.pipeline.config.schema import Dataset, Split
from agm.pipeline.errors import AgmError
from agm.pipeline.steps.ingest.adapters import differences, read
from clone import ROOT
from edits import edited
from media import tone, write_video
from pipeline import Pipeline, official

HEADER = "label,youtube_id,time_start,time_end,split,is_cc\n"
ONE = "singing,aaaaaaaaaaa,5,15,train,0\n"
TEST = "tap dancing,bbbbbbbbbbb,0,10,val,0\n"


@pytest.fixture(scope="session")
def classes(tmp_path_factory) -> list[str]:
    """The 31 of the preset."""
    path = tmp_path_factory.mktemp("preset") / "params.yaml"
    compose(["study=kinetics_sounds", "dataset.root=raw"], path, ROOT / "params")
    return load(path).dataset.classes


def dataset(root: Path, scheme: str | None = None, names: list[str] | None = None, **annotations: Path) -> Dataset:
    return Dataset(
        name="kinetics_sounds",
        adapter="kinetics_sounds",
        root=str(root),
        annotations={key: str(path) for key, path in annotations.items()},
        modalities={"audio": {"kind": "audio", "column": "video"}, "video": {"kind": "video", "column": "video"}},
        classes=names or ["singing", "tap_dancing"],
        split=Split(scheme=scheme),
    )


def written(folder: Path, **files: str | bytes) -> dict[str, Path]:
    """Annotation files by key."""
    for key, content in files.items():
        (folder / key).write_bytes(content if isinstance(content, bytes) else content.encode())
    return {key: folder / key for key in files}


def refused(data: Dataset) -> str:
    with pytest.raises(AgmError) as error:
        read(data)
    return str(error.value)


def official_ogm(root: Path, names: list[str]) -> Dataset:
    files = {f"ogm_{split}": official(f"ogm_ge/KineticSound/my_{split}.txt") for split in ("train", "test")}
    return dataset(root, "ogm", names, **files)


# --- the official files ---


def test_the_classes_of_the_preset_are_the_official_ones_and_of_kinetics(classes):
    listed = official("ogm_ge/KineticSound/classes_31.csv").read_text().splitlines()[1:]
    assert classes == [row.split(",")[1] for row in listed] == sorted(classes) and len(classes) == 31
    assert classes[26] == "stomping_grapes" and "typing" not in classes
    known = official("kinetics/label_map_k400.txt").read_text().splitlines()
    assert set(classes) <= {name.replace(" ", "_") for name in known}


def test_the_official_validation_list_is_the_test(tmp_path, classes):
    train = written(tmp_path, train=HEADER + ONE)
    data = dataset(tmp_path, None, classes, **train, val=official("kinetics/kinetics-400_val.csv"))
    clips = read(data)
    test = [clip for clip in clips if clip.split == "test"]
    assert len(test) == 1544 and len({clip.group for clip in test}) == 1544
    fewer = {"bowling": 49, "chopping_wood": 49, "playing_accordion": 49, "tap_dancing": 49, "playing_keyboard": 48}
    assert Counter(clip.label for clip in test) == dict.fromkeys(classes, 50) | fewer
    assert [clip.split for clip in clips if clip.split != "test"] == ["train"]
    assert not any(clip.left_out for clip in clips) and differences(data, clips) == []


def test_the_lists_of_ogm(tmp_path, classes):
    data = official_ogm(tmp_path, classes)
    clips = read(data)
    train, test = ([clip for clip in clips if clip.split == split] for split in ("train", "test"))
    assert (len(train), len(test)) == (14799, 2597) and differences(data, clips) == []
    counts = Counter(clip.label for clip in train)
    assert set(counts) == set(classes)
    assert (counts["blowing_out_candles"], counts["singing"], counts["stomping_grapes"]) == (690, 672, 197)
    counts = Counter(clip.label for clip in test)
    assert (counts["shoveling_snow"], counts["blowing_out_candles"], counts["tickling"]) == (92, 92, 63)
    assert not {clip.group for clip in train} & {clip.group for clip in test}


def test_the_test_of_ogm_is_of_the_test_clips_of_kinetics(tmp_path, classes):
    """Its names lack the end, which is ten seconds after the start."""
    clips = read(official_ogm(tmp_path, classes))
    with open(official("kinetics/kinetics-400_test.csv"), encoding="utf-8") as file:
        names = {
            f"test/{row['youtube_id']}_{int(row['time_start']):06d}_{int(row['time_end']):06d}.mp4"
            for row in csv.DictReader(file)
        }
    assert sum(clip.sources["video"].path in names for clip in clips if clip.split == "test") == 2594
    train = written(tmp_path, train=HEADER + ONE)
    kinetics = read(dataset(tmp_path, None, classes, **train, val=official("kinetics/kinetics-400_val.csv")))
    assert not {clip.group for clip in clips} & {clip.group for clip in kinetics}


def test_the_lists_of_tcmax_agree_with_those_of_ogm(tmp_path, classes):
    files = {f"tcmax_{split}": official(f"tcmax_ks/{split}.csv") for split in ("train", "test")}
    data = dataset(tmp_path, "tcmax", classes, **files)
    clips = read(data)
    assert Counter(clip.split for clip in clips) == {"train": 14675, "test": 2594} and differences(data, clips) == []
    ogm = {clip.clip_id: (clip.label, clip.split) for clip in read(official_ogm(tmp_path, classes))}
    assert {clip.clip_id: (clip.label, clip.split) for clip in clips}.items() <= ogm.items()


def test_the_34_classes_of_the_paper_are_not_all_of_kinetics(tmp_path):
    names = official("ogm_ge/KineticSound/classes_34_paper.txt").read_text().replace(" ", "_").splitlines()
    train = written(tmp_path, train=HEADER + ONE)
    message = refused(dataset(tmp_path, None, names, **train, val=official("kinetics/kinetics-400_val.csv")))
    absent = ["typing", "blowing_out", "dribbling_ball", "mowing_the_lawn_by_pushing_lawnmower", "stomping"]
    assert f"has no {', '.join(map(repr, [*absent, 'fingerpicking', 'patting']))}\n" in message


def test_32_classes(tmp_path, classes):
    train = written(tmp_path, train=HEADER + ONE)
    names = [*classes, "strumming_guitar"]
    clips = read(dataset(tmp_path, None, names, **train, val=official("kinetics/kinetics-400_val.csv")))
    assert len({clip.label for clip in clips}) == 32 and "strumming_guitar" in {clip.label for clip in clips}


# --- what is wrong ---


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ("singing,short,0,10,train,0", "row 3: 'short_0_10' is not <YouTube id>_<start>_<end>"),
        ("singing,../../abcde,0,10,train,0", "is not <YouTube id>"),
        ("singing,ccccccccccc,0.5,10,train,0", "is not <YouTube id>"),
        ("singing,ccccccccccc,10,10,train,0", "is not <YouTube id>"),
        ("singing,ccccccccccc,0,10,val,0", "row 3: split 'val' in the list of 'train'"),
        (",ccccccccccc,0,10,train,0", "row 3: the label is empty"),
        ("singing,aaaaaaaaaaa,5,15,train,0", "row 3: aaaaaaaaaaa_000005_000015 is in row 2 of"),
        ("singing,ccccccccccc,0,10,train", "row 3: it has 5 cells, the header has 6"),
    ],
)
def test_a_wrong_row_of_kinetics_is_refused(tmp_path, row, expected):
    files = written(tmp_path, train=f"{HEADER}{ONE}{row}\n", val=HEADER + TEST)
    message = refused(dataset(tmp_path, **files))
    assert expected in message and f"where: {files['train']}" in message


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ("ccccccccccc_0,10,2", "row 2: class '2' is not a number below 2"),
        ("ccccccccccc_0,10,-1", "row 2: class '-1' is not"),
        ("ccccccccccc_0,9,1", "row 2: the second cell is '9', not 10"),
        ("ccccccccccc_0,10", "row 2: it has 2 cells, not 3"),
        ("ccccccccccc,10,1", "row 2: 'ccccccccccc' is not <YouTube id>_<start>_<end>"),
        ("bbbbbbbbbbb_000007_000017,10,0", "is in row 2 of"),  # the test has bbbbbbbbbbb_7
    ],
)
def test_a_wrong_row_of_ogm_is_refused(tmp_path, row, expected):
    train, test = f"aaaaaaaaaaa_000005_000015,10,0\n{row}\n", "ddddddddddd_0,10,1\nbbbbbbbbbbb_7,10,1\n"
    assert expected in refused(dataset(tmp_path, "ogm", **written(tmp_path, ogm_train=train, ogm_test=test)))


def test_numbers_of_another_list_of_classes_are_refused(tmp_path, classes):
    data = official_ogm(tmp_path, sorted([*classes, "strumming_guitar"]))
    assert "which are not these: no clip has the number of tickling" in refused(data)
    assert "is not a number below 30" in refused(official_ogm(tmp_path, classes[:-1]))


def test_there_is_no_list_of_classes_in_the_code(tmp_path):
    data = dataset(tmp_path, **written(tmp_path, train=HEADER + ONE, val=HEADER + TEST))
    assert "dataset.classes is not set" in refused(data.model_copy(update={"classes": None}))


def test_ids_with_underscores_and_byte_order_marks(tmp_path):
    train = b"\xef\xbb\xbf" + b"_a-_1_2_-_z_000003_000013,10,0\r\n-----------_000000_000010,10,1\r\n"
    clips = read(dataset(tmp_path, "ogm", **written(tmp_path, ogm_train=train, ogm_test="_________12_4,10,1\n")))
    assert [(clip.group, clip.clip_id, clip.label) for clip in clips] == [
        ("_a-_1_2_-_z", "_a-_1_2_-_z_000003_000013", "singing"),
        ("-----------", "-----------_000000_000010", "tap_dancing"),
        ("_________12", "_________12_000004_000014", "tap_dancing"),
    ]


def test_a_video_in_training_and_test_is_left_out_of_training(tmp_path):
    train = HEADER + ONE + "singing,bbbbbbbbbbb,70,80,train,0\n"
    clips = read(dataset(tmp_path, **written(tmp_path, train=train, val=HEADER + TEST)))
    assert [clip.left_out for clip in clips] == [None, "its video is in the test split too", None]


def test_a_replacement_is_used_and_any_folder_looked_through(tmp_path):
    for path in ("train", "val", "test", "replacement/replacement_for_corrupted_k400"):
        (tmp_path / path).mkdir(parents=True)
    (tmp_path / "train/aaaaaaaaaaa_000005_000015.mp4").touch()
    (tmp_path / "replacement/replacement_for_corrupted_k400/aaaaaaaaaaa_000005_000015.mp4").touch()
    (tmp_path / "train/bbbbbbbbbbb_000000_000010.mp4").touch()
    rows = HEADER + ONE + "singing,ccccccccccc,1,11,train,0\n"
    annotations = tmp_path / "annotations"
    annotations.mkdir()
    clips = read(dataset(tmp_path, **written(annotations, train=rows, val=HEADER + TEST)))
    assert [clip.sources["video"].path for clip in clips] == [
        "replacement/replacement_for_corrupted_k400/aaaaaaaaaaa_000005_000015.mp4",
        "train/ccccccccccc_000001_000011.mp4",  # not there: where it should be
        "train/bbbbbbbbbbb_000000_000010.mp4",
    ]


LABELS = dict(zip((name * 11 for name in "abcdef"), ["singing", "tap dancing", "abseiling"] * 2, strict=True))
ROWS = [f"{label},{name},{at},{at + 10},train,0" for at, (name, label) in enumerate(LABELS.items())]
KINETICS = (HEADER + "\r\n".join(ROWS) + "\r\n").encode()
OGM = "".join(f"{name * 11}_{at:06d}_{at + 10:06d},10,{at % 2}\r\n" for at, name in enumerate("abcdef")).encode()


@given(content=edited(KINETICS))
@settings(max_examples=50, deadline=None)
def test_edited_lists_of_kinetics_are_read_rightly_or_refused(tmp_path_factory, content):
    folder = tmp_path_factory.mktemp("edited")
    both = "singing,zzzzzzzzzzz,0,10,val,0\ntap dancing,yyyyyyyyyyy,0,10,val,0\n"
    files = written(folder, train=content, val=HEADER + both)
    try:
        clips = read(dataset(folder, **files))
    except AgmError as error:
        assert str(folder) in str(error)
    else:
        labels = {name: label.replace(" ", "_") for name, label in LABELS.items()}
        assert all(clip.label == labels.get(clip.group, clip.label) for clip in clips)


@given(content=edited(OGM))
@settings(max_examples=50, deadline=None)
def test_edited_lists_of_ogm_are_read_rightly_or_refused(tmp_path_factory, content):
    folder = tmp_path_factory.mktemp("edited")
    files = written(folder, ogm_train=content, ogm_test="zzzzzzzzzzz_0,10,0\nyyyyyyyyyyy_0,10,1\n")
    try:
        clips = read(dataset(folder, "ogm", **files))
    except AgmError as error:
        assert str(folder) in str(error)
        return
    untouched = set(content.splitlines()) & set(OGM.splitlines())
    labels = {line[:11].decode(): ("singing", "tap_dancing")[int(line[-1:])] for line in untouched}
    assert all(clip.label == labels.get(clip.group, clip.label) for clip in clips)


# --- end to end ---

CLASSES = ("singing", "tap dancing")
BAD = {
    "missing____": "the file is not there",
    "corrupted__": "not a video or sound file, truncated or damaged",
    "silent-----": "the video has no sound",
    "-too-short-": "the sound is too short",
}


def test_from_the_official_folder_to_a_network(tmp_path, monkeypatch):
    root = tmp_path / "k400"
    for folder in ("train", "val", "annotations", "replacement/replacement_for_corrupted_k400"):
        (root / folder).mkdir(parents=True)
    clip = write_video(tmp_path / "clip.mp4", 6, (32, 24), sound=tone(440, 1.0, 16000))
    good = {split: {f"{split:_<10}{number}": CLASSES[number % 2] for number in range(8)} for split in ("train", "val")}
    listed = {"train": good["train"] | dict.fromkeys(BAD, "singing"), "val": good["val"]}
    for split, names in listed.items():
        rows = [f"{label},{name},7,17,{split},0\n" for name, label in names.items()]
        (root / f"annotations/{split}.csv").write_text(HEADER + "".join(rows))
        for name in names:
            shutil.copyfile(clip, root / f"{split}/{name}_000007_000017.mp4")
    missing, corrupted, silent, short = (root / f"train/{name}_000007_000017.mp4" for name in BAD)
    missing.unlink()
    corrupted.write_bytes(np.random.default_rng(0).bytes(3000))
    write_video(silent, 6, (32, 24))
    write_video(short, 6, (32, 24), sound=tone(440, 0.01, 16000))
    replaced = root / "train/train_____0_000007_000017.mp4"
    shutil.move(replaced, root / "replacement/replacement_for_corrupted_k400" / replaced.name)
    replaced.write_bytes(b"corrupted")

    pipeline = Pipeline(
        tmp_path,
        monkeypatch,
        "study=kinetics_sounds",
        f"dataset.root={root}",
        "dataset.classes=[singing,tap_dancing]",
        "dataset.split.val=0.25",
        "encoder@encoders.audio=conv",
        "encoder@encoders.video=conv",
        "trainer=small",
        "features.video.size=16",
        "features.audio={sample_rate: 8000, seconds: 0.5, n_fft: 1024}",
    ).run()
    assert pipeline.index["classes"] == ["singing", "tap_dancing"] and pipeline.index["leaks"] == []
    found = pipeline.quarantine
    usable = {f"{name}_000007_000017" for names in good.values() for name in names}
    assert set(pipeline.manifest["clip_id"]) - set(found) == usable and len(found) == len(BAD)
    assert all(reason in found[f"{name}_000007_000017"] for name, reason in BAD.items()), found
    assert pipeline.train()
