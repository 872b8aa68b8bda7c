"""Annotations, listing, probing, splits and the manifest: on real files and with the real commands."""

import os
import tempfile
from collections import Counter
from functools import cache
from pathlib import Path
from random import Random

import av
import numpy as np
import polars as pl
import pytest
from av.stream import Disposition
from hypothesis import given, settings
from hypothesis import strategies as st

import bombs
from agm.pipeline.cli import main
from agm.pipeline.config.compose import compose
from agm.pipeline.config.schema import Dataset, Split, VideoFeatures
from agm.pipeline.errors import AgmError
from agm.pipeline.io.files import digest, read_json
from agm.pipeline.io.source import Source
from agm.pipeline.io.tables import SPLITS
from agm.pipeline.steps.extract import audio
from agm.pipeline.steps.extract.video import load as pictures
from agm.pipeline.steps.ingest.adapters import find, read
from agm.pipeline.steps.ingest.clip import Clip
from agm.pipeline.steps.ingest.listing import look
from agm.pipeline.steps.ingest.probe import Unusable, probe
from agm.pipeline.steps.ingest.split import assign, order
from agm.pipeline.steps.ingest.step import class_names
from edits import edited
from media import levels, tone, write_image, write_video, write_wav

REPOSITORY = Path(__file__).parents[1]
GROUPS = REPOSITORY / "params"
REAL_CLIPS = REPOSITORY.parent / "shared/data/clips"


