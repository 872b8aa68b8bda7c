"""IEMOCAP: evaluations and transcripts written as the official ones are, and a small tree in the official layout."""

from collections import Counter
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agm.pipeline.config.schema import Dataset, Split
from agm.pipeline.errors import AgmError
from agm.pipeline.steps.ingest.adapters import differences, read
from agm.pipeline.steps.ingest.clip import Clip
from media import tone, write_video, write_wav
from pipeline import Pipeline

HEADER = "% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]\n\n"
COLUMNS = {"audio": "audio", "video": "video", "text": "text"}


def turn(name: str, emotion: str, start: float, end: float) -> str:
    """One utterance of an EmoEvaluation file, with what three annotators said."""
    return (
        f"[{start:.4f} - {end:.4f}]\t{name}\t{emotion}\t[2.5000, 2.5000, 2.5000]\n"
        "C-E2:\tNeutral;\t()\nC-E3:\tNeutral;\t()\nC-F1:\tNeutral; Anger;\t(a remark)\n"
        "A-E3:\tval 3; act 2; dom  2;\t()\nA-F1:\tval 3; act 2; dom  1;\t()\n\n"
    )


def write(root: Path, session: int, dialogue: str, evaluation: str | bytes, words: str = "") -> None:
    """The two annotation files of one dialogue."""
    folder = root / f"Session{session}/dialog"
    for name, content in (("EmoEvaluation", evaluation), ("transcriptions", words)):
        (folder / name).mkdir(parents=True, exist_ok=True)
        content = content if isinstance(content, bytes) else content.encode()
        (folder / name / f"{dialogue}.txt").write_bytes(content)


def dataset(root: Path, **changes: object) -> Dataset:
    columns = changes.pop("columns", COLUMNS)
    scheme = changes.pop("scheme", None)
    kinds = {"audio": "audio", "video": "video", "video_both": "video", "text": "text"}
    folders = {"labels": "EmoEvaluation", "words": "transcriptions"}
    for session in range(1, 6):
        for folder in folders.values():
            (root / f"Session{session}/dialog/{folder}").mkdir(parents=True, exist_ok=True)
    annotations = {
        f"session{n}_{key}": f"{root}/Session{n}/dialog/{folder}"
        for n in range(1, 6)
        for key, folder in folders.items()
    }
    return Dataset(
        name="iemocap",
        adapter="iemocap",
        root=str(root),
        annotations=annotations | changes.pop("lists", {}),
        modalities={name: {"kind": kinds[column], "column": column} for name, column in columns.items()},
        split=Split(scheme=scheme),
        **changes,
    )


def by_name(data: Dataset) -> dict[str, Clip]:
    return {clip.clip_id: clip for clip in read(data)}


# --- what the files say ---


def test_a_dialogue_as_the_official_files_have_it(tmp_path):
    evaluation = (
        HEADER
        + turn("Ses01F_impro01_F000", "neu", 6.2901, 8.2357)
        + turn("Ses01F_impro01_F001", "xxx", 10.01, 11.3925)
        + turn("Ses01F_impro01_M000", "exc", 7.5712, 10.475)
        + turn("Ses01F_impro01_M001", "fru", 11.0, 12.5)
    )
    words = (
        "Ses01F_impro01_F000 [006.2901-008.2357]: Excuse me: please.\n"
        "M: Yeah.\n"
        "Ses01F_impro01_M000 [007.5712-010.4750]: Do you have your forms?\n"
        "Ses01F_impro01_FXX0 [010.0000-010.5000]: Uh.\n"
    )
    write(tmp_path, 1, "Ses01F_impro01", evaluation, words)
    clips = by_name(dataset(tmp_path))
    assert list(clips) == ["Ses01F_impro01_F000", "Ses01F_impro01_M000"]
    woman, man = clips.values()
    assert (woman.label, man.label) == ("neu", "hap"), "excited counts as happy"
    assert woman.group == man.group == "Session1" and woman.row == 3
    assert woman.sources["audio"].path == "Session1/sentences/wav/Ses01F_impro01/Ses01F_impro01_F000.wav"
    video = woman.sources["video"]
    assert (video.path, video.start, video.end) == ("Session1/dialog/avi/DivX/Ses01F_impro01.avi", 6.2901, 8.2357)
    assert woman.sources["text"].text == "Excuse me: please."
    everything = by_name(dataset(tmp_path, label="all"))
    assert [clip.label for clip in everything.values()] == ["neu", "exc", "fru"], "without xxx"
    some = by_name(dataset(tmp_path, classes=["hap"]))
    assert list(some) == ["Ses01F_impro01_M000"]


