"""Files that can be decoded and show nothing are found, counted, and quarantined or kept as the parameters say."""

from pathlib import Path

import av
import numpy as np
import polars as pl
import pytest

from agm.pipeline import cli
from agm.pipeline.config.schema import ArrayFeatures, Limits, SequenceFeatures
from agm.pipeline.io.files import read_json
from agm.pipeline.io.source import Source
from agm.pipeline.steps.extract import array, audio, sequence
from agm.pipeline.steps.extract.step import CONSTANT, _tensor
from agm.pipeline.steps.ingest.flaws import flaw
from media import tone, write_image, write_video, write_wav
from pipeline import STEPS, Pipeline

RATE = 8000
SECOND = tone(440, 1.0, RATE)
NOTHING = np.zeros(RATE)


def found(path: Path, kind: str, stream: int | None = None, **piece: object) -> str | None:
    return flaw(Source(str(path), **piece), kind, stream)


# --- sound ---


@pytest.mark.parametrize(
    "wave, wanted",
    [
        (NOTHING, "silent"),
        (NOTHING + 0.25, "silent"),  # a direct current is not heard
        (np.random.default_rng(0).integers(-1, 2, RATE) / 32767, "silent"),  # dither
        (np.random.default_rng(0).normal(0, 1e-3, RATE), None),  # quiet noise
        (0.001 * SECOND, None),
        (np.stack([SECOND, -SECOND], axis=1), "antiphase"),
        (np.stack([SECOND, -0.9 * SECOND], axis=1), None),
        (np.concatenate([np.stack([SECOND, -SECOND], axis=1), np.stack([SECOND, SECOND], axis=1)]), None),
        (np.stack([NOTHING, SECOND], axis=1), None),
        (np.stack([NOTHING, NOTHING], axis=1), "silent"),
        (np.concatenate([np.zeros(5 * RATE), SECOND]), None),  # late
    ],
    ids=[
        "zeros",
        "direct current",
        "dither",
        "noise",
        "quiet",
        "antiphase",
        "nearly",
        "at first",
        "one channel",
        "two of zeros",
        "late",
    ],
)
def test_silence(tmp_path: Path, wave: np.ndarray, wanted: str | None) -> None:
    assert found(write_wav(tmp_path / "a.wav", wave, RATE), "audio", 0) == wanted


@pytest.mark.parametrize(
    "codec, name", [("aac", "a.m4a"), ("libmp3lame", "a.mp3"), ("libopus", "a.ogg"), ("flac", "a.flac")]
)
@pytest.mark.parametrize(
    "right, wanted", [(0, "silent"), (1, None), (-1, "antiphase")], ids=["silent", "tone", "antiphase"]
)
def test_silence_of_codecs(tmp_path: Path, codec: str, name: str, right: int, wanted: str | None) -> None:
    left = abs(right) * tone(440, 1.0, 48000)
    with av.open(str(tmp_path / name), "w") as file:
        stream = file.add_stream(codec, rate=48000, layout="stereo")
        frame = av.AudioFrame.from_ndarray(np.stack([left, right * left]).astype(np.float32), "fltp", "stereo")
        frame.sample_rate = 48000
        for each in av.AudioResampler(stream.format.name, "stereo", 48000, stream.frame_size or None).resample(frame):
            file.mux(stream.encode(each))
        file.mux(stream.encode())
    assert found(tmp_path / name, "audio", 0) == wanted


def test_a_piece_of_a_file_is_judged_alone(tmp_path: Path) -> None:
    wave = np.concatenate([SECOND, np.zeros(2 * RATE), SECOND])
    path = write_wav(tmp_path / "a.wav", wave, RATE)
    assert found(path, "audio", 0, start=1.5, end=2.5) == "silent"
    assert found(path, "audio", 0, start=0.5, end=2.5) is None
    assert found(path, "audio", 0, start=1.5) is None
    noise = np.random.default_rng(0).integers(0, 256, (30, 48, 64)).astype(np.uint8)
    noise[10:20] = noise[10]
    path = write_video(tmp_path / "a.mp4", 30, picture=noise)
    assert found(path, "video", 0, start=1.05, end=1.95) == "still"
    assert found(path, "video", 0, start=0.5, end=1.95) is None


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts", "a.flv"])
def test_a_piece_lies_where_the_clock_of_the_file_says(tmp_path: Path, name: str) -> None:
    """Whenever the file begins, and where its sound begins late or has a hole, which extraction fills with silence."""
    pictures = np.random.default_rng(0).integers(0, 256, (50, 48, 64)).astype(np.uint8)
    pictures[20:30] = 0
    wave = tone(1000, 5.0, 16000)
    wave[round(3.5 * 16000) :] = 0
    later = {"output_ts_offset": "7"}
    path = write_video(tmp_path / name, 50, sound=wave, holes=[(-1, 1), (2, 3)], picture=pictures, container=later)
    for start, end, shown, sounds in (
        (0.1, 0.9, None, "silent"),  # before the sound begins
        (0.5, 1.5, None, None),
        (2.2, 2.8, "blank", "silent"),  # in the hole
        (2.6, 3.3, None, None),
        (3.8, 4.8, None, "silent"),
    ):
        piece = {"start": start, "end": end}
        assert found(path, "video", 0, **piece) == shown, piece
        assert found(path, "audio", 1, **piece) == sounds, piece
        silent = not audio.mono(Source(str(path), 1, **piece), 9.0)[0].any()
        assert silent or sounds is None or (start, end) == (3.8, 4.8), piece


