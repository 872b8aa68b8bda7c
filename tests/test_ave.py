"""AVE: the official lists, the traps, and from videos and from published features to a trained network."""

import shutil
from collections import Counter
from pathlib import Path

import h5py
import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings

from agm.pipeline.config.schema import Dataset, Split
from agm.pipeline.errors import AgmError
from agm.pipeline.io.tables import SPLITS
from agm.pipeline.steps.ingest.adapters import differences, read
from agm.pipeline.steps.ingest.adapters.ave import CATEGORIES
from agm.pipeline.steps.ingest.clip import Clip
from edits import edited
from media import tone, write_video
from pipeline import Pipeline, official

LISTS = {"train": "trainSet.txt", "val": "valSet.txt", "test": "testSet.txt", "all": "Annotations.txt"}
HEADER = "Category&VideoID&Quality&StartTime&EndTime\n"
VAL, TEST = "Bus&vvvvvvvvvvv&good&0&10\n", "Truck&ttttttttttt&good&2&7\n"


def dataset(root: Path, scheme: str | None = None, features: bool = False, **annotations: Path) -> Dataset:
    columns = ("audio_feature", "visual_feature") if features else ("video",)
    return Dataset(
        name="ave",
        adapter="ave",
        root=str(root),
        annotations={key: str(path) for key, path in annotations.items()},
        modalities={name: {"kind": "sequence" if features else "video", "column": name} for name in columns},
        split=Split(scheme=scheme),
    )


def written(folder: Path, train: str | bytes, val: str = VAL, test: str = TEST, **more: str) -> dict[str, Path]:
    for key, content in {"train": train, "val": val, "test": test, **more}.items():
        (folder / LISTS[key]).write_bytes(content if isinstance(content, bytes) else content.encode())
    return {key: folder / LISTS[key] for key in ("train", "val", "test", *more)}


def refused(data: Dataset) -> str:
    with pytest.raises(AgmError) as error:
        read(data)
    return str(error.value)


def official_lists(*keys: str) -> dict[str, Path]:
    return {key: official(f"ave/{LISTS[key]}") for key in keys or SPLITS}


def of(clips: list[Clip], split: str) -> list[Clip]:
    return [clip for clip in clips if clip.split == split]


# --- the official files ---


def test_the_official_lists(tmp_path):
    data = dataset(tmp_path, "official", **official_lists())
    clips = read(data)
    assert Counter(clip.split for clip in clips) == {"train": 3339, "val": 402, "test": 402}
    assert len({clip.clip_id for clip in clips}) == 4143 and len({clip.group for clip in clips}) == 4097
    assert {clip.label for clip in clips} == set(CATEGORIES) and len(CATEGORIES) == 28
    fewest = {"Horse": 6, "Cat": 6, "Bus": 6, "Baby cry, infant cry": 8, "Motorcycle": 9}
    counts = Counter(clip.label for clip in of(clips, "test"))
    assert dict(counts.most_common()[:-6:-1]) == fewest and max(counts.values()) == counts["Church bell"] == 18
    assert differences(data, clips) == [] and not any(clip.left_out for clip in clips)
    row = official("ave/trainSet.txt").read_text().splitlines()[63]
    assert row.endswith("&good&0&0") and clips[63].clip_id in row, "an event without length is a clip all the same"


def test_videos_that_leak_are_left_out_of_training(tmp_path):
    clips = read(dataset(tmp_path, **official_lists()))
    groups = {split: {clip.group for clip in of(clips, split)} for split in SPLITS}
    assert len(groups["train"] & groups["test"]) == 8
    assert len(groups["train"] & groups["val"]) == 10
    assert not groups["val"] & groups["test"]
    left_out = Counter(clip.left_out for clip in of(clips, "train"))
    assert left_out == {
        None: 3320,
        "its video is in the test split too": 9,  # one video has two events in training
        "its video is in the validation split too": 10,
    }
    assert not any(clip.left_out for clip in clips if clip.split != "train")
    twice = Counter((clip.group, clip.split) for clip in clips if not clip.left_out)
    assert Counter(split for (_, split), times in twice.items() if times > 1) == {"train": 26, "val": 1}
    used = {split: {clip.group for clip in of(clips, split) if not clip.left_out} for split in SPLITS}
    assert sum(map(len, used.values())) == len(set.union(*used.values()))


def test_clips_of_one_video_in_one_split_stay_and_have_ids_of_their_own(tmp_path):
    for scheme in ("deduplicated", "official"):
        clips = {clip.clip_id: clip for clip in read(dataset(tmp_path, scheme, **official_lists()))}
        both = [clips["3tsi7DKGrWQ_Banjo"], clips["3tsi7DKGrWQ_Mandolin"]]
        assert [(clip.label, clip.split, clip.left_out) for clip in both] == [
            ("Banjo", "val", None),
            ("Mandolin", "val", None),
        ]
        assert both[0].sources == both[1].sources
        assert "-ccciEuH9FE_Female_speech_woman_speaking" in clips and "RUhOCu3LNXM" in clips