@pytest.mark.parametrize(
    ("dialogue", "speaker", "half"),
    [
        ("Ses01F_impro01", "F", "left"),
        ("Ses01F_impro01", "M", "right"),
        ("Ses01M_script01_1b", "M", "left"),
        ("Ses01M_script01_1b", "F", "right"),
    ],
)
def test_the_actor_with_the_markers_is_on_the_left(tmp_path, dialogue, speaker, half):
    write(tmp_path, 1, dialogue, turn(f"{dialogue}_{speaker}000", "sad", 1, 2))
    (clip,) = read(dataset(tmp_path, columns={"video": "video", "both": "video_both"}))
    assert clip.sources["video"].half == half
    assert clip.sources["both"].half is None and clip.sources["both"].end == 2


def test_a_clip_without_words_has_no_text(tmp_path):
    write(tmp_path, 1, "Ses01F_impro01", turn("Ses01F_impro01_F000", "neu", 1, 2), "F: crosstalk\n")
    (clip,) = read(dataset(tmp_path))
    assert "text" not in clip.sources


def test_what_archives_leave_and_what_lies_beside_is_not_read(tmp_path):
    write(tmp_path, 1, "Ses01F_impro01", turn("Ses01F_impro01_F000", "neu", 1, 2))
    write(tmp_path, 1, "._Ses01F_impro01", b"\0\5\x16\7\xff[not an evaluation")
    folder = tmp_path / "Session1/dialog/EmoEvaluation/Categorical"
    folder.mkdir()
    (folder / "Ses01F_impro01_e1_cat.txt").write_text("Ses01F_impro01_F000 :Neutral state; ()\n[")
    assert len(read(dataset(tmp_path))) == 1


def test_crlf_and_remarks_that_are_not_utf_8(tmp_path):
    evaluation = turn("Ses01F_impro01_F000", "ang", 1, 2).replace("a remark", "déçu").replace("\n", "\r\n")
    write(tmp_path, 1, "Ses01F_impro01", evaluation.encode("latin-1"))
    (clip,) = read(dataset(tmp_path))
    assert clip.label == "ang"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("[1.0 - 2.0]\tSes01F_impro01_F009\tneu\n", "row 9: not `[start - end] utterance emotion"),
        ("[x - 2.0]\tSes01F_impro01_F009\tneu\t[1, 2, 3]\n", "row 9: not `[start - end] utterance emotion"),
        ("[1.0 - 2.0]\tSes01F_impro01_F009\tbad\t[1, 2, 3]\n", "row 9: emotion 'bad' is not one of neu, hap"),
        ("[3.0 - 2.0]\tSes01F_impro01_F009\tneu\t[1, 2, 3]\n", "row 9: Ses01F_impro01_F009 ends at 2 s, before"),
        ("[1.0 - 2.0]\tSes01F_impro02_F009\tneu\t[1, 2, 3]\n", "row 9: 'Ses01F_impro02_F009' is no utterance of"),
        ("[1.0 - 2.0]\tSes01F_impro01_F000\tneu\t[1, 2, 3]\n", "row 9: the utterance Ses01F_impro01_F000 is there"),
    ],
)
def test_wrong_rows_are_refused_with_file_and_row(tmp_path, line, expected):
    write(tmp_path, 1, "Ses01F_impro01", HEADER + turn("Ses01F_impro01_F000", "neu", 1, 2).rstrip("\n") + "\n" + line)
    with pytest.raises(AgmError) as error:
        read(dataset(tmp_path))
    assert expected in str(error.value) and "EmoEvaluation/Ses01F_impro01.txt" in str(error.value)


VALID = (
    HEADER
    + turn("Ses02M_impro03_F000", "hap", 1, 2)
    + turn("Ses02M_impro03_F001", "exc", 2, 3)
    + turn("Ses02M_impro03_M000", "sad", 3, 4)
).encode()


