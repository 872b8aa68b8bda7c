"""CMU-MOSEI: the files of the SDK, MMSA's form, the traps, and from both folders to trained networks."""

from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agm.pipeline.config.schema import AudioFeatures, Dataset
from agm.pipeline.errors import AgmError
from agm.pipeline.io.source import Source
from agm.pipeline.steps.extract import audio
from agm.pipeline.steps.ingest.adapters import differences, read
from edits import edited
from media import tone, write_video, write_wav
from pipeline import Pipeline

KINDS = {"video": "video", "full_video": "video", "audio": "audio", "text": "text"}
FOLDS = """standard_train_fold=['a_', 'b', '_x___1']
standard_valid_fold = ['c']
standard_test_fold=['d']
import os; os.system('touch ran')
"""
# video → segments: name, start, end, text, sentiment
SEGMENTS = {
    "a_": [("0", 0.0, 1.0, "well", -1.0), ("1", 1.0, 2.5, "I see", 0.0)],
    "b": [("3", 0.5, 1.5, "really ___ good", 2.7)],
    "_x___1": [("0", 0.0, 1.0, "hm", -0.3)],
    "c": [("0", 0.0, 1.0, "no", -2.0), ("1", 1.0, 2.0, "yes", 3.0)],
    "d": [("0", 0.0, 1.0, "no", -0.5), ("1", 1.0, 2.0, "yes", 1.0)],
}


def write_csd(path: Path, name: str, videos: dict[str, tuple[np.ndarray, np.ndarray]]) -> Path:
    with h5py.File(path, "w") as file:
        for video, (features, intervals) in videos.items():
            group = file.create_group(f"{name}/data/{video}")
            group["features"], group["intervals"] = features, intervals
    return path


def sdk(root: Path, segments: dict = SEGMENTS, folds: str = FOLDS) -> Path:
    """The annotations of the SDK's download."""
    transcripts = root / "Raw/Transcript/Segmented/Combined"
    transcripts.mkdir(parents=True, exist_ok=True)
    labels = {}
    for video, each in segments.items():
        text = "".join(f"{video}___{name}___{start}___{end}___{words}\n" for name, start, end, words, _ in each)
        (transcripts / f"{video}.txt").write_text(text)
        features = np.array([[value, 0, 0, 0, 0, 0, 0] for *_, value in each])
        # The labels are stored in another order and precision than the transcript.
        intervals = np.array([[start + 1e-4, end - 1e-4] for _, start, end, *_ in each])
        labels[video] = features[::-1], intervals[::-1]
    write_csd(root / "CMU_MOSEI_Labels.csd", "All Labels", labels)
    (root / "cmu_mosei_std_folds.py").write_text(folds)
    return root


def dataset(root: Path, *columns: str, label: str | None = None, mmsa: bool = False) -> Dataset:
    annotations = {
        "labels": f"{root}/CMU_MOSEI_Labels.csd",
        "folds": f"{root}/cmu_mosei_std_folds.py",
        "transcripts": f"{root}/Raw/Transcript/Segmented/Combined",
    }
    return Dataset(
        name="cmu_mosei",
        adapter="cmu_mosei",
        root=str(root),
        annotations={"mmsa": f"{root}/label.csv"} if mmsa else annotations,
        modalities={name: {"kind": KINDS.get(name, "sequence"), "column": name} for name in columns},
        label=label,
    )


def refused(data: Dataset) -> str:
    with pytest.raises(AgmError) as error:
        read(data)
    return str(error.value)


# --- the SDK ---


def test_labels_are_joined_with_transcripts_by_time(tmp_path):
    clips = {clip.clip_id: clip for clip in read(dataset(sdk(tmp_path), "video", "audio", "text", "covarep"))}
    assert {name: (clip.split, clip.label, clip.group) for name, clip in clips.items()} == {
        "a__0": ("train", "negative", "a_"),
        "a__1": ("train", "non-negative", "a_"),
        "b_3": ("train", "non-negative", "b"),
        "_x___1_0": ("train", "negative", "_x___1"),
        "c_0": ("val", "negative", "c"),
        "c_1": ("val", "non-negative", "c"),
        "d_0": ("test", "negative", "d"),
        "d_1": ("test", "non-negative", "d"),
    }
    assert not any(clip.left_out for clip in clips.values())
    assert clips["b_3"].sources == {
        "video": Source("Raw/Videos/Segmented/Combined/b_3.mp4"),
        "audio": Source("Raw/Audio/Full/WAV_16000/b.wav", start=0.5, end=1.5),
        "text": Source(text="really ___ good"),
        "covarep": Source("CMU_MOSEI_COVAREP.csd", member="b", start=0.5, end=1.5),
    }
    assert not Path("ran").exists(), "the folds are read, not run"


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        ("posneg", {"a__0": "negative", "b_3": "positive"}),
        ("seven", {"a__0": "-1", "a__1": "0", "b_3": "3", "_x___1_0": "0"}),
    ],
)
def test_other_labels(tmp_path, label, expected):
    clips = read(dataset(sdk(tmp_path), "text", label=label))
    found = {clip.clip_id: clip.label for clip in clips if clip.split == "train"}
    assert found.items() >= expected.items()
    assert ("a__1" in found) == (label == "seven"), "neutral is neither"