def test_a_piece_of_joined_recordings(tmp_path: Path) -> None:
    loud = write_video(tmp_path / "1.ts", 30, picture=noise(), sound=tone(1000, 3.0, 16000))
    mute = write_video(tmp_path / "2.ts", 30, picture=np.zeros((48, 64), np.uint8), sound=np.zeros(3 * 16000))
    path = tmp_path / "a.ts"
    path.write_bytes(loud.read_bytes() + mute.read_bytes())
    for start, end, shown, sounds in ((0.5, 1.5, "still", None), (4.0, 5.0, "blank", "silent"), (2.5, 3.5, None, None)):
        assert found(path, "video", 0, start=start, end=end) == shown
        assert found(path, "audio", 1, start=start, end=end) == sounds


def test_the_frame_that_is_shown_when_a_piece_begins_counts(tmp_path: Path) -> None:
    slides = np.stack([noise(0), np.zeros((48, 64), np.uint8), noise(2), noise(2)])
    path = write_video(tmp_path / "a.mp4", 4, times=[0, 20, 40, 60], picture=slides)
    assert found(path, "video", 0, start=3.0, end=3.9) == "blank"
    assert found(path, "video", 0, start=3.0, end=4.5) is None
    assert found(path, "video", 0, start=4.5, end=6.5) == "still"


# --- pictures ---


def noise(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (48, 64)).astype(np.uint8)


def moving() -> np.ndarray:
    """A small square on a still background: uint8 [10, 48, 64]."""
    frames = np.repeat(noise()[None], 10, axis=0)
    for number in range(10):
        frames[number, 20:28, 4 * number : 4 * number + 8] = 255
    return frames


@pytest.mark.parametrize(
    "picture, wanted",
    [
        (np.zeros((48, 64), np.uint8), "blank"),
        (np.full((48, 64), 200, np.uint8), "blank"),
        (noise(), "still"),
        (moving(), None),
        (None, None),  # uniform frames that become brighter
        (np.stack([np.zeros((48, 64), np.uint8)] * 9 + [noise()]), None),
    ],
    ids=["black", "gray", "still", "moving", "fading", "black and then not"],
)
@pytest.mark.parametrize("kind", ["video", "flow"])
def test_videos(tmp_path: Path, kind: str, picture: np.ndarray | None, wanted: str | None) -> None:
    assert found(write_video(tmp_path / "a.mp4", 10, picture=picture), kind, 0) == wanted


def test_one_half_of_a_video_may_be_still(tmp_path: Path) -> None:
    frames = moving()
    frames[:, :, 32:] = frames[0, :, 32:]
    frames[5, 40, 10] = 255 - frames[5, 40, 10]
    path = write_video(tmp_path / "a.mkv", 10, picture=frames, codec="ffv1")
    halves = [found(path, "video", 0, half=half) for half in ("left", "right")]
    assert halves == [None, "still"]


@pytest.mark.parametrize(
    "matrix, halves", [([1, 0, 0, 1], [None, "still"]), ([-1, 0, 0, 1], ["still", None]), ([0, -1, 1, 0], [None, None])]
)
def test_a_half_is_one_of_the_picture_that_is_shown(
    tmp_path: Path, matrix: list[int], halves: list[str | None]
) -> None:
    frames = moving()
    frames[:, :, 32:] = frames[0, :, 32:]
    whole = [each << 16 for each in matrix]
    path = write_video(tmp_path / "a.mov", 10, picture=frames, codec="png", pixels="rgb24", matrix=whole)
    assert [found(path, "video", 0, half=half) for half in ("left", "right")] == halves