@settings(max_examples=50, deadline=None)
@given(st.integers(0, len(VALID) - 1), st.integers(0, 12), st.binary(max_size=12))
def test_no_edit_of_an_evaluation_ends_in_a_traceback_or_a_wrong_label(tmp_path_factory, place, length, new):
    root = tmp_path_factory.mktemp("iemocap")
    edited = VALID[:place] + new + VALID[place + length :]
    write(root, 2, "Ses02M_impro03", edited)
    try:
        found = {clip.clip_id: clip.label for clip in read(dataset(root))}
    except AgmError as error:
        assert "EmoEvaluation/Ses02M_impro03.txt" in str(error)
        return
    right = {"Ses02M_impro03_F000": "hap", "Ses02M_impro03_F001": "hap", "Ses02M_impro03_M000": "sad"}
    for line in VALID.splitlines():
        if line.startswith(b"[") and line in edited.splitlines():
            name = line.split(b"\t")[1].decode()
            assert found[name] == right[name]


# --- splits ---


def published(root: Path) -> None:
    """As many utterances of every emotion as IEMOCAP has, in five sessions of their published sizes."""
    emotions = ["neu"] * 1708 + ["ang"] * 1103 + ["sad"] * 1084 + ["hap"] * 595 + ["exc"] * 1041
    taken = 0
    for session, size in enumerate((1085, 1023, 1151, 1031, 1241), start=1):
        dialogue = f"Ses0{session}F_impro01"
        mine = emotions[taken : taken + size] + ["fru"] * 7 + ["xxx"] * 5
        taken += size
        turns = [turn(f"{dialogue}_F{number:04}", emotion, 1, 2) for number, emotion in enumerate(mine)]
        write(root, session, dialogue, HEADER + "".join(turns))


def test_the_published_counts(tmp_path):
    published(tmp_path)
    data = dataset(tmp_path)
    clips = read(data)
    assert Counter(clip.label for clip in clips) == {"neu": 1708, "ang": 1103, "sad": 1084, "hap": 595 + 1041}
    assert Counter(clip.split for clip in clips) == {"train": 3259, "val": 1031, "test": 1241}
    assert differences(data, clips) == []
    assert len(read(dataset(tmp_path, label="all"))) == 5531 + 5 * 7


@pytest.mark.parametrize(("test", "val"), [(1, 5), (2, 1), (3, 2), (4, 3), (5, 4)])
def test_every_session_can_be_left_out(tmp_path, test, val):
    published(tmp_path)
    data = dataset(tmp_path, scheme=f"session{test}")
    clips = read(data)
    groups = {split: {clip.group for clip in clips if clip.split == split} for split in ("train", "val", "test")}
    assert (groups["test"], groups["val"]) == ({f"Session{test}"}, {f"Session{val}"}) and len(groups["train"]) == 3
    assert differences(data, clips) == []


def test_mla_mixes_the_sessions(tmp_path):
    for session in (1, 2):
        dialogue = f"Ses0{session}F_impro01"
        turns = [turn(f"{dialogue}_F{number:03}", "neu", 1, 2) for number in range(3)]
        write(tmp_path, session, dialogue, "".join(turns))
    lists = {f"mla_{half}": str(tmp_path / f"my_{half}_iemo.txt") for half in ("train", "test")}
    words = "Well [split|sign] so. [split|sign] Neutral\n"
    train, test = (
        "".join(f"Ses0{session}F_impro01_F00{number}.mp4 [split|sign] {words}" for session in (1, 2))
        for number in (0, 1)
    )
    Path(lists["mla_train"]).write_text(train)
    Path(lists["mla_test"]).write_text(test)
    clips = by_name(dataset(tmp_path, scheme="mla", lists=lists))
    assert [clip.split for clip in clips.values()] == ["train", "test", "val"] * 2
    with pytest.raises(AgmError, match="four emotions only"):
        read(dataset(tmp_path, scheme="mla", lists=lists, label="all"))
    Path(lists["mla_test"]).write_text(test + "Ses09F_impro01_F000.mp4 [split|sign] " + words + "nonsense\n")
    with pytest.raises(AgmError) as error:
        read(dataset(tmp_path, scheme="mla", lists=lists))
    assert "row 3: no EmoEvaluation file has the utterance Ses09F" in str(error.value)
    assert "row 4: not `<utterance>.mp4" in str(error.value) and "my_test_iemo.txt" in str(error.value)
    with pytest.raises(AgmError, match="lacks 'mla_train'"):
        read(dataset(tmp_path, scheme="mla"))


