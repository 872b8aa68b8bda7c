"""VGGSound: the official lists, the traps, and from the official folder to a trained network."""

import csv
import io
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings

from agm.pipeline.config.schema import Dataset, Split
from agm.pipeline.errors import AgmError
from agm.pipeline.steps.ingest.adapters import differences, read
from agm.pipeline.steps.ingest.split import assign
from agm.pipeline.steps.ingest.table import cells
from edits import edited
from media import tone, write_video
from pipeline import Pipeline, official

GOOD = 'aaaaaaaaaaa,30,"bird chirping, tweeting",train\nbbbbbbbbbbb,5,frog croaking,test\n'


def dataset(root: Path, scheme: str | None = None, classes: list[str] | None = None, **annotations: Path) -> Dataset:
    return Dataset(
        name="vggsound",
        adapter="vggsound",
        root=str(root),
        annotations={key: str(path) for key, path in annotations.items()},
        modalities={"audio": {"kind": "audio", "column": "video"}, "video": {"kind": "video", "column": "video"}},
        classes=classes,
        split=Split(scheme=scheme),
    )


def listed(folder: Path, content: str | bytes, name: str = "vggsound.csv") -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def refused(data: Dataset) -> str:
    with pytest.raises(AgmError) as error:
        read(data)
    return str(error.value)


# --- the official files ---


def test_the_official_test_list_and_classes(tmp_path):
    stat, test = official("vggsound/stat.csv"), official("vggsound/test.csv")
    classes = {row[0]: int(row[1]) for _, row in cells(str(stat))}
    assert len(classes) == 309 and sum(classes.values()) == 199176 and "bird chirping, tweeting" in classes
    train = listed(tmp_path, "aaaaaaaaaaa_000030.mp4,frog croaking\n", "train.csv")
    data = dataset(tmp_path, "lists", stat=stat, train=train, test=test)
    clips = [clip for clip in read(data) if clip.split == "test"]
    counts = Counter(clip.label for clip in clips)
    assert len(clips) == 15446 and counts.keys() == classes.keys() and set(counts.values()) == {49, 50}
    assert len({clip.group for clip in clips}) == 14851
    names = [row[0] for row in csv.reader(io.StringIO(test.read_text(encoding="utf-8")))]
    assert [clip.sources["video"].path for clip in clips] == names
    # What the official list would have in train: all clips that stat.csv counts less those of the test.
    assert differences(data, read(data)) == [
        "The annotations have 1 clips in train; officially there are 183,730",
    ]
    assert sum(classes.values()) == 183730 + 15446


def test_the_list_in_the_format_of_its_readme(tmp_path):
    """vggsound.csv made from the official test list, and training clips of our own."""
    rows = list(csv.reader(io.StringIO(official("vggsound/test.csv").read_text(encoding="utf-8"))))
    out = io.StringIO()
    for name, label in rows:
        quoted = f'"{label}"' if "," in label else label
        out.write(f"{name[:11]},{int(name[12:18])},{quoted},test\n")
    out.write('glLQrEijrKg,10,"playing hammond organ",train\naaaaaaaaaaa,0,frog croaking,train\n')
    path = listed(tmp_path, out.getvalue())
    clips = read(dataset(tmp_path, clips=path))
    assert [(clip.label, clip.clip_id) for clip in clips[:15446]] == [(label, name[:-4]) for name, label in rows]
    assert [clip.left_out for clip in clips[15446:]] == ["its video is in the test split too", None]
    assert not any(clip.left_out for clip in read(dataset(tmp_path, "official", clips=path)))


# --- splits ---


def test_validation_is_drawn_by_video_and_no_video_is_in_two_splits(tmp_path):
    rows = [f"train{video:06d},{10 * clip},frog croaking,train\n" for video in range(40) for clip in range(3)]
    rows += [f"train{video:06d},99,frog croaking,test\n" for video in range(5)]
    clips = read(dataset(tmp_path, clips=listed(tmp_path, "".join(rows))))
    splits = assign(clips, Split(val=0.2))
    used = [(clip.group, split) for clip, split in zip(clips, splits, strict=True) if clip.left_out is None]
    assert len(used) == 3 * 35 + 5
    assert len({video for video, _ in used}) == len(set(used)), "every video in one split"
    assert {split for _, split in used} == {"train", "val", "test"}


# --- what is wrong, and what is not ---


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ("short,30,frog croaking,train", "row 3: 'short' is not a YouTube id"),
        ("../etc/pass,30,frog croaking,train", "row 3: '../etc/pass' is not a YouTube id"),
        ("ccccccccccc,3.5,frog croaking,train", "row 3: the start '3.5' is not a number of seconds"),
        ("ccccccccccc,-1,frog croaking,train", "row 3: the start '-1' is not"),
        ("ccccccccccc,30,,train", "row 3: there is no class ''"),
        ("ccccccccccc,30,frog croaking,val", "row 3: split 'val' is neither train nor test"),
        (
            "ccccccccccc,30,bird chirping, tweeting,train",
            "row 3: 'ccccccccccc,30,bird chirping,tweeting,train' does not",
        ),
        ("aaaaaaaaaaa,030,frog croaking,test", "row 3: aaaaaaaaaaa_000030 is in row 1 of"),
        ('ccccccccccc,30,"frog croaking,train', "row 3: "),
    ],
)
def test_a_wrong_row_is_refused(tmp_path, row, expected):
    path = listed(tmp_path, f"{GOOD}{row}\n")
    message = refused(dataset(tmp_path, clips=path))
    assert expected in message and f"where: {path}" in message