def test_what_is_hidden_by_transparency_does_not_count(tmp_path: Path) -> None:
    random = np.random.default_rng(0).integers(0, 256, (5, 48, 64, 4)).astype(np.uint8)
    clear, drawing = random.copy(), np.full_like(random, 255)
    clear[..., 3] = 0
    drawing[..., 3] = moving()[:5] // 255 * 255
    for name, frames, wanted in (("clear.mov", clear, "blank"), ("drawing.mov", drawing, None)):
        with av.open(str(tmp_path / name), "w") as file:
            stream = file.add_stream("png", rate=10)
            stream.width, stream.height, stream.pix_fmt = 64, 48, "rgba"
            for values in frames:
                file.mux(stream.encode(av.VideoFrame.from_ndarray(values, "rgba")))
            file.mux(stream.encode())
        assert found(tmp_path / name, "video", 0) == wanted, name


def test_a_single_frame_is_no_still(tmp_path: Path) -> None:
    assert found(write_video(tmp_path / "a.mp4", 1, picture=noise()), "video", 0) is None


def test_images(tmp_path: Path) -> None:
    clear = np.dstack([noise(), noise(1), noise(2), np.zeros_like(noise())])
    drawing = np.dstack([np.full((48, 64, 3), 255, np.uint8), np.where(noise() > 128, 255, 0).astype(np.uint8)])
    for name, pixels, wanted in (
        ("black.png", np.zeros((48, 64), np.uint8), "blank"),
        ("orange.jpg", np.full((48, 64, 3), (255, 165, 0), np.uint8), "blank"),
        ("noise.jpg", noise(), None),
        ("colours.png", np.where(noise()[:, :, None] > 128, [200, 0, 0], [0, 102, 0]).astype(np.uint8), None),
        ("deep.png", np.full((48, 64), 4000, np.uint16), "blank"),
        ("ramp.png", np.arange(48 * 64, dtype=np.uint16).reshape(48, 64), None),
        ("clear.png", clear, "blank"),
        ("drawing.png", drawing, None),
    ):
        path = write_image(tmp_path / name, pixels)
        assert found(path, "image") == wanted, name


def test_arrays(tmp_path: Path) -> None:
    random = np.random.default_rng(0).normal(size=(40, 3))
    for number, (numbers, as_array, as_sequence) in enumerate(
        (
            (np.full((40, 3), 0.7), "constant", "constant"),
            (np.asfortranarray(random), None, None),
            (np.repeat(random[:1], 40, axis=0), None, "still"),
            (np.asfortranarray(np.repeat(random[:1], 40, axis=0)), None, "still"),
            (random[:1], None, None),
            (np.r_[np.zeros((3_000_000, 1)), [[1.0]]], None, None),
        )
    ):
        path = tmp_path / f"{number}.npy"
        np.save(path, numbers)
        assert (found(path, "array"), found(path, "sequence")) == (as_array, as_sequence), number


