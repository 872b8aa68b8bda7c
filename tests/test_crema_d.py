"""CREMA-D: the official lists, the traps, and from the official folder to a trained network."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings

from agm.pipeline.config.schema import Dataset, Split
from agm.pipeline.errors import AgmError
from agm.pipeline.steps.ingest.adapters import differences, read
from agm.pipeline.steps.ingest.clip import Clip
from agm.pipeline.steps.ingest.split import assign
from edits import edited
from media import tone, write_video, write_wav
from pipeline import Pipeline, official


def dataset(
    root: Path, scheme: str | None = None, columns: tuple[str, ...] = ("video", "audio"), **annotations: Path
) -> Dataset:
    return Dataset(
        name="crema_d",
        adapter="crema_d",
        root=str(root),
        annotations={key: str(path) for key, path in annotations.items()},
        modalities={
            column: {"kind": "video" if column == "video" else "audio", "column": column} for column in columns
        },
        split=Split(scheme=scheme),
    )


def sentences(folder: Path, *names: str) -> Path:
    path = folder / "SentenceFilenames.csv"
    rows = "".join(f'{number},"{name}"\n' for number, name in enumerate(names, start=1))
    path.write_text('"Stimulus_Number","Filename"\n' + rows)
    return path


def ogm(folder: Path, train: str | bytes, test: str = "1002_IEO_SAD_LO,SAD\n") -> dict[str, Path]:
    (folder / "train.csv").write_bytes(train if isinstance(train, bytes) else train.encode())
    (folder / "test.csv").write_text(test)
    return {"ogm_train": folder / "train.csv", "ogm_test": folder / "test.csv"}


def refused(data: Dataset) -> str:
    with pytest.raises(AgmError) as error:
        read(data)
    return str(error.value)


def official_ogm(root: Path) -> Dataset:
    files = {f"ogm_{split}": official(f"ogm_ge/CREMAD/{split}.csv") for split in ("train", "test")}
    return dataset(root, "ogm", **files)


# --- the official files ---


def test_the_official_list(tmp_path):
    data = dataset(
        tmp_path, columns=("video", "audio", "audio_mp3"), sentences=official("crema_d/SentenceFilenames.csv")
    )
    clips = read(data)
    assert len(clips) == 7442 and len({clip.clip_id for clip in clips}) == 7442
    counts = {"ANG": 1271, "DIS": 1271, "FEA": 1271, "HAP": 1271, "NEU": 1087, "SAD": 1271}
    assert Counter(clip.label for clip in clips) == counts
    assert len({clip.group for clip in clips}) == 91
    assert clips[0].row == 2 and clips[-1].row == 7443
    media = official("crema_d/media_file_list.txt").read_text().split()
    assert {source.path for clip in clips for source in clip.sources.values()} == set(media)
    assert len(media) == 22326 and differences(data, clips) == []


def test_by_default_no_actor_is_in_two_splits(tmp_path):
    clips = read(dataset(tmp_path, sentences=official("crema_d/SentenceFilenames.csv")))
    splits = assign(clips, Split(val=0.1, test=0.1))
    actors = {name: set() for name in splits}
    for clip, split in zip(clips, splits, strict=True):
        actors[split].add(clip.group)
    assert sum(map(len, actors.values())) == len(set.union(*actors.values())) == 91
    assert all(count > 600 for count in Counter(splits).values())


def test_the_lists_of_ogm(tmp_path):
    data = official_ogm(tmp_path)
    clips = read(data)
    train, test = ([clip for clip in clips if clip.split == split] for split in ("train", "test"))
    assert (len(train), len(test), len(clips)) == (6698, 744, 7442)
    counts = {"ANG": 1166, "HAP": 1148, "DIS": 1142, "FEA": 1138, "SAD": 1131, "NEU": 973}
    assert Counter(clip.label for clip in train) == counts
    counts = {"SAD": 140, "FEA": 133, "DIS": 129, "HAP": 123, "NEU": 114, "ANG": 105}
    assert Counter(clip.label for clip in test) == counts
    assert len({clip.group for clip in train}) == len({clip.group for clip in test}) == 91
    everything = read(dataset(tmp_path, sentences=official("crema_d/SentenceFilenames.csv")))
    assert {clip.clip_id for clip in clips} == {clip.clip_id for clip in everything}
    assert differences(data, clips) == []
    assert differences(data, clips[1:]) == [
        "The annotations have 6,697 clips in train; officially there are 6,698",
    ]


def test_votes_that_tie_are_not_the_label(tmp_path):
    votes = [row.split(",") for row in official("crema_d/summaryTable.csv").read_text().splitlines()[1:]]
    tied = {row[1].strip('"') for row in votes if ":" in row[6]}
    labels = {clip.clip_id: clip.label for clip in read(official_ogm(tmp_path))}
    assert len(tied) > 100
    assert all(labels[name] == name.split("_")[2] for name in tied if name in labels)


# --- what is wrong ---


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("1001_IEO_HAP", "row 3: '1001_IEO_HAP' is not <actor>_<sentence>_<emotion>_<level>"),
        ("1092_IEO_HAP_LO", "row 3: '1092_IEO_HAP_LO': there is no actor '1092'"),
        ("1001_XYZ_HAP_LO", "there is no sentence 'XYZ'"),
        ("1001_IEO_A:D_XX", "there is no emotion 'A:D'"),
        ("1001_IEO_HAP_MAX", "there is no level 'MAX'"),
        ("../1001_IEO_HAP_LO", "there is no actor '../1001'"),
        ("1001_IEO_NEU_XX", "row 3: '1001_IEO_NEU_XX' is in row 2 of"),
    ],
)
def test_a_wrong_name_is_refused(tmp_path, name, expected):
    path = sentences(tmp_path, "1001_IEO_NEU_XX", name)
    message = refused(dataset(tmp_path, sentences=path))
    assert expected in message and f"where: {path}" in message


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ("1001_IEO_HAP_LO,SAD", "row 2: the label of '1001_IEO_HAP_LO' is 'SAD'"),
        ("1001_IEO_HAP_LO", "row 2: it has 1 cells, not 2"),
        ("1001_IEO_HAP_LO,HAP,1", "row 2: it has 3 cells, not 2"),
        ("1002_IEO_SAD_LO,SAD", "test.csv"),  # in both lists
    ],
)
def test_a_wrong_row_of_ogm_is_refused(tmp_path, row, expected):
    message = refused(dataset(tmp_path, "ogm", **ogm(tmp_path, f"1001_IEO_NEU_XX,NEU\n{row}\n")))
    assert expected in message


def test_a_byte_order_mark_and_windows_line_ends_are_harmless(tmp_path):
    files = ogm(tmp_path, b"\xef\xbb\xbf1001_IEO_NEU_XX,NEU\r\n1003_DFA_ANG_XX,ANG\r\n")
    clips = read(dataset(tmp_path, "ogm", **files))
    assert [(clip.clip_id, clip.label, clip.split) for clip in clips] == [
        ("1001_IEO_NEU_XX", "NEU", "train"),
        ("1003_DFA_ANG_XX", "ANG", "train"),
        ("1002_IEO_SAD_LO", "SAD", "test"),
    ]


def test_what_the_user_can_choose(tmp_path):
    path = sentences(tmp_path, "1001_IEO_NEU_XX", "1001_IEO_HAP_LO")
    data = dataset(tmp_path, sentences=path)
    assert [clip.label for clip in read(data.model_copy(update={"classes": ["HAP"]}))] == ["HAP"]
    message = refused(data.model_copy(update={"classes": ["HAP", "JOY"]}))
    assert "dataset.classes: crema_d has no 'JOY'" in message and "there are: HAP, NEU" in message
    assert "there are: video, audio, audio_mp3" in refused(dataset(tmp_path, columns=("face",), sentences=path))
    assert "there are: actors, ogm" in refused(dataset(tmp_path, "official", sentences=path))
    assert "+dataset.annotations.ogm_train=" in refused(dataset(tmp_path, "ogm", sentences=path))


NAMES = [f"{actor}_{rest}" for actor in (1001, 1090) for rest in ("IEO_HAP_LO", "DFA_ANG_XX", "WSI_NEU_XX")]
LISTED = "".join(f"{name},{name.split('_')[2]}\r\n" for name in NAMES).encode()


@given(content=edited(LISTED))
@settings(max_examples=60, deadline=None)
def test_edited_lists_are_read_rightly_or_refused(tmp_path_factory, content):
    folder = tmp_path_factory.mktemp("edited")
    try:
        clips = read(dataset(folder, "ogm", **ogm(folder, content)))
    except AgmError as error:
        assert str(folder) in str(error) and "row " in str(error)
    else:
        check(clips)


def check(clips: list[Clip]) -> None:
    for clip in clips:
        assert clip.label == clip.clip_id.split("_")[2] and clip.group == clip.clip_id.split("_")[0]
        assert clip.sources["audio"].path == f"AudioWAV/{clip.clip_id}.wav"


# --- end to end ---

GOOD = [
    f"{actor}_{text}_{emotion}_XX"
    for actor in range(1001, 1007)
    for text in ("DFA", "TIE")
    for emotion in ("ANG", "SAD")
]
BAD = {
    "1001_MTI_ANG_XX": "the file is not there",
    "1002_MTI_ANG_XX": "not a video or sound file, truncated or damaged",
    "1003_MTI_ANG_XX": "has no picture",
    "1004_MTI_ANG_XX": "the sound is too short",
    "1005_MTI_ANG_XX": "not a video or sound file",
}
SMALL = (
    "encoder@encoders.video=conv",
    "encoder@encoders.audio=conv",
    "fusion=[late_concat]",
    "trainer=small",
    "features.video.size=16",
    "features.audio.sample_rate=8000",
    "features.audio.seconds=0.5",
)


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """The folder of the repository, with five clips that cannot be used."""
    root = tmp_path_factory.mktemp("CREMA-D")
    for folder in ("AudioWAV", "VideoFlash"):
        (root / folder).mkdir()
    for number, name in enumerate([*GOOD, *BAD]):
        write_video(root / f"VideoFlash/{name}.flv", 4, (32, 24), codec="flv1")
        write_wav(root / f"AudioWAV/{name}.wav", tone(300 + 20 * number, 0.6, 16000))
    missing, broken, blind, short, pointer = BAD
    (root / f"VideoFlash/{missing}.flv").unlink()
    (root / f"VideoFlash/{broken}.flv").write_bytes(np.random.default_rng(0).bytes(3000))
    (root / f"VideoFlash/{blind}.flv").write_bytes((root / f"AudioWAV/{blind}.wav").read_bytes())
    write_wav(root / f"AudioWAV/{short}.wav", tone(300, 0.02, 16000))
    # What a zip of the repository has in the place of the media.
    (root / f"AudioWAV/{pointer}.wav").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:c6\nsize 1\n")
    sentences(root, *GOOD, *BAD)
    ogm(root, "".join(f"{name},{name[9:12]}\n" for name in GOOD[:-6]), "".join(f"{n},{n[9:12]}\n" for n in GOOD[-6:]))
    return root


def test_from_the_official_folder_to_a_network(root, tmp_path, monkeypatch):
    pipeline = Pipeline(tmp_path, monkeypatch, "study=crema_d", f"dataset.root={root}", *SMALL, "dataset.split.val=0.2")
    pipeline.run()
    assert pipeline.index["classes"] == ["ANG", "SAD"] and pipeline.index["leaks"] == []
    found = pipeline.quarantine
    assert found.keys() == BAD.keys()
    assert all(reason in found[name] for name, reason in BAD.items()), found
    assert pipeline.train()


def test_the_split_in_wide_use_is_marked_as_leaking(root, tmp_path, monkeypatch):
    lists = [f"+dataset.annotations.ogm_{split}={root}/{split}.csv" for split in ("train", "test")]
    choice = ("dataset.split.scheme=ogm", *lists)
    pipeline = Pipeline(tmp_path, monkeypatch, "study=crema_d", f"dataset.root={root}", *SMALL, *choice)
    pipeline.run(("annotations", "list", "ingest"))
    # Actor 1005 stands in both lists; validation takes whole actors out of training.
    assert [line for line in pipeline.index["leaks"] if "1 actor of" in line and "scheme 'ogm'" in line]