def test_what_cannot_be_joined_is_left_out(tmp_path):
    root = sdk(tmp_path, SEGMENTS | {"e": [("0", 0.0, 1.0, "who", 1.0)]})
    folder = root / "Raw/Transcript/Segmented/Combined"
    (folder / "b.txt").write_text("b___3___0.7___1.5___really\n")
    (folder / "c.txt").unlink()
    reasons = {clip.clip_id: clip.left_out for clip in read(dataset(root, "text")) if clip.left_out}
    no_line = "no line of its video's transcript has the times of the label"
    assert reasons == {
        "b-0.500": no_line,
        "c-0.000": no_line,
        "c-1.000": no_line,
        "e_0": "its video is in none of the standard folds",
    }


def test_two_labels_of_one_segment_leave_it_out(tmp_path):
    root = sdk(tmp_path)
    twice = np.array([[1.0] * 7, [-1.0] * 7]), np.array([[0.5, 1.5], [0.51, 1.5]])
    write_csd(root / "CMU_MOSEI_Labels.csd", "All Labels", {"b": twice})
    [clip] = read(dataset(root, "text"))
    assert clip.left_out == "it has two labels"


@pytest.mark.parametrize(
    ("folds", "expected"),
    [
        (
            "standard_train_fold=['a']\nstandard_valid_fold=['b']\n",
            "The file has no list of videos `standard_test_fold`",
        ),
        (FOLDS.replace("['c']", "['c', 'b']"), "the video b is in two folds"),
        (FOLDS.replace("['c']", "list('c')"), "The folds are no lists of videos"),
        (FOLDS.replace("['c']", "['c'"), "The folds are no lists of videos"),
        (FOLDS.replace("['c']", "[1]"), "The file has no list of videos `standard_valid_fold`"),
        ("\0", "The folds are no lists of videos"),
        ("(" * 5000, "The folds are no lists of videos"),
    ],
)
def test_wrong_folds_are_refused(tmp_path, folds, expected):
    assert expected in refused(dataset(sdk(tmp_path, folds=folds), "text"))


def test_wrong_labels_and_transcripts_are_refused(tmp_path):
    root = sdk(tmp_path)
    (root / "Raw/Transcript/Segmented/Combined/b.txt").write_text(
        "b___3___0.5___1.5\nc___3___0___1___x\nb___a b___0___1___x\n"
    )
    message = refused(dataset(root, "text"))
    assert "row 1: not `b___<segment>___<start>___<end>___<text>`" in message and "row 2:" in message
    assert "row 3:" in message and "b.txt" in message
    write_csd(root / "CMU_MOSEI_Labels.csd", "All Labels", {"a_": (np.full((1, 7), 4.0), np.array([[0.0, 1.0]]))})
    assert "a_, 0 to 1 s: label '4.0' is no number from -3 to 3" in refused(dataset(root, "text"))
    write_csd(root / "CMU_MOSEI_Labels.csd", "All Labels", {"a_": (np.ones((1, 7)), np.ones((2, 2)))})
    assert "The labels are no file of the SDK, or damaged: a_ has features" in refused(dataset(root, "text"))
    (root / "CMU_MOSEI_Labels.csd").write_bytes(b"damaged")
    assert "The labels are no file of the SDK" in refused(dataset(root, "text"))


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_edited_transcripts_and_folds_are_refused_or_read_right(tmp_path_factory, data):
    root = sdk(tmp_path_factory.getbasetemp())
    name = data.draw(st.sampled_from(["cmu_mosei_std_folds.py", "Raw/Transcript/Segmented/Combined/c.txt"]))
    (root / name).write_bytes(data.draw(edited((root / name).read_bytes())))
    try:
        clips = read(dataset(root, "text"))
    except AgmError as error:
        assert name.split("/")[-1] in str(error)
    else:
        labels = {clip.clip_id: clip.label for clip in clips if not clip.left_out}
        right = {"c_0": "negative", "c_1": "non-negative", "d_0": "negative", "d_1": "non-negative"}
        assert all(labels[clip_id] == right[clip_id] for clip_id in labels.keys() & right.keys())


