"""MELD: the official lists, the traps, and from the official folder to a trained network."""

import csv
import io
from collections import Counter, defaultdict
from pathlib import Path

import pytest
from hypothesis import given, settings

from agm.pipeline.config.schema import Dataset, Split
from agm.pipeline.errors import AgmError
from agm.pipeline.io.source import Source
from agm.pipeline.steps.ingest.adapters import differences, read
from agm.pipeline.steps.ingest.split import assign
from edits import edited
from media import tone, write_video
from pipeline import Pipeline, official

SPLITS = ("train", "dev", "test")
HEADER = "Sr No.,Utterance,Speaker,Emotion,Sentiment,Dialogue_ID,Utterance_ID,Season,Episode,StartTime,EndTime"


def dataset(lists: dict[str, Path], scheme: str | None = None, label: str | None = None) -> Dataset:
    return Dataset(
        name="meld",
        adapter="meld",
        root=str(next(iter(lists.values())).parent),
        annotations={split: str(path) for split, path in lists.items()},
        modalities={"video": {"kind": "video", "column": "video"}, "text": {"kind": "text", "column": "text"}},
        label=label,
        split=Split(scheme=scheme, val=0.1, test=0.2),
    )


def lists(root: Path, **content: str | bytes) -> dict[str, Path]:
    """The three lists; those that are not given have one row each."""
    paths = {split: root / f"{split}_sent_emo.csv" for split in SPLITS}
    for number, (split, path) in enumerate(paths.items()):
        text = content.get(split, f"{HEADER}\n1,Hi.,Joey,joy,positive,0,0,1,{number},a,b\n")
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return paths


def official_lists() -> dict[str, Path]:
    return {split: official(f"meld/{split}_sent_emo.csv") for split in SPLITS}


def refused(data: Dataset) -> str:
    with pytest.raises(AgmError) as error:
        read(data)
    return str(error.value)


def test_the_official_lists():
    data = dataset(official_lists(), "official")
    clips = read(data)
    emotions = ("neutral", "joy", "sadness", "anger", "surprise", "fear", "disgust")
    counts = {
        "train": (4710, 1743, 683, 1109, 1205, 268, 271),
        "val": (470, 163, 111, 153, 150, 40, 22),
        "test": (1256, 402, 208, 345, 281, 50, 68),
    }
    expected = {(split, emotion): n for split in counts for emotion, n in zip(emotions, counts[split], strict=True)}
    assert Counter((clip.split, clip.label) for clip in clips) == expected
    assert differences(data, clips) == [] and len({clip.clip_id for clip in clips}) == 13708
    # Every utterance as the csv module reads it, curly quotes and all.
    rows = [row for path in official_lists().values() for row in csv.DictReader(io.StringIO(path.read_text("utf-8")))]
    assert [clip.sources["text"].text for clip in clips] == [row["Utterance"].strip() for row in rows]
    assert clips[0].sources["text"].text.startswith("also I was the point person on my company’s transition")
    assert clips[0].sources["video"] == Source("train/train_splits/dia0_utt0.mp4")
    assert (clips[0].clip_id, clips[0].group, clips[0].row) == ("train_dia0_utt0", "S08E21", 2)
    assert clips[9989].sources["video"] == Source("dev/dev_splits_complete/dia0_utt0.mp4")
    assert clips[-1].sources["video"].path.startswith("test/output_repeated_splits_test/dia")


def test_sentiments():
    clips = read(dataset(official_lists(), "official", "sentiment"))
    assert Counter(clip.label for clip in clips if clip.split == "train") == {
        "neutral": 4710,
        "negative": 2945,
        "positive": 2334,
    }


def test_what_leaks_and_what_does_not():
    groups = defaultdict(set)
    for clip in read(dataset(official_lists(), "official")):
        groups[clip.split].add(clip.group)
    assert {split: len(each) for split, each in groups.items()} == {"train": 188, "val": 82, "test": 143}
    assert len(groups["val"] & groups["train"]) == 81 and len(groups["test"] & groups["train"]) == 142
    data = dataset(official_lists())
    clips = read(data)
    splits = assign(clips, data.split)
    drawn = {
        name: {clip.group for clip, split in zip(clips, splits, strict=True) if split == name} for name in set(splits)
    }
    assert sum(map(len, drawn.values())) == 190
    assert Counter(splits)["test"] > 1500 and Counter(splits)["val"] > 700