def test_features_lie_in_the_order_of_the_annotations(tmp_path):
    """Compared with the official row numbers of each list."""
    clips = read(dataset(tmp_path, "official", features=True, **official_lists("train", "val", "test", "all")))
    for split, count in {"train": 3339, "val": 402, "test": 402}.items():
        with h5py.File(official(f"ave/{split}_order.h5")) as file:
            order = file["order"][:].tolist()
        members = [clip.sources["audio_feature"].member for clip in of(clips, split)]
        assert len(order) == count and members == [f"avadataset/{row}" for row in order]
    assert clips[0].sources["visual_feature"].path == "visual_feature.h5"


def test_the_official_segment_labels_agree_row_by_row(tmp_path):
    """mil_labels.h5 [4143, 29]: each category of the annotations is one of its columns."""
    clips = read(dataset(tmp_path, "official", features=True, **official_lists("train", "val", "test", "all")))
    with h5py.File(official("ave/mil_labels.h5")) as file:
        columns = file["avadataset"][:, :28].argmax(axis=1)
    rows = {int(clip.sources["audio_feature"].member.split("/")[1]): clip.label for clip in clips}
    assert len({(label, columns[row]) for row, label in rows.items()}) == 28 and len(rows) == 4143


# --- what is wrong, and what is not ---


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ("Bell&ccccccccccc&good&0&10", "row 2: there is no category 'Bell'"),
        ("Bus&short&good&0&10", "row 2: 'short' is not a YouTube id"),
        ("Bus&../../../ab&good&0&10", "row 2: '../../../ab' is not a YouTube id"),
        ("Bus&ccccccccccc&good&0", "row 2: it has 4 fields, not the 5 of Category&"),
        ("Bus,ccccccccccc,good,0,10", "row 2: it has 1 fields"),
        ("Bus&ccccccccccc&good&7&6", "row 2: the event is not from one second to another: '7' to '6'"),
        ("Bus&ccccccccccc&good&0&11", "to '11'"),
        ("Bus&ccccccccccc&good&a&b", "'a' to 'b'"),
        ("Cat&aaaaaaaaaaa&good&1&3", "row 2: 'Cat' in aaaaaaaaaaa is in row 1 of"),
    ],
)
def test_a_wrong_row_is_refused(tmp_path, row, expected):
    files = written(tmp_path, f"Cat&aaaaaaaaaaa&good&0&10\n{row}\n")
    message = refused(dataset(tmp_path, **files))
    assert expected in message and f"where: {files['train']}" in message


@pytest.mark.parametrize("head", ["", HEADER, "\ufeff" + HEADER])
def test_a_header_or_none(tmp_path, head):
    train = head + "Rodents, rats, mice&aaaaaaaaaaa&good&0&10\r\n"
    files = written(tmp_path, train, all=head + TEST + VAL + train.removeprefix(head))
    clips = read(dataset(tmp_path, features=True, **files))
    assert [(clip.label, clip.clip_id) for clip in clips[:1]] == [("Rodents, rats, mice", "aaaaaaaaaaa")]
    assert [clip.sources["audio_feature"].member[-1] for clip in clips] == ["2", "1", "0"]
    assert clips[0].row == 1 + bool(head)


def test_a_clip_without_features_is_refused(tmp_path):
    files = written(tmp_path, "Cat&aaaaaaaaaaa&good&0&10\n", all=TEST + VAL)
    message = refused(dataset(tmp_path, features=True, **files))
    assert "row 1: 'Cat' in aaaaaaaaaaa" in message and "Annotations.txt, which has no such lines" in message


def test_features_need_the_annotations_and_videos_do_not(tmp_path):
    files = written(tmp_path, "Cat&aaaaaaaaaaa&good&0&10\n")
    assert "+dataset.annotations.all=" in refused(dataset(tmp_path, features=True, **files))
    assert read(dataset(tmp_path, **files))[0].sources["video"].path == "AVE/aaaaaaaaaaa.mp4"


LABELS = {name * 11: CATEGORIES[3 * at] for at, name in enumerate("abcdef")}
ROWS = [f"{label}&{name}&good&0&10" for name, label in LABELS.items()]


@given(content=edited("\n".join(ROWS).encode()))
@settings(max_examples=60, deadline=None)
def test_edited_lists_are_read_rightly_or_refused(tmp_path_factory, content):
    folder = tmp_path_factory.mktemp("edited")
    try:
        clips = read(dataset(folder, **written(folder, content)))
    except AgmError as error:
        assert str(folder) in str(error) and "row " in str(error)
        return
    untouched = {line.split("&")[1] for line in set(content.decode().splitlines()) & set(ROWS)}
    found = {clip.clip_id: clip.label for clip in clips}
    assert {name: found[name] for name in untouched if name in found}.items() <= LABELS.items()