@pytest.fixture(autouse=True)
def one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few small files are read sooner than worker processes have imported torch."""
    monkeypatch.setenv("AGM_WORKERS", "1")


def dataset(root: Path, csv: str | bytes, group: str | None = None, **columns: str) -> Dataset:
    """A data set for the manifest adapter; `columns` are modality=column, all of kind text."""
    root.mkdir(exist_ok=True)
    (root / "clips.csv").write_bytes(csv if isinstance(csv, bytes) else csv.encode())
    modalities = {name: {"kind": "text", "column": column} for name, column in (columns or {"text": "text"}).items()}
    return Dataset(
        name="own",
        adapter="manifest",
        root=str(root),
        annotations={"clips": str(root / "clips.csv")},
        modalities=modalities,
        group=group,
    )


def refused(data: Dataset) -> str:
    """The message that reading the annotations, and looking for their files, ends with."""
    with pytest.raises(AgmError) as error:
        look(data, read(data))
    return str(error.value)


# --- annotations ---


def test_every_adapter_of_the_schema_exists():
    names = set(Dataset.model_fields["adapter"].annotation.__args__)
    for name in names:
        assert find(name).clips
    files = (REPOSITORY / "src/agm/pipeline/steps/ingest/adapters").glob("*.py")
    assert {file.stem for file in files if "\nADAPTER = " in file.read_text()} == names


HEADER = "clip_id,split,label,text\n"
GOOD = "a,train,0,a.txt\nb,val,1,a.txt\nc,test,2,a.txt\n"


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ("d,dev,0,a.txt\n", "row 5: split 'dev' is not one of train, val, test"),
        ("b,train,0,a.txt\n", "row 5: clip_id 'b' is in row 3 already"),
        (",train,0,a.txt\n", "row 5: clip_id is empty"),
        ("x/y,train,0,a.txt\n", "row 5: clip_id 'x/y' is not fit for a file name"),
        ("..,train,0,a.txt\n", "row 5: clip_id '..' is not fit for a file name"),
        (f"{'x' * 300},train,0,a.txt\n", "is not fit for a file name"),
        ("d,train,,a.txt\n", "row 5: label is empty"),
        ("d,train,1.5,a.txt\n", "row 5: label '1.5' is neither an integer nor a name"),
        ("d,train,nan,a.txt\n", "row 5: label is 'nan', which means a missing value"),
        ("d,train,seven,a.txt\n", "row 5: label 'seven' is a name, but that of row 2 is an integer"),
        ("d,train,0,b.txt\n", "row 5: text: file not found: b.txt"),
        ("d,train,0,a.txt/b\n", "row 5: text: file not found: a.txt/b"),
        (f"d,train,0,{'x' * 300}\n", "row 5: text: file cannot be reached (File name too long)"),
        ("d,train,0,folder\n", "row 5: text: not a file: folder"),
        ("d,train,0,.\n", "row 5: text: not a file: ."),
        ("d,train,0,../a.txt\n", "row 5: text: the path '../a.txt' leaves the root folder"),
        ("d,train,0,folder/../../a.txt\n", "row 5: text: the path '../a.txt' leaves the root folder"),
        ("d,train,0,/etc/hostname\n", "row 5: text: the path '/etc/hostname' leaves the root folder"),
        (
            "d,train,0,link.txt\n",
            "row 5: text: the path is a link that leaves the root folder, to none of dataset.links: link.txt",
        ),
        (
            "d,train,0,away/out.txt\n",
            "row 5: text: the path is a link that leaves the root folder, to none of dataset.links: away/out.txt",
        ),
        ("d,train,0,a\0.txt\n", "row 5 has a NUL character"),
        ("d,train,0\n", "row 5: it has 3 cells, the header has 4"),
        ('d,train,0,"a.txt\n', "row 5: "),
        ("\n\nd,dev,0,a.txt\n", "row 7: split 'dev'"),
        ('"d\nd",train,0,a.txt\ne,dev,0,a.txt\n', "row 7: split 'dev'"),
    ],
)
def test_wrong_rows_are_refused_by_number(tmp_path, rows, expected):
    data = dataset(tmp_path / "root", HEADER + GOOD + rows)
    outside = tmp_path / "out.txt"
    outside.write_text("outside")
    (tmp_path / "root/a.txt").write_text("inside")
    (tmp_path / "root/folder").mkdir()
    (tmp_path / "root/link.txt").symlink_to(outside)
    (tmp_path / "root/away").symlink_to(tmp_path)
    message = refused(data)
    assert expected in message
    assert data.annotations["clips"] in message and "fix:" in message


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "Row 1 lacks the column 'clip_id', 'label', 'text'; it has none"),
        (b"clip_id,split,text\na,train,a.txt\n", "Row 1 lacks the column 'label'"),
        (b"clip_id,label,text,label\na,1,a.txt,1\n", "Row 1 names a column twice: label"),
        (HEADER.encode(), "The annotations have no rows"),
        (HEADER.encode() + b"a,train,caf\xe9,a.txt\n", "The annotations are not UTF-8: row 2 has the byte 0xe9"),
    ],
)
def test_a_wrong_file_is_refused(tmp_path, content, expected):
    assert expected in refused(dataset(tmp_path, content))


def test_a_group_in_two_given_splits_is_refused_by_name(tmp_path):
    rows = "a,train,0,a.txt,ann\nb,,0,a.txt,ann\nc,test,0,a.txt,ann\nd,,0,a.txt,\ne,val,0,a.txt,ann\n"
    csv = "clip_id,split,label,text,speaker\n" + rows
    message = refused(dataset(tmp_path, csv, group="speaker"))
    assert "row 4: speaker 'ann' is in split test, but in row 2 in split train" in message
    assert "row 5: speaker is empty" in message
    assert "row 6" not in message, "every group once"


ROWS = [f'clip{n},{SPLITS[n % 3]},{"dog" if n % 2 else "cat"},"a, {n}.txt"' for n in range(6)]


@given(edited("\r\n".join([HEADER.strip(), *ROWS, ""]).encode()))
@settings(max_examples=100, deadline=None)
def test_an_edited_csv_is_read_rightly_or_refused(tmp_path_factory, content):
    data = dataset(tmp_path_factory.getbasetemp() / "edited", content)
    try:
        clips = read(data)
    except AgmError as error:
        assert data.annotations["clips"] in str(error) and "row " in str(error).lower()
        return
    written = {line.split(",")[0]: line for line in ROWS}
    for clip in clips:
        line = written.get(clip.clip_id)
        if line is not None and line.encode() in content:
            assert clip.label == line.split(",")[2]
            # A column by another name is another column, and splits may be missing.
            assert clip.split in (line.split(",")[1], None if b",split," not in content else "")


def test_many_problems_are_counted_and_the_first_are_shown(tmp_path):
    message = refused(dataset(tmp_path, HEADER + "".join(f"{n},dev,0,a.txt\n" for n in range(25))))
    assert message.count("row ") >= 10 and "row 11:" in message and "row 12:" not in message
    assert "… and 15 more" in message


def test_a_csv_as_table_programs_write_it(tmp_path):
    csv = (
        b'\xef\xbb\xbfclip_id,label,text,note\r\n a ,"violin, fiddle",./a.txt,"two\r\nlines"\r\n\r\n'
        + 'b,café,"sub//b.txt",\r\nc,café,,x\r\n'.encode()
    )
    first, second, third = read(dataset(tmp_path, csv))
    assert first == Clip("a", None, "violin, fiddle", None, {"text": Source("a.txt")}, 2)
    assert second == Clip("b", None, "café", None, {"text": Source("sub/b.txt")}, 5)
    assert third.sources == {}


def test_integers_keep_their_order_and_names_are_sorted():
    def clips(*labels: str) -> list[Clip]:
        return [Clip("x", None, label, None, {}, 1) for label in labels]

    assert class_names(clips("10", "9", "-1", "9")) == ["-1", "9", "10"]
    assert class_names(clips("dog", "cat", "dog")) == ["cat", "dog"]


def test_spellings_of_one_integer_are_one_class(tmp_path):
    clips = read(dataset(tmp_path, HEADER + "a,train,07,a.txt\nb,train,7,a.txt\nc,train,+7,a.txt\n"))
    assert class_names(clips) == ["7"]


def test_a_missing_root_says_what_to_do(tmp_path):
    data = dataset(tmp_path, HEADER + GOOD)
    assert "dataset.root=" in refused(data.model_copy(update={"root": "/nowhere"}))
    assert "agm generate dial" in refused(data.model_copy(update={"root": "/nowhere", "adapter": "dial"}))


def test_links_within_the_root_are_followed(tmp_path):
    data = dataset(tmp_path, HEADER + "a,train,0,link.txt\n")
    (tmp_path / "real.txt").write_text("four")
    (tmp_path / "link.txt").symlink_to("real.txt")
    assert look(data, read(data))["link.txt"].size == 4


# --- splits ---


@st.composite
def annotated(draw, grouped: bool):
    """Clips with given, missing or mixed splits; where grouped, no group in two given splits."""
    given_splits = draw(st.sampled_from([(None,), ("train",), ("train", "test"), ("train", "val"), (None, *SPLITS)]))
    # By a generator: hypothesis takes milliseconds for each value that it draws itself.
    random = Random(draw(st.integers(0, 2**32 - 1)))
    most = random.choice((0, 3, 12))
    split_of = {group: random.choice(given_splits) for group in range(most + 1)}
    clips = []
    for number in range(draw(st.integers(30, 150))):
        group = random.randint(0, most)
        split = split_of[group] if grouped else random.choice(given_splits)
        label = str(random.randint(0, 3))
        clips.append(Clip(f"c{number}", split, label, str(group) if grouped else None, {}, number + 2))
    return clips


SETTINGS = settings(max_examples=60, deadline=None)


@SETTINGS
@given(annotated(grouped=False), st.integers(0, 9), st.floats(0.05, 0.4))
def test_split_without_groups(clips, seed, share):
    options = Split(val=share, test=share, seed=seed)
    splits = assign(clips, options)
    assert splits == assign(clips, options)
    assert len(splits) == len(clips) and set(splits) <= set(SPLITS)
    assert all(got == clip.split for clip, got in zip(clips, splits, strict=True) if clip.split in ("val", "test"))
    pool = sum(clip.split in (None, "train") for clip in clips)
    given_splits = {clip.split for clip in clips}
    if "test" not in given_splits:
        assert abs(splits.count("test") - share * pool) <= 4  # at most the number of classes
        pool -= splits.count("test")
        labels = Counter(clip.label for clip in clips if clip.split in (None, "train"))
        held = Counter(clip.label for clip, got in zip(clips, splits, strict=True) if got == "test")
        assert all(abs(held[label] - share * count) < 1.5 for label, count in labels.items())
    if "val" not in given_splits:
        assert abs(splits.count("val") - share * pool) <= 4
    else:
        assert splits.count("val") == sum(clip.split == "val" for clip in clips)


@SETTINGS
@given(annotated(grouped=True), st.integers(0, 9), st.floats(0.05, 0.4))
def test_split_with_groups(clips, seed, share):
    splits = assign(clips, Split(val=share, test=share, seed=seed))
    assert splits == assign(clips, Split(val=share, test=share, seed=seed))
    where: dict[str, set[str]] = {}
    for clip, split in zip(clips, splits, strict=True):
        where.setdefault(clip.group, set()).add(split)
    assert all(len(found) == 1 for found in where.values()), "a group straddles"
    pool = Counter(clip.group for clip in clips if clip.split in (None, "train"))
    if "test" not in {clip.split for clip in clips} and len(pool) > 2:
        assert abs(splits.count("test") - share * pool.total()) <= max(pool.values())


def test_a_clip_without_split_follows_its_group():
    rows = [("train", "a"), ("val", "b"), ("test", "c"), (None, "b"), (None, "c"), (None, "d")]
    clips = [Clip(str(number), split, "0", group, {}, number) for number, (split, group) in enumerate(rows)]
    assert assign(clips, Split()) == ["train", "val", "test", "val", "test", "train"]


def test_split_and_order_follow_the_seed_and_scale():
    clips = [Clip(str(number), None, str(number % 300), None, {}, number) for number in range(40_000)]
    grouped = [
        Clip(clip.clip_id, None, clip.label, str(number % 10_000), {}, number) for number, clip in enumerate(clips)
    ]
    for each in (clips, grouped):
        splits = assign(each, Split(val=0.1, test=0.2, seed=1))
        assert splits.count("test") == pytest.approx(8000, abs=4)
        assert splits.count("val") == pytest.approx(3200, abs=150)
        assert splits != assign(each, Split(val=0.1, test=0.2, seed=2))
    assert sorted(order(40_000, 0)) == list(range(40_000))
    assert order(100, 0) == order(100, 0) != order(100, 1)


# --- probing ---


def video(path: Path, sound: bool = True, **options: object) -> Path:
    return write_video(path, sound=tone(440, 1, 16000) if sound else None, **options)


def test_usable_files(tmp_path):
    clip = video(tmp_path / "clip.mp4")
    assert (probe(Source(clip), "video").stream, probe(Source(clip), "audio").stream) == (0, 1)
    assert probe(Source(clip), "video").duration == pytest.approx(1, abs=0.1)
    sound = probe(Source(write_wav(tmp_path / "clip.wav", tone(440, 0.5, 8000), 8000)), "audio")
    assert (sound.stream, sound.duration) == (0, pytest.approx(0.5))
    image = probe(Source(write_image(tmp_path / "image.png", np.zeros((8, 8), np.uint8))), "image")
    assert (image.stream, image.duration) == (None, None)
    (tmp_path / "appended.mp4").write_bytes(clip.read_bytes() + b"made by a camera")
    assert probe(Source(tmp_path / "appended.mp4"), "video") == probe(Source(clip), "video")
    (tmp_path / "bom.txt").write_bytes(b"\xef\xbb\xbfcaf\xc3\xa9")
    assert probe(Source(tmp_path / "bom.txt"), "text").duration is None


FIRST_PACKETS = {
    "a.mp4": ("libx264", "yuv420p"),
    "b.mp4": ("mpeg4", "yuv420p"),
    "a.avi": ("mpeg4", "yuv420p"),
    "b.avi": ("mjpeg", "yuvj420p"),
    "a.webm": ("libvpx", "yuv420p"),
    "b.webm": ("libvpx-vp9", "yuv420p"),
    "a.flv": ("flv", "yuv420p"),
    "a.wmv": ("wmv2", "yuv420p"),
    "a.mov": ("prores", "yuv422p10le"),
    "a.mkv": ("ffv1", "yuv420p"),
    "a.ts": ("libx264", "yuv420p"),
}


def blank_first_packet(path: Path, stream: int) -> None:
    """Overwrite a stream's first packet by zeros, or in MPEG-TS what of it lies in one packet of that format."""
    with av.open(str(path)) as file:
        first = bytes(next(each for each in file.demux(file.streams[stream]) if each.size))
    content = bytearray(path.read_bytes())
    place, size = content.index(first[:100]), 100 if path.suffix == ".ts" else len(first)
    content[place : place + size] = bytes(size)
    path.write_bytes(content)