# --- MMSA ---

HEADER = "video_id,clip_id,text,label,label_T,label_A,label_V,annotation,mode\n"
MMSA = (
    HEADER
    + """v1,0001,A SAD PART,-0.5,,,,Negative,train
v1,0002,"SO, GOOD",1.8,,,,Positive,train
v2,0001,NO,0,,,,Neutral,valid
v2,10,YES,1.0,,,,Positive,valid
v3,1,NO,-3,,,,Negative,test
v3,2,OK,3,,,,Positive,test
"""
)


def mmsa(root: Path, content: str | bytes, *columns: str) -> Dataset:
    (root / "label.csv").write_bytes(content if isinstance(content, bytes) else content.encode())
    return dataset(root, *(columns or ("video", "text")), mmsa=True)


EXPECTED = dict.fromkeys(["v1_0001", "v3_1"], "negative") | dict.fromkeys(
    ["v1_0002", "v2_0001", "v2_10", "v3_2"], "non-negative"
)


def test_the_form_of_mmsa(tmp_path):
    data = mmsa(tmp_path, MMSA)
    clips = read(data)
    assert [(clip.clip_id, clip.split, clip.label, clip.group) for clip in clips] == [
        ("v1_0001", "train", "negative", "v1"),
        ("v1_0002", "train", "non-negative", "v1"),
        ("v2_0001", "val", "non-negative", "v2"),
        ("v2_10", "val", "non-negative", "v2"),
        ("v3_1", "test", "negative", "v3"),
        ("v3_2", "test", "non-negative", "v3"),
    ]
    assert {clip.clip_id: clip.label for clip in clips} == EXPECTED
    assert clips[1].sources == {"video": Source("Raw/v1/0002.mp4"), "text": Source(text="SO, GOOD")}
    assert differences(data, clips)[0] == "The annotations have 2 clips in train; officially there are 16,326"


def test_the_order_of_columns_varies(tmp_path):
    rows = [line.split(",") for line in ["mode,label,clip_id,video_id,text", "train,-1,3,v,a", "test,2,4,w,b"]]
    clips = read(mmsa(tmp_path, "\ufeff" + "\r\n".join(" ,".join(row) for row in rows)))
    assert [(clip.clip_id, clip.label, clip.split) for clip in clips] == [
        ("v_3", "negative", "train"),
        ("w_4", "non-negative", "test"),
    ]


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ("v1,0001,A,1,,,,,train", "row 8: the clip v1_0001 is in row 2 already"),
        ("v1,3,A,,,,,,train", "row 8: label '' is no number from -3 to 3"),
        ("v1,3,A,nan,,,,,train", "row 8: label 'nan' is no number"),
        ("v1,3,A,4,,,,,train", "row 8: label '4' is no number"),
        ("v1,3,A,1,,,,,dev", "row 8: mode 'dev' is not one of train, valid, test"),
        ("../v1,3,A,1,,,,,train", "row 8: '../v1' is not fit for a file name"),
        ("v1,..,A,1,,,,,train", "row 8: '..' is not fit for a file name"),
        ("v1,3,A,1,,,,train", "row 8: it has 8 cells, the header has 9"),
    ],
)
def test_wrong_rows_of_mmsa_are_refused(tmp_path, row, expected):
    assert expected in refused(mmsa(tmp_path, MMSA + row + "\n"))


def test_mmsa_has_no_features_of_the_sdk(tmp_path):
    assert "dataset.modalities.glove.column: MMSA's form has no 'glove'" in refused(mmsa(tmp_path, MMSA, "glove"))


@settings(max_examples=50, deadline=None)
@given(content=edited(MMSA.encode()))
def test_an_edited_list_is_refused_or_read_right(tmp_path_factory, content):
    data = mmsa(tmp_path_factory.getbasetemp(), content)
    try:
        clips = read(data)
    except AgmError as error:
        assert "label.csv" in str(error)
    else:
        labels = {clip.clip_id: clip.label for clip in clips}
        for line in {*content.split(b"\n")} & {*MMSA.encode().split(b"\n")[1:-1]}:
            video, clip, *_ = line.decode().split(",")
            assert labels.get(f"{video}_{clip}") in (None, EXPECTED[f"{video}_{clip}"])


# --- to a trained network ---