def test_a_damaged_end_is_no_flaw(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", 40, options={"g": "4"}, picture=noise())
    content = bytearray(path.read_bytes())
    content[len(content) // 3 : -2000] = np.random.default_rng(0).bytes(len(content[len(content) // 3 : -2000]))
    path.write_bytes(content)
    assert found(path, "video", 0) in (None, "still")


# --- the steps ---

CLIPS = 12
FLAWED = {"train00": "silent", "train01": "blank", "val00": "silent", "test00": "silent and blank"}


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    folder = tmp_path / "raw"
    folder.mkdir()
    rows = ["clip_id,split,label,image,audio"]
    for seed, name in enumerate(f"{split}{number:02}" for split in ("train", "val", "test") for number in range(CLIPS)):
        told = FLAWED.get(name, "")
        pixels = np.full((16, 16, 3), 90, np.uint8) if "blank" in told else noise(seed)
        write_image(folder / f"{name}.png", pixels)
        write_wav(folder / f"{name}.wav", NOTHING if "silent" in told else tone(200 + 50 * seed, 1.0, RATE), RATE)
        rows.append(f"{name},{name[:-2]},{'ab'[seed % 2]},{name}.png,{name}.wav")
    # For a network, which is given the mean of the channels, this is silent.
    write_wav(folder / "test05.wav", np.stack([SECOND, -SECOND], axis=1), RATE)
    (folder / "manifest.csv").write_text("\n".join(rows) + "\n")
    return folder


def study(folder: Path, patch: pytest.MonkeyPatch, *overrides: str) -> Pipeline:
    return Pipeline(folder.parent / "study", patch, "study=spoken_digits", f"dataset.root={folder}", *overrides)


def test_silent_clips_are_quarantined_and_others_are_counted(
    raw: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    made = study(raw, monkeypatch).run((*STEPS, "inspect"))
    assert set(made.quarantine) == {"train00", "val00", "test00"}
    assert set(made.quarantine.values()) == {"the sound is silent (dataset.quarantine)"}
    assert made.index["flaws"] == {
        "image": {"blank": {"kept": 1, "quarantined": 0}},
        "audio": {"silent": {"kept": 0, "quarantined": 3}, "antiphase": {"kept": 1, "quarantined": 0}},
    }
    said = capfd.readouterr().err
    assert "1 clip kept although the picture is of one colour throughout (image): 'blank' in dataset.quarantine" in said
    assert (
        "1 clip kept although the channels of the sound cancel out (audio): 'antiphase' in dataset.quarantine" in said
    )
    assert "3 clips quarantined because the sound is silent (audio)" in said
    inspection = read_json(made.data / "inspection.json")
    assert inspection["flaws"] == made.index["flaws"]
    assert inspection["blank"] == {"image": 1, "audio": 1}, "train01, and test05 of which the channels cancel out"
    assert cli.main(["inspect", "train01"]) == 0
    assert "shows       image: blank" in capfd.readouterr().out
    flaws = made.manifest.filter(pl.col("flaws").struct["image"].is_not_null())
    assert flaws.select("clip_id", pl.col("flaws").struct["image"]).rows() == [("train01", "blank")]


def test_what_is_quarantined_is_a_parameter(raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = study(raw, monkeypatch, "dataset.quarantine=[]").run(("annotations", "list", "ingest"))
    assert len(made.manifest) == 3 * CLIPS
    assert made.index["flaws"]["audio"]["silent"] == {"kept": 3, "quarantined": 0}
    assert made.index["flaws"]["image"] == {"blank": {"kept": 2, "quarantined": 0}}
    every = study(raw, monkeypatch, "dataset.quarantine=[silent,antiphase,blank,still,constant]")
    every.run(("annotations", "list", "ingest"))
    assert len(every.manifest) == 3 * CLIPS - len(FLAWED) - 1
    assert every.index["quarantined"] == len(FLAWED) + 1


def test_constant_arrays_in_a_file_of_many_clips_are_quarantined_when_they_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = np.random.default_rng(0).normal(size=(3, 4, 3)).astype(np.float32)
    rows[1] = 0.7
    np.save(tmp_path / "a.npy", rows)
    many = ArrayFeatures(kind="array", shape=[1, 4, 3])
    steps = SequenceFeatures(kind="sequence", steps=6, shape=[3])
    for load in (lambda each: array.load(each, many), lambda each: sequence.load(each, steps)):
        sources = [Source(str(tmp_path / "a.npy"), member=str(number)) for number in range(3)]
        tensors = [_tensor(each, load, Limits(), refuse_constant=True) for each in sources]
        assert [isinstance(each, str) and each for each in tensors] == [False, CONSTANT, False]
        assert not isinstance(_tensor(sources[1], load, Limits(), refuse_constant=False), str)


@pytest.mark.parametrize("quarantine, wanted", [("[constant]", {"train_00003"}), ("[]", set())])
def test_a_constant_row_of_a_data_set_of_arrays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quarantine: str, wanted: set[str]
) -> None:
    root, random = tmp_path / "avmnist", np.random.default_rng(0)
    for half, count in (("train", 24), ("test", 8)):
        for modality, shape in (("image", (784,)), ("audio", (112, 112))):
            (root / modality).mkdir(parents=True, exist_ok=True)
            values = random.uniform(0, 255, (count, *shape))
            if (modality, half) == ("image", "train"):
                values[3] = 17.0
            np.save(root / modality / f"{half}_data.npy", values)
        np.save(root / f"{half}_labels.npy", np.arange(count) % 10)
    conv = ("encoder@encoders.image=conv", "encoder@encoders.audio=conv", "trainer=small")
    made = Pipeline(
        tmp_path / "run",
        monkeypatch,
        "study=av_mnist",
        *conv,
        f"dataset.root={root}",
        f"dataset.quarantine={quarantine}",
    )
    made.run((*STEPS, "inspect"))
    assert made.quarantine == dict.fromkeys(wanted, CONSTANT)
    assert read_json(made.data / "inspection.json")["blank"] == {"image": 1 - len(wanted), "audio": 0}