@pytest.mark.parametrize("name", FIRST_PACKETS)
def test_a_damaged_first_packet_costs_its_own_frames_only(tmp_path, name):
    codec, pixels = FIRST_PACKETS[name]
    path = write_video(tmp_path / name, 40, rate=25, codec=codec, pixels=pixels, options={"g": "10"})
    blank_first_packet(path, 0)
    assert probe(Source(str(path)), "video").stream == 0
    found = levels(pictures(Source(str(path), 0), VideoFeatures(kind="video", frames=8, size=16, channels=1)))
    assert np.abs(np.array(found[2:]) - [12, 17, 22, 27, 32, 37]).max() <= 1


@pytest.mark.parametrize(
    "name, codec", [("a.m4a", "aac"), ("a.flac", "flac"), ("a.mka", "ac3"), ("a.mp3", "libmp3lame")]
)
def test_a_damaged_first_packet_of_sound_costs_its_own_samples_only(tmp_path, name, codec):
    path, rate = tmp_path / name, 48000
    with av.open(str(path), "w") as file:
        stream = file.add_stream(codec, rate=rate, layout="mono")
        frame = av.AudioFrame.from_ndarray(tone(1000, 3.0, rate).astype(np.float32)[None], "flt", "mono")
        frame.sample_rate = rate
        for each in av.AudioResampler(stream.codec_context.format.name, "mono", rate).resample(frame):
            file.mux(stream.encode(each))
        file.mux(stream.encode())
    blank_first_packet(path, 0)
    assert probe(Source(str(path)), "audio").stream == 0
    wave, _ = audio.mono(Source(str(path), 0), 5.0)
    assert len(wave) / rate == pytest.approx(3.0, abs=0.15)
    assert (np.abs(wave[rate // 4 : 2 * rate]).reshape(-1, 480).max(axis=1) > 0.3).all()


def test_nothing_that_decodes_is_refused(tmp_path):
    path = write_video(tmp_path / "a.mkv", 3, codec="ffv1", options={"g": "1"})
    content = path.read_bytes()
    with av.open(str(path)) as file:
        for packet in file.demux(file.streams[0]):
            content = content.replace(bytes(packet), bytes(packet.size)) if packet.size else content
    path.write_bytes(content)
    with pytest.raises(Unusable, match="nothing of it can be decoded"):
        probe(Source(str(path)), "video")


@pytest.mark.parametrize("offset", [0, 5000])
def test_joined_recordings_last_as_long_as_all_of_them(tmp_path, offset):
    parts = []
    for number, frames in enumerate((40, 20)):
        later = {"output_ts_offset": str(offset * number)}
        parts.append(write_video(tmp_path / f"{number}.ts", frames, container=later).read_bytes())
    (tmp_path / "a.ts").write_bytes(b"".join(parts))
    found = probe(Source(str(tmp_path / "a.ts")), "video")
    assert found.duration == pytest.approx(6.0, abs=0.01)
    assert probe(Source(str(tmp_path / "a.ts"), start=5.0), "video").duration == pytest.approx(1.0, abs=0.01)


def test_a_stream_that_starts_late_ends_late(tmp_path):
    path = write_video(tmp_path / "a.mp4", 20, sound=tone(500, 5.0, 16000), holes=[(-1, 2.0)])
    assert probe(Source(str(path)), "audio").duration == pytest.approx(5.0, abs=0.1)
    assert probe(Source(str(path), start=4.0), "audio").duration == pytest.approx(1.0, abs=0.1)


def tracks(path: Path, titles: list[str], flags: list[int] | None = None) -> Path:
    """A file of one sound track for each title: a tone of 500 Hz, 1000 Hz, …"""
    with av.open(str(path), "w") as file:
        streams = [file.add_stream("aac", rate=16000, layout="mono") for _ in titles]
        for number, (stream, title) in enumerate(zip(streams, titles, strict=True)):
            stream.metadata["title" if path.suffix == ".mkv" else "handler_name"] = title
            if flags:
                stream.disposition = flags[number]
        for number, stream in enumerate(streams):
            sound = tone(500 * (number + 1), 1.0, 16000).astype(np.float32)[None]
            frame = av.AudioFrame.from_ndarray(sound, "fltp", "mono")
            frame.sample_rate = 16000
            file.mux([*stream.encode(frame), *stream.encode()])
    return path


@pytest.mark.parametrize(
    "name, titles, flags, expected",
    [
        ("a.mkv", ["", ""], None, 0),
        ("a.mkv", ["Director's commentary", ""], None, 1),
        ("a.mkv", ["Commentary", "Audio description", "English"], None, 2),
        ("a.mp4", ["Commentary by the cast", "English"], None, 1),
        ("a.mkv", ["", ""], [Disposition.default | Disposition.comment, 0], 1),
        ("a.mkv", ["", ""], [Disposition.visual_impaired, 0], 1),
        ("a.mkv", ["", ""], [0, Disposition.default], 1),
        ("a.mkv", ["Commentary"], None, 0),
    ],
)
def test_a_track_about_the_clip_is_not_its_sound(tmp_path, name, titles, flags, expected):
    assert probe(Source(str(tracks(tmp_path / name, titles, flags))), "audio").stream == expected


def test_a_title_that_is_not_utf8_does_no_harm(tmp_path):
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as file:
        file.metadata["title"] = "a title of windows"
        stream = file.add_stream("libx264", rate=10)
        stream.width = stream.height = 32
        frame = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), "rgb24")
        file.mux([*stream.encode(frame), *stream.encode()])
    content = path.read_bytes()
    assert content.count(b"a title of windows") == 1
    path.write_bytes(content.replace(b"a title of windows", b"a t\xeftle \xffn windows"))
    with pytest.raises(UnicodeDecodeError):
        av.open(str(path)).close()
    assert probe(Source(path), "video").stream == 0


def broken_files(folder: Path) -> dict[str, Path]:
    """One file for every way in which a file is unusable."""
    clip = video(folder / "good.mp4").read_bytes()
    header_first = video(folder / "fast.mp4", container={"movflags": "faststart"}).read_bytes()
    png = write_image(folder / "good.png", np.random.default_rng(0).integers(0, 255, (64, 64), np.uint8)).read_bytes()
    jpeg = write_image(folder / "good.jpg", np.random.default_rng(0).integers(0, 255, (64, 64), np.uint8)).read_bytes()
    files = {
        "empty.mp4": b"",
        "truncated.mp4": clip[: len(clip) // 2],
        "truncated_header_first.mp4": header_first[:-200],
        "random.mp4": np.random.default_rng(0).bytes(5000),
        "playlist.mp4": b"#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:9/a.ts\n",
        "bytes.txt": b"abc\xff",
        "blank.txt": b" \n\t",
        "truncated.png": png[: len(png) // 2],
        "flipped.png": png[:200] + bytes([png[200] ^ 255]) + png[201:],
        "truncated.jpg": jpeg[: len(jpeg) // 2],
        "text.png": b"not an image",
    }
    for name, content in files.items():
        (folder / name).write_bytes(content)
    bombs.picture(folder / "huge.png", 10_001)
    video(folder / "silent.mp4", sound=False)
    write_wav(folder / "sound.wav", tone(440, 0.5, 8000), 8000)
    return {path.name: path for path in folder.iterdir()}


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The `broken_files`, which nobody changes."""
    return broken_files(tmp_path_factory.mktemp("broken"))


def test_unusable_files_and_their_reasons(tmp_path, broken, capfd):
    files = broken
    for name, kind, reason in [
        ("empty.mp4", "video", "the file is empty"),
        ("truncated.mp4", "video", "truncated: the file ends at least "),
        ("truncated.mp4", "audio", "truncated: "),
        ("truncated_header_first.mp4", "video", "truncated: the file ends at least 200 bytes too early"),
        ("random.mp4", "video", "not a video or sound file, truncated or damaged: Invalid data found"),
        ("playlist.mp4", "video", "not a video or sound file, truncated or damaged"),
        ("silent.mp4", "audio", "the video has no sound"),
        ("sound.wav", "video", "the file has no picture"),
        ("good.png", "audio", "the video has no sound"),
        ("bytes.txt", "text", "the text is not UTF-8 (byte 0xff at 3)"),
        ("blank.txt", "text", "the text is blank"),
        ("truncated.png", "image", "the image is damaged: "),
        ("flipped.png", "image", "the image is damaged: "),
        ("truncated.jpg", "image", "the image is damaged: "),
        ("text.png", "image", "not an image ("),
        ("good.mp4", "image", "not an image ("),
        ("good.mp4", "text", "the text is not UTF-8 (byte "),
        ("huge.png", "image", "the image has 100,020,001 pixels, more than dataset.limits.pixels = 100,000,000"),
    ]:
        with pytest.raises(Unusable) as error:
            probe(Source(files[name]), kind)
        assert str(error.value).startswith(reason), name
    with pytest.raises(Unusable, match="the file is not there"):
        probe(Source(tmp_path / "gone.mp4"), "video")
    assert capfd.readouterr() == ("", ""), "FFmpeg and Pillow keep silent"


# --- the commands ---


def own(folder: Path, root: Path, csv: Path, *overrides: str) -> None:
    """Write a params.yaml for a user's own videos with sound."""
    text = composed(*overrides).replace("ROOT", str(root)).replace("CSV", str(csv))
    (folder / "params.yaml").write_text(text)


@cache
def composed(*overrides: str) -> str:
    """The same, with ROOT and CSV in the places of the two paths."""
    changes = ["~dataset.modalities.text", "~features.text", "~encoders.text", "dataset.generated=[]"]
    changes += ["dataset.name=own", "dataset.adapter=manifest"]
    changes += ["dataset.root=ROOT", "dataset.annotations.clips=CSV"]
    with tempfile.TemporaryDirectory() as folder:
        compose([*changes, *overrides], Path(folder, "params.yaml"), groups=GROUPS)
        return Path(folder, "params.yaml").read_text()


def run(*commands: str) -> bool:
    """Whether every one of the commands succeeds."""
    return all(main(command.split()) == 0 for command in commands)


def table(folder: Path, name: str) -> pl.DataFrame:
    return pl.read_parquet(folder / "data" / name)


def test_dial_from_nothing_to_the_manifest(tmp_path, monkeypatch, capfd):
    compose(["dial.clips=20"], tmp_path / "params.yaml", groups=GROUPS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AGM_WORKERS", "1")
    assert not run("annotations clips") and "agm generate" in capfd.readouterr().err
    assert run("generate dial", "annotations clips", "list")
    monkeypatch.setenv("AGM_WORKERS", "2")
    assert run("ingest")
    listing, manifest = table(tmp_path, "dial/listing.parquet"), table(tmp_path, "dial/manifest.parquet")
    assert len(listing) == 40 and listing["identity"].is_not_null().all()
    index = read_json(tmp_path / "data/dial/manifest.json")
    assert index["classes"] == [str(digit) for digit in range(10)]
    assert index["clips"] == {"train": 12, "val": 4, "test": 4} and index["quarantined"] == 0
    assert [set(manifest[name].struct["stream"]) for name in ("video", "audio", "text")] == [{0}, {1}, {None}]
    assert manifest["duration"].is_between(0.9, 1.2).all()
    assert manifest["clip_id"].to_list() != sorted(manifest["clip_id"]), "the order is shuffled"

    kept = {name: (tmp_path / "data/dial" / name).read_bytes() for name in ("listing.json", "manifest.json")}
    for path in (tmp_path / "data/raw/dial/clips").iterdir():
        os.utime(path, (1, 1))  # as a checkout may
    monkeypatch.setenv("AGM_WORKERS", "1")
    assert run("annotations clips --force", "list --force", "ingest --force")
    assert kept == {name: (tmp_path / "data/dial" / name).read_bytes() for name in kept}, "equal input, equal bytes"


def test_bad_files_cost_their_clips_and_nothing_else(tmp_path, broken, monkeypatch, capfd):
    files = broken
    root = files["good.mp4"].parent
    good = [f"g{number},{split},cat,good.mp4" for number, split in enumerate(("train", "val", "test"))]
    bad = ["e,train,dog,empty.mp4", "t,train,cat,truncated.mp4", "s,test,cat,silent.mp4", "n,val,cat,"]
    (tmp_path / "clips.csv").write_text("\n".join(["clip_id,split,label,video", *good, *bad, ""]))
    before = {path: path.stat() for path in (root, *files.values())}
    own(tmp_path, root, tmp_path / "clips.csv")
    monkeypatch.chdir(tmp_path)
    assert run("annotations clips", "list", "ingest")
    assert "3 clips can be used, 4 cannot" in capfd.readouterr().err
    assert set(table(tmp_path, "own/manifest.parquet")["clip_id"]) == {"g0", "g1", "g2"}
    quarantined = table(tmp_path, "own/quarantine-ingest.parquet")
    assert quarantined.columns == ["clip_id", "split", "modality", "step", "reason", "path"]
    assert quarantined.rows()[0] == ("e", "train", "video", "ingest", "the file is empty", "empty.mp4")
    assert quarantined.rows()[1][4].startswith("truncated: ")
    assert quarantined.rows()[2] == ("s", "test", "audio", "ingest", "the video has no sound", "silent.mp4")
    assert quarantined.rows()[3] == ("n", "val", "video", "ingest", "the annotations name no file for video", None)
    index = read_json(tmp_path / "data/own/manifest.json")
    assert index["quarantined"] == 4 and index["warnings"] == ["No clip of these classes can be used: dog"]
    after = {path: path.stat() for path in before}
    assert all(after[path].st_mtime_ns == before[path].st_mtime_ns for path in before), "the root is only read"


def test_a_changed_file_is_noticed(tmp_path, monkeypatch, capfd):
    clip = video(tmp_path / "a.mp4")
    rows = [f"{number},{split},{number % 2},a.mp4" for number, split in enumerate(SPLITS * 2)]
    (tmp_path / "clips.csv").write_text("\n".join(["clip_id,split,label,video", *rows, ""]))
    own(tmp_path, tmp_path, tmp_path / "clips.csv")
    monkeypatch.chdir(tmp_path)
    assert run("annotations clips", "list", "ingest")
    os.utime(clip, ns=(1, 1))
    assert main(["ingest", "--force"]) == 1
    message = capfd.readouterr().err
    assert "changed since they were listed: 1, the first is a.mp4" in message and "`agm check`" in message
    assert run("list", "ingest")


def test_changed_annotations_are_noticed(tmp_path, monkeypatch, capfd):
    video(tmp_path / "a.mp4")
    csv = tmp_path / "clips.csv"
    csv.write_text("clip_id,label,video\n1,cat,a.mp4\n")
    own(tmp_path, tmp_path, csv)
    monkeypatch.chdir(tmp_path)
    assert run("annotations clips", "list")
    csv.write_text("clip_id,label,video\n1,dog,a.mp4\n")
    assert main(["list"]) == 1
    message = capfd.readouterr().err
    assert "`agm annotations clips`: clips has changed" in message
    assert run("annotations clips", "list")
    assert table(tmp_path, "own/clips.parquet")["label"].to_list() == ["dog"]


def test_a_folder_of_annotations_counts_by_names_and_contents(tmp_path):
    folder = tmp_path / "lists"
    (folder / "deep").mkdir(parents=True)
    (folder / "a.txt").write_text("1")
    (folder / "deep/b.txt").write_text("2")
    before = digest(folder)
    os.utime(folder / "a.txt", (1, 1))
    assert digest(folder) == before
    (folder / "deep/b.txt").rename(folder / "deep/c.txt")
    renamed = digest(folder)
    (folder / "deep/c.txt").write_text("3")
    assert len({before, renamed, digest(folder)}) == 3


@pytest.mark.parametrize(
    ("rows", "overrides", "expected"),
    [
        (["a,train,0,a.mp4", "b,test,1,a.mp4"], [], "The split 'val' has no clips"),
        (["a,train,0,a.mp4", "b,val,1,a.mp4", "c,test,0,e.mp4"], [], "No clip of the split 'test' can be used; 1 of 1"),
        (
            [f"{number},train,{number % 2},a.mp4" for number in range(9)],
            ["dataset.split.test=0"],
            "The split 'test' has no clips",
        ),
    ],
)
def test_a_split_without_clips_is_an_error(tmp_path, monkeypatch, capfd, rows, overrides, expected):
    video(tmp_path / "a.mp4")
    (tmp_path / "e.mp4").touch()
    (tmp_path / "clips.csv").write_text("\n".join(["clip_id,split,label,video", *rows, ""]))
    own(tmp_path, tmp_path, tmp_path / "clips.csv", *overrides)
    monkeypatch.chdir(tmp_path)
    assert run("annotations clips", "list") and main(["ingest"]) == 1
    assert expected in capfd.readouterr().err
    assert not list((tmp_path / "data/own").glob("manifest*")), "no half-written output"


def test_a_single_class_is_refused_before_a_file_is_opened(tmp_path, monkeypatch, capfd):
    """It ended in a traceback at evaluation, after all training."""
    (tmp_path / "a.mp4").write_text("not a video")
    rows = [f"{number},{split},cat,a.mp4" for number, split in enumerate(SPLITS * 3)]
    (tmp_path / "clips.csv").write_text("\n".join(["clip_id,split,label,video", *rows, ""]))
    own(tmp_path, tmp_path, tmp_path / "clips.csv")
    monkeypatch.chdir(tmp_path)
    assert run("annotations clips", "list") and main(["ingest"]) == 1
    assert "Every clip has the same label, 'cat': there is nothing to tell apart" in capfd.readouterr().err


def test_a_class_that_training_lacks_is_a_warning(tmp_path, monkeypatch):
    video(tmp_path / "a.mp4")
    rows = ["a,train,0,a.mp4", "b,train,1,a.mp4", "c,val,2,a.mp4", "d,test,0,a.mp4"]
    (tmp_path / "clips.csv").write_text("\n".join(["clip_id,split,label,video", *rows, ""]))
    own(tmp_path, tmp_path, tmp_path / "clips.csv")
    monkeypatch.chdir(tmp_path)
    assert run("annotations clips", "list", "ingest")
    [warning] = read_json(tmp_path / "data/own/manifest.json")["warnings"]
    assert warning == "These classes are in validation or test, but not in training: 2"


@pytest.mark.skipif(not REAL_CLIPS.is_dir(), reason=f"the real clips are not at {REAL_CLIPS}")
def test_two_awkward_real_videos(tmp_path, monkeypatch):
    names = ("bigbuckbunny.mp4", "nasa_13013.mp4")
    rows = [f"{name[:4]}-{split},{split},{name[:4]},{name}" for split in SPLITS for name in names]
    (tmp_path / "clips.csv").write_text("\n".join(["clip_id,split,label,video", *rows, ""]))
    own(tmp_path, REAL_CLIPS, tmp_path / "clips.csv")
    monkeypatch.chdir(tmp_path)
    assert run("annotations clips", "list", "ingest")
    manifest = table(tmp_path, "own/manifest.parquet").filter(split="train").sort("clip_id")
    assert len(table(tmp_path, "own/quarantine-ingest.parquet")) == 0
    for row, seconds in zip(manifest.iter_rows(named=True), (5.3, 13.0), strict=True):
        assert row["duration"] == pytest.approx(seconds, abs=0.1)
        with av.open(str(REAL_CLIPS / row["video"]["path"]), metadata_errors="ignore") as file:
            assert file.streams[row["video"]["stream"]].type == "video"
            assert file.streams[row["audio"]["stream"]].type == "audio"