def test_one_name_in_all_three_folders(tmp_path):
    clips = read(dataset(lists(tmp_path)))
    assert [clip.clip_id for clip in clips] == ["train_dia0_utt0", "dev_dia0_utt0", "test_dia0_utt0"]
    assert len({clip.sources["video"].path for clip in clips}) == 3


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ("2,Hi.,Joey,happy,positive,0,1,1,1,a,b", "row 3: Emotion 'happy' is not one of neutral, joy"),
        ("2,Hi.,Joey,,positive,0,1,1,1,a,b", "row 3: Emotion '' is not one of"),
        ("2,Hi.,Joey,joy,positive,0,0,1,1,a,b", "row 3: its utterance is in row 2 already"),
        ("2,Hi.,Joey,joy,positive,00,0,1,1,a,b", "row 3: its utterance is in row 2 already"),
        ("2,Hi.,Joey,joy,positive,-1,0,1,1,a,b", "row 3: Dialogue_ID is '-1', no number"),
        ("2,Hi.,Joey,joy,positive,../0,1,1,1,a,b", "row 3: Dialogue_ID is '../0', no number"),
        ("2,Hi.,Joey,joy,positive,0,1,1,,a,b", "row 3: Episode is '', no number"),
        ("2,Hi, you.,Joey,joy,positive,0,1,1,1,a,b", "row 3: it has 12 cells, the header has 11"),
    ],
)
def test_a_wrong_row_is_refused(tmp_path, row, expected):
    data = dataset(lists(tmp_path, dev=f"{HEADER}\n1,Hi.,Joey,joy,positive,0,0,1,1,a,b\n{row}\n"))
    message = refused(data)
    assert expected in message and "dev_sent_emo.csv" in message


def test_windows_punctuation_is_refused_and_not_guessed(tmp_path):
    row = "1,You’re,Joey,joy,positive,0,0,1,1,a,b\n"
    message = refused(dataset(lists(tmp_path, test=f"{HEADER}\n{row}".encode("cp1252"))))
    assert "not UTF-8: row 2 has the byte 0x92" in message and "save the file as UTF-8" in message


def test_chosen_emotions(tmp_path):
    rows = "1,a,J,joy,positive,0,0,1,1,a,b\n2,b,J,fear,negative,0,1,1,1,a,b\n"
    data = dataset(lists(tmp_path, train=f"{HEADER}\n{rows}")).model_copy(update={"classes": ["fear"]})
    assert [clip.clip_id for clip in read(data)] == ["train_dia0_utt1"]


ROWS = "".join(f"{n},Line {n}.,Ross,anger,negative,{n // 3},{n},2,{n % 4},a,b\n" for n in range(6))


@settings(max_examples=60, deadline=None)
@given(content=edited(f"{HEADER}\n{ROWS}".encode()))
def test_an_edited_list_is_refused_or_read_right(tmp_path_factory, content):
    data = dataset(lists(tmp_path_factory.getbasetemp(), train=content))
    try:
        clips = read(data)
    except AgmError as error:
        assert "train_sent_emo.csv" in str(error)
    else:
        labels = {clip.clip_id: clip.label for clip in clips}
        for line in {*content.split(b"\n")} & {*ROWS.encode().split(b"\n")[:-1]}:
            cells = line.decode().split(",")
            assert labels.get(f"train_dia{cells[5]}_utt{cells[6]}") in (None, "anger")


@pytest.mark.parametrize("scheme", ["episodes", "official"])
def test_from_the_official_folder_to_a_trained_network(tmp_path, monkeypatch, scheme):
    root = tmp_path / "raw"
    folders = {
        "train": "train/train_splits",
        "dev": "dev/dev_splits_complete",
        "test": "test/output_repeated_splits_test",
    }
    content = {}
    for split, folder in folders.items():
        (root / folder).mkdir(parents=True)
        rows = []
        for number in range(6):
            emotion, sentiment = (("joy", "positive"), ("anger", "negative"))[number % 2]
            rows.append(
                f'{number},"Oh, it’s {number}!",Monica,{emotion},{sentiment},{number // 2},{number % 2},1,{number},x,y'
            )
            write_video(root / folder / f"dia{number // 2}_utt{number % 2}.mp4", 4, sound=tone(300, 0.5, 16000))
        content[split] = "\r\n".join([HEADER, *rows]) + "\r\n"
    lists(root, **content)
    train = root / folders["train"]
    (train / "dia0_utt0.mp4").unlink()  # as dia125_utt3 of the download
    (train / "dia0_utt1.mp4").write_bytes(b"damaged")
    write_video(train / "dia1_utt0.mp4", 4)  # silent
    write_video(train / "dia1_utt1.mp4", 4, sound=tone(300, 0.001, 16000))
    (train / "final_videos_testdia0_utt0.mp4").write_bytes(b"what is not in the lists does not matter")
    pipeline = Pipeline(
        tmp_path / "work",
        monkeypatch,
        "study=meld",
        f"dataset.root={root}",
        f"dataset.split.scheme={scheme}",
        "encoder@encoders.video=conv",
        "encoder@encoders.audio=conv",
        "features.video.size=16",
        "features.audio.seconds=0.5",
        "features.audio.n_fft=2048",
        "encoders.text.dim=8",
        "encoders.text.num_heads=2",
    ).run()
    assert {name: reason.split(":")[0] for name, reason in pipeline.quarantine.items()} == {
        "train_dia0_utt0": "the file is not there",
        "train_dia0_utt1": "not a video or sound file, truncated or damaged",
        "train_dia1_utt0": "the video has no sound",
        "train_dia1_utt1": "the sound is too short",
    }
    leaks = pipeline.index["leaks"]
    assert bool(leaks) == (scheme == "official") and ("official" in "".join(leaks)) == (scheme == "official")
    pipeline.train()