# --- end to end ---

EVENTS = ("Bus", "Female speech, woman speaking")
GOOD = {split: [f"{split:-<10}{number}" for number in range(8)] for split in SPLITS}
BAD = {
    "missing____": "the file is not there",
    "corrupted__": "not a video or sound file, truncated or damaged",
    "silent-----": "the video has no sound",
    "-too-short-": "the sound is too short",
    GOOD["test"][0]: "its video is in the test split too",
}


def lists(root: Path) -> list[str]:
    """Write the lists of `GOOD` and `BAD`, and Annotations.txt in another order; returns its lines."""
    rows = {split: [f"{EVENTS[n % 2]}&{name}&good&0&10\n" for n, name in enumerate(GOOD[split])] for split in SPLITS}
    rows["train"] += [f"Truck&{name}&good&0&10\n" for name in BAD]
    order = sorted((row for each in rows.values() for row in each), key=lambda row: row.split("&")[1])
    written(root, **{split: "".join(each) for split, each in rows.items()}, all="".join(order))
    return order


def test_from_videos_to_a_network(tmp_path, monkeypatch):
    root = tmp_path / "AVE_Dataset"
    (root / "AVE").mkdir(parents=True)
    lists(root)
    clip = write_video(tmp_path / "clip.mp4", 6, (32, 24), sound=tone(440, 1.0, 16000))
    for name in [*GOOD["train"], *GOOD["val"], *GOOD["test"], *BAD]:
        shutil.copyfile(clip, root / f"AVE/{name}.mp4")
    missing, corrupted, silent, short, _ = (root / f"AVE/{name}.mp4" for name in BAD)
    missing.unlink()
    corrupted.write_bytes(np.random.default_rng(0).bytes(3000))
    write_video(silent, 6, (32, 24))
    write_video(short, 6, (32, 24), sound=tone(440, 0.01, 16000))
    small = (
        "dataset.classes=[Bus,'Female speech, woman speaking',Truck]",
        "encoder@encoders.audio=conv",
        "encoder@encoders.video=conv",
        "trainer=small",
        "features.video.size=16",
        "features.audio={sample_rate: 8000, seconds: 0.5, n_fft: 1024}",
    )
    pipeline = Pipeline(tmp_path, monkeypatch, "study=ave_raw", f"dataset.root={root}", *small).run()
    assert pipeline.index["leaks"] == []
    reasons = {f"{GOOD['test'][0]}_Truck" if name == GOOD["test"][0] else name: BAD[name] for name in BAD}
    found = pipeline.quarantine
    assert found.keys() == reasons.keys()
    assert all(reason in found[name] for name, reason in reasons.items()), found
    assert pipeline.train()

    choice = ("dataset.split.scheme=official", *small)
    pipeline = Pipeline(tmp_path / "2", monkeypatch, "study=ave_raw", f"dataset.root={root}", *choice)
    pipeline.run(("annotations", "list", "ingest"))
    assert pipeline.index["leaks"] == ["1 YouTube video of test is in train too (split scheme 'official')"]


def test_from_published_features_to_the_published_network(tmp_path, monkeypatch):
    root = tmp_path / "AVE_Dataset"
    root.mkdir()
    order = lists(root)
    numbers = np.arange(len(order) - 1, dtype=np.float32)  # a row is missing
    for name, shape in {"audio_feature": (10, 128), "visual_feature": (10, 7, 7, 512)}.items():
        rows = np.broadcast_to(numbers.reshape(-1, *[1] * len(shape)), (len(numbers), *shape))
        with h5py.File(root / f"{name}.h5", "w") as file:
            file["avadataset"] = rows
    pipeline = Pipeline(tmp_path, monkeypatch, "study=ave", f"dataset.root={root}", "trainer=small").run()
    last = order[-1].split("&")[1]
    assert (
        pipeline.quarantine.keys() == {last, f"{GOOD['test'][0]}_Truck"} and "avadataset" in pipeline.quarantine[last]
    )

    table = pq.read_table(pipeline.data / "features/audio/part-0.parquet").to_pylist()
    stored = {row["clip_id"]: np.frombuffer(row["tensor"], np.float32) for row in table}
    rows = {row.split("&")[1]: number for number, row in enumerate(order)}
    assert len(stored) == 28 - 1 and {len(values) for values in stored.values()} == {10 * 128}
    assert all((stored[name] == rows[name]).all() for name in GOOD["val"] if name in stored)
    assert pipeline.train()