def test_a_label_that_is_no_class_is_refused_where_the_classes_are_given(tmp_path):
    stat = listed(tmp_path, '\ufefffrog croaking,1050,animals\r\n"bird chirping, tweeting",1050,animals', "stat.csv")
    assert len(read(dataset(tmp_path, clips=listed(tmp_path, GOOD), stat=stat))) == 2
    path = listed(tmp_path, GOOD.replace("frog", "fog"))
    assert "row 2: there is no class 'fog croaking'" in refused(dataset(tmp_path, clips=path, stat=stat))


def test_a_wrong_file_name_is_refused(tmp_path):
    train = listed(tmp_path, "aaaaaaaaaaa_000030.wav,frog croaking\n", "train.csv")
    test = listed(tmp_path, "bbbbbbbbbbb_000030.mp4,frog croaking\n", "test.csv")
    assert "row 1: 'aaaaaaaaaaa_000030.wav,frog croaking' does not" in refused(
        dataset(tmp_path, "lists", train=train, test=test)
    )


def test_some_classes_only(tmp_path):
    path = listed(tmp_path, GOOD)
    assert [clip.label for clip in read(dataset(tmp_path, None, ["frog croaking"], clips=path))] == ["frog croaking"]
    assert "vggsound has no 'fog'" in refused(dataset(tmp_path, None, ["frog croaking", "fog"], clips=path))


@pytest.mark.parametrize(
    ("made", "expected"), [("video", "video/aaaaaaaaaaa_000030.mp4"), ("x", "aaaaaaaaaaa_000030.mp4")]
)
def test_clips_lie_in_the_folder_video_or_in_the_root(tmp_path, made, expected):
    (tmp_path / made).mkdir()
    clips = read(dataset(tmp_path, clips=listed(tmp_path, GOOD)))
    assert clips[0].sources["audio"].path == clips[0].sources["video"].path == expected


LABELS = {name * 11: ("bird chirping, tweeting", "frog croaking")[at % 2] for at, name in enumerate("abcdef")}
ROWS = [f'{name},{at},"{label}",{("train", "test")[at // 4]}' for at, (name, label) in enumerate(LABELS.items())]


@given(content=edited("\r\n".join(ROWS).encode()))
@settings(max_examples=60, deadline=None)
def test_edited_lists_are_read_rightly_or_refused(tmp_path_factory, content):
    folder = tmp_path_factory.mktemp("edited")
    try:
        clips = read(dataset(folder, clips=listed(folder, content)))
    except AgmError as error:
        assert str(folder) in str(error) and "row " in str(error)
        return
    untouched = set(content.decode().splitlines()) & set(ROWS)
    rows = {line[:11]: line.rsplit(",", 1)[1] for line in untouched}
    for clip in clips:
        if clip.group in rows:
            assert (clip.label, clip.split) == (LABELS[clip.group], rows[clip.group])


# --- end to end ---

BAD = {
    "missing____": "the file is not there",
    "corrupted__": "not a video or sound file, truncated or damaged",
    "silent-----": "the video has no sound",
    "-too-short-": "the sound is too short",
    "in_test____": "its video is in the test split too",
}


def test_from_the_official_folder_to_a_network(tmp_path, monkeypatch):
    root = tmp_path / "vggsound"
    (root / "video").mkdir(parents=True)
    clip = write_video(tmp_path / "clip.mp4", 6, (32, 24), sound=tone(440, 1.0, 16000))
    good = {f"{split:_<9}{number:02d}": split for split in ("train", "test") for number in range(10)}
    rows = [(name, 30, split) for name, split in good.items()] + [(name, 30, "train") for name in BAD]
    rows.append(("in_test____", 90, "test"))
    label = ('"bird chirping, tweeting"', "frog croaking")
    listed(root, "".join(f"{name},{at},{label[n % 2]},{split}\n" for n, (name, at, split) in enumerate(rows)))
    for name, at, _ in rows:
        shutil.copyfile(clip, root / f"video/{name}_{at:06d}.mp4")
    missing, corrupted, silent, short, _ = (root / f"video/{name}_000030.mp4" for name in BAD)
    missing.unlink()
    corrupted.write_bytes(np.random.default_rng(0).bytes(3000))
    write_video(silent, 6, (32, 24))
    write_video(short, 6, (32, 24), sound=tone(440, 0.01, 16000))

    small = (
        "dataset.split.val=0.3",
        "encoder@encoders.audio=conv",
        "encoder@encoders.video=conv",
        "trainer=small",
        "features.video.size=16",
        "features.audio={sample_rate: 8000, seconds: 0.5, n_fft: 1024}",
    )
    pipeline = Pipeline(tmp_path, monkeypatch, "study=vggsound", f"dataset.root={root}", *small).run()
    assert pipeline.index["classes"] == ["bird chirping, tweeting", "frog croaking"]
    assert pipeline.index["leaks"] == []
    found = pipeline.quarantine
    assert len(found) == len(BAD)
    assert all(reason in found[f"{name}_000030"] for name, reason in BAD.items()), found
    assert pipeline.train()

    official_split = ("dataset.split.scheme=official", *small)
    pipeline = Pipeline(tmp_path / "2", monkeypatch, "study=vggsound", f"dataset.root={root}", *official_split)
    pipeline.run(("annotations", "list", "ingest"))
    assert any("1 YouTube video of" in line and "scheme 'official'" in line for line in pipeline.index["leaks"])