# --- from the raw folder to a trained network ---


def tree(root: Path) -> None:
    """A dialogue of four utterances in each session; the left half of its picture is black, the right one white."""
    picture = np.repeat(np.repeat(np.array([[0, 255]], np.uint8), 32, axis=1), 24, axis=0)
    for session in range(1, 6):
        dialogue = f"Ses0{session}M_impro01"
        sounds = root / f"Session{session}/sentences/wav/{dialogue}"
        pictures = root / f"Session{session}/dialog/avi/DivX"
        sounds.mkdir(parents=True)
        pictures.mkdir(parents=True)
        write_video(pictures / f"{dialogue}.avi", 20, (64, 24), codec="mpeg4", picture=picture)
        evaluation, words = HEADER, "M: Yes.\n"
        for number, (speaker, emotion) in enumerate(zip("FFMM", ("neu", "exc", "sad", "ang"), strict=True)):
            name = f"{dialogue}_{speaker}00{number}"
            evaluation += turn(name, emotion, 0.4 * number, 0.4 * number + 0.4)
            words += f"{name} [000.0000-000.4000]: Word number {number}.\n"
            write_wav(sounds / f"{name}.wav", tone(200 * (number + 1), 0.4, 8000), 8000)
        write(root, session, dialogue, evaluation, words)
    first = root / "Session1/sentences/wav/Ses01M_impro01"
    (first / "Ses01M_impro01_F000.wav").unlink()
    (first / "Ses01M_impro01_F001.wav").write_bytes(b"RIFF")
    write_wav(first / "Ses01M_impro01_M002.wav", tone(200, 0.001, 8000), 8000)
    # The dialogue ends before its last utterance does, and the one before it has no transcript.
    write_video(root / "Session2/dialog/avi/DivX/Ses02M_impro01.avi", 11, (64, 24), codec="mpeg4", picture=picture)
    path = root / "Session2/dialog/transcriptions/Ses02M_impro01.txt"
    path.write_text(path.read_text().replace("Ses02M_impro01_M002 ", "M: "))


def test_from_the_official_folder_to_a_trained_network(tmp_path, monkeypatch):
    tree(tmp_path / "raw")
    run = Pipeline(
        tmp_path / "run",
        monkeypatch,
        "study=iemocap",
        "trainer=small",
        "encoder@encoders.audio=conv",
        "encoder@encoders.video=conv",
        "features.audio.sample_rate=8000",
        "features.audio.seconds=0.5",
        "features.video={frames: 1, fps: null, size: 16, channels: 1}",
        f"dataset.root={tmp_path}/raw",
    ).run()
    assert run.train()
    assert run.index["clips"] == {"train": 8, "val": 4, "test": 4} and run.index["leaks"] == []
    reasons = run.quarantine
    assert reasons["Ses01M_impro01_F000"] == "the file is not there"
    assert reasons["Ses01M_impro01_F001"].startswith("not a video or sound file")
    assert reasons["Ses01M_impro01_M002"].startswith("the sound is too short")
    assert reasons["Ses02M_impro01_M002"] == "the annotations name no file for text"
    assert reasons["Ses02M_impro01_M003"].startswith("the file ends after 1.1 s, before the clip begins")
    assert len(reasons) == 5
    features = pictures(run)
    assert all((value < 40) == ("_M" in name[6:]) for name, value in features.items()), "the man, left, is black"


def pictures(run: Pipeline) -> dict[str, float]:
    """The mean brightness of what was extracted of each clip."""
    table = pl.read_parquet(run.data / "features/video/part-0.parquet")
    return {
        name: np.frombuffer(tensor, np.uint8).mean() for name, tensor in table.select("clip_id", "tensor").iter_rows()
    }