def test_from_the_sdk_to_a_trained_network(tmp_path, monkeypatch):
    root = tmp_path / "raw"
    folds = FOLDS.replace("'b'", "'b', 'f'")
    broken = [("0", 0.0, 1.0, "gone", 1.0), ("1", 1.0, 2.0, "damaged", -1.0)]
    more = {"d": [*SEGMENTS["d"], ("2", 2.0, 3.0, "why", 1.0)], "f": broken, "g": [("0", 9.0, 10.0, "late", 1.0)]}
    sdk(root, SEGMENTS | more, folds.replace("'c'", "'c', 'g'"))
    sounds = root / "Raw/Audio/Full/WAV_16000"
    sounds.mkdir(parents=True)
    for video in ("a_", "b", "_x___1", "c", "d", "g"):
        write_wav(sounds / f"{video}.wav", tone(300, 3.0, 16000))
    (sounds / "f.wav").write_bytes(b"damaged")
    times = np.stack([np.arange(0, 3, 0.25), np.arange(0.25, 3.25, 0.25)], axis=1)
    words = {video: (np.random.default_rng(0).normal(size=(12, 300)), times) for video in SEGMENTS if video != "b"}
    write_csd(
        root / "CMU_MOSEI_TimestampedWordVectors.csd", "glove_vectors", words | {"g": words["c"], "f": words["c"]}
    )
    small = ["encoders.text.dim=8", "encoders.text.num_heads=2", "encoders.audio.dim=8", "encoders.audio.num_heads=2"]
    pipeline = Pipeline(
        tmp_path / "work", monkeypatch, "study=cmu_mosei", f"dataset.root={root}", "fusion=[late_concat]", *small
    ).run()
    reasons = {name: reason.split(":")[0] for name, reason in pipeline.quarantine.items()}
    assert reasons == {
        "b_3": "the file has no 'b'",
        "f_0": "not a video or sound file, truncated or damaged",
        "f_1": "not a video or sound file, truncated or damaged",
        "g_0": "the file ends after 3 s, before the clip begins (9 s)",
    }
    assert pipeline.index["clips"] == {"train": 4, "val": 2, "test": 3}, "b is found when it is extracted"
    assert pipeline.index["leaks"] == []
    pipeline.train()


def test_from_mmsa_to_a_trained_network(tmp_path, monkeypatch):
    root = tmp_path / "raw"
    for video in ("v1", "v2", "v3"):
        (root / "Raw" / video).mkdir(parents=True)
    broken = "v1,7,gone,1,,,,,train\nv1,8,silent,1,,,,,train\nv2,9,damaged,1,,,,,valid\n"
    mmsa(root, MMSA + broken + "v3,3,so,1,,,,,test\n")
    for clip in ("v1/0001", "v1/0002", "v2/0001", "v2/10", "v3/1", "v3/2", "v3/3"):
        write_video(root / f"Raw/{clip}.mp4", 4, sound=tone(300, 0.5, 16000))
    write_video(root / "Raw/v1/8.mp4", 4)
    (root / "Raw/v2/9.mp4").write_bytes(b"damaged")
    pipeline = Pipeline(
        tmp_path / "work",
        monkeypatch,
        "study=cmu_mosei",
        "dataset=cmu_mosei_mmsa",
        f"dataset.root={root}",
        "fusion=[late_concat]",
        "encoder@encoders.video=conv",
        "encoder@encoders.audio=conv",
        "features.video.size=16",
        "features.audio.seconds=0.5",
        "encoders.text.dim=8",
        "encoders.text.num_heads=2",
    ).run()
    assert set(pipeline.quarantine) == {"v1_7", "v1_8", "v2_9"}
    assert pipeline.index["clips"] == {"train": 2, "val": 2, "test": 3}
    pipeline.train()


def test_sound_as_a_sequence(tmp_path):
    """The same numbers as the picture of the sound, step by step, and padding where it ends."""
    path = str(write_wav(tmp_path / "a.wav", tone(440, 1.0, 16000)))
    options = {
        "kind": "audio",
        "seconds": 2.0,
        "representation": "mel",
        "hop_length": 2000,
        "n_fft": 2048,
        "n_mels": 20,
    }
    picture, steps = AudioFeatures(**options), AudioFeatures(**options, as_sequence=True)
    assert (picture.produces, steps.produces) == ("audio", "sequence")
    whole, found = (audio.load(Source(path, stream=0), each) for each in (picture, steps))
    assert found.shape == audio.feature(steps).shape == (17, 20) and found.dtype == np.float32
    np.testing.assert_array_equal(found[:9], whole[0].T[:9])
    assert not found[9:].any() and whole[0].T[9:].all()
