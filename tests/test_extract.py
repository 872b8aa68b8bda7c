"""Real files of every kind become tensors; what cannot be used is said, and costs one clip."""

import json
import math
import os
import shutil
import signal
from dataclasses import asdict, replace
from fractions import Fraction
from functools import partial
from itertools import pairwise, product
from pathlib import Path

import av
import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest
import regex
import torch
import yaml
from PIL import Image

from agm.pipeline import config
from agm.pipeline.config.schema import AudioFeatures, ImageFeatures, Limits, TextFeatures, VideoFeatures
from agm.pipeline.dag.graph import Graph
from agm.pipeline.errors import AgmError
from agm.pipeline.io import tensors
from agm.pipeline.io.files import sha256, write_json
from agm.pipeline.io.limits import under
from agm.pipeline.io.media import Unusable, opened
from agm.pipeline.io.source import STRUCT, Source
from agm.pipeline.io.tensors import Feature
from agm.pipeline.runtime.parallel import parallel_map
from agm.pipeline.steps.extract import audio, image, picture, step, text, times, video
from agm.pipeline.steps.ingest.raw import ask, identities
from media import STEP, levels, tone, write_image, write_video, write_wav

CLIPS = Path(__file__).parents[2] / "shared" / "data" / "clips"
WHITE = (255, 255, 255)


def gray(frames: int = 4, fps: float | None = None, size: int = 16, channels: int = 1) -> VideoFeatures:
    return VideoFeatures(kind="video", frames=frames, fps=fps, size=size, channels=channels)


# --- video ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "frames, count, expected",
    [(12, 1, [6]), (12, 3, [2, 6, 10]), (12, 12, list(range(12))), (3, 5, [0, 0, 1, 2, 2]), (1, 2, [0, 0])],
)
def test_frames_are_evenly_spaced(tmp_path, frames, count, expected):
    assert levels(video.load(Source(write_video(tmp_path / "a.mp4", frames), 0), gray(count))) == expected


@pytest.mark.parametrize("rate, expected", [(1, [0, 10, 20, 24]), (10, [0, 1, 2, 3]), (4, [0, 2, 5, 7])])
def test_frames_are_taken_at_a_rate_and_the_last_repeated(tmp_path, rate, expected):
    path = write_video(tmp_path / "a.mp4", 25, rate=10)
    assert levels(video.load(Source(path, 0), gray(4, fps=rate))) == expected


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts"])
def test_seeking_finds_the_same_frames_as_decoding_all(tmp_path, monkeypatch, name):
    path = write_video(tmp_path / name, 60, options={"g": "6", "bf": "2"})
    for settings in (gray(2), gray(3, fps=0.5)):
        monkeypatch.undo()
        times = video.scan(Source(path, 0))
        assert len(times.frames) == 60 and video._is_sparse(video.wanted(times, settings), times.keys)
        quick = video.load(Source(path, 0), settings)
        monkeypatch.setattr(video, "_is_sparse", lambda wanted, keys: False)
        np.testing.assert_array_equal(quick, video.load(Source(path, 0), settings))
    assert levels(quick) == [0, 20, 40]


def test_inexact_seeking_is_not_believed(tmp_path, monkeypatch):
    path = write_video(tmp_path / "a.mp4", 60, options={"g": "6"})
    wanted = video.load(Source(path, 0), gray(2))
    scan = times._scan
    # As if a container called every packet a key frame: seeking then lands before them.
    monkeypatch.setattr(times, "_scan", lambda *each: replace(scan(*each), keys=scan(*each).frames))
    np.testing.assert_array_equal(video.load(Source(path, 0), gray(2)), wanted)


def palette_video(path: Path, codec: str, frames: int = 60) -> Path:
    """A video of 8 bits a pixel: frame k is of colour k of its palette, gray STEP·k."""
    with av.open(str(path), "w") as file:
        stream = file.add_stream(codec, rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "pal8"
        palette = np.full((256, 4), 255, np.uint8)
        palette[:, :3] = (STEP * np.arange(256) % 256)[:, None]
        for number in range(frames):
            frame = av.VideoFrame(64, 48, "pal8")
            frame.planes[0].update(bytes([number]) * frame.planes[0].buffer_size)
            frame.planes[1].update(palette.tobytes())
            frame.pts, frame.time_base = number, Fraction(1, 10)
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
    return path


@pytest.mark.parametrize("name", ["a.avi", "a.mov", "a.nut"])
def test_a_palette_that_only_the_first_packet_carries(tmp_path, name):
    path = palette_video(tmp_path / name, "rawvideo")
    assert levels(video.load(Source(path, 0), gray(3))) == [10, 30, 50]
    assert levels(video.load(Source(path, 0, start=4.0, end=5.0), gray(1))) == [45]


def test_a_codec_that_calls_every_frame_a_key(tmp_path):
    """RPZA leaves out what is as in the frame before, in frames that are marked as keys."""
    pictures = np.zeros((60, 48, 64), np.uint8)
    for number in range(60):  # in each frame one block more is white
        pictures[number:, 4 * (number // 16) : 4 * (number // 16) + 4, 4 * (number % 16) : 4 * (number % 16) + 4] = 255
    path = write_video(tmp_path / "a.mov", 60, codec="rpza", pixels="rgb555le", picture=pictures)
    found = video.load(Source(path, 0), gray(3, size=48))
    np.testing.assert_allclose(found[:, 0], pictures[[10, 30, 50], :, 8:56], atol=8)  # five bits


def join_flv(path: Path, first: Path, second: Path, milliseconds: int) -> Path:
    """Write `second` after `first` into one FLV file, as a live recorder does whose encoder started anew."""
    content, place, tags = second.read_bytes(), 13, b""
    while place < len(content):
        end = place + 11 + int.from_bytes(content[place + 1 : place + 4]) + 4
        tag = bytearray(content[place:end])
        tag[4:7] = (int.from_bytes(tag[4:7]) + milliseconds).to_bytes(3)
        tags += tag
        place = end
    path.write_bytes(first.read_bytes() + tags)
    return path


def test_parameters_that_change_within_the_stream(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (60, 6, 8), np.uint8).repeat(8, axis=1).repeat(8, axis=2)
    parts = []
    for number, coder in enumerate("10"):  # CABAC, then CAVLC
        options = {"g": "1", "coder": coder}
        pictures = noise[30 * number :]
        parts.append(write_video(tmp_path / f"{coder}.flv", 30, rate=25, options=options, picture=pictures))
    path = join_flv(tmp_path / "a.flv", *parts, 1200)
    found = video.load(Source(path, 0), gray(3, size=48))
    np.testing.assert_allclose(found[:, 0], noise[[10, 30, 50], :, 8:56], atol=12)


def test_a_container_that_cannot_seek(tmp_path):
    path = write_video(tmp_path / "a.swf", 60, codec="mjpeg", pixels="yuvj420p")
    assert levels(video.load(Source(path, 0), gray(3))) == [10, 30, 50]


def test_only_the_frames_needed_are_scaled(tmp_path, monkeypatch):
    path, scaled = write_video(tmp_path / "a.mp4", 60), []
    draw = video.picture
    monkeypatch.setattr(video, "picture", lambda *each, **more: scaled.append(1) or draw(*each, **more))
    video.load(Source(path, 0), gray(5))
    assert len(scaled) == 5


@pytest.mark.parametrize("size", [(33, 57), (57, 33), (17, 17), (200, 6)])
def test_odd_sizes_give_the_shape_asked_for(tmp_path, size):
    path = write_video(tmp_path / "a.mp4", 3, size, pixels="yuv444p")
    for wanted, channels in product((8, 24), (1, 3)):
        settings = gray(2, size=wanted, channels=channels)
        pixels = video.load(Source(path, 0), settings)
        assert pixels.dtype == np.uint8 and pixels.shape == (2, channels, wanted, wanted)
        assert pixels.shape == video.feature(settings).shape
        assert np.ptp(pixels[1]) <= 3  # the frames are uniform: nothing of another row or frame may show


def halves(width: int, height: int) -> np.ndarray:
    """White above, black below."""
    return np.repeat(np.where(np.arange(height) < height // 2, 255, 0)[:, None], width, axis=1).astype(np.uint8)


@pytest.mark.parametrize("rotation, white", [(0, "top"), (90, "left"), (-90, "right"), (180, "bottom")])
def test_a_turned_recording_is_set_upright(tmp_path, rotation, white):
    path = write_video(tmp_path / "a.mp4", 2, (64, 48), rotation=rotation, picture=halves(64, 48))
    pixels = video.load(Source(path, 0), gray(1, size=24))[0, 0].astype(int)
    regions = {"top": pixels[:8], "bottom": pixels[-8:], "left": pixels[:, :8], "right": pixels[:, -8:]}
    assert max(regions, key=lambda name: regions[name].mean()) == white
    assert pixels.max() >= 250 and pixels.min() <= 5  # the range of the codec (16 to 235) is undone


ONE, MINUS = 1 << 16, -1 << 16
PLACEMENTS = {
    "as stored": [ONE, 0, 0, ONE],
    "turned left": [0, MINUS, ONE, 0],
    "turned right": [0, ONE, MINUS, 0],
    "turned round": [MINUS, 0, 0, MINUS],
    "mirrored": [MINUS, 0, 0, ONE],
    "upside down": [ONE, 0, 0, MINUS],
    "transposed": [0, ONE, ONE, 0],
    "transposed the other way": [0, MINUS, MINUS, 0],
}


def quarters(width: int, height: int) -> np.ndarray:
    """Four gray levels, one in each quarter."""
    levels = np.array([[0, 80], [160, 240]], np.uint8)
    return np.kron(levels, np.ones((height // 2, width // 2), np.uint8))


def placed(pixels: np.ndarray, matrix: list[int]) -> np.ndarray:
    """The picture whose every point (x, y) went to (a·x + c·y, b·x + d·y), moved to where no place is negative."""
    a, b, c, d = (each >> 16 for each in matrix)
    y, x = np.indices(pixels.shape)
    columns, rows = a * x + c * y, b * x + d * y
    columns, rows = columns - columns.min(), rows - rows.min()
    shown = np.zeros((rows.max() + 1, columns.max() + 1), np.uint8)
    shown[rows, columns] = pixels
    return shown


@pytest.mark.parametrize("matrix", PLACEMENTS.values(), ids=PLACEMENTS)
@pytest.mark.parametrize("size", [(64, 64), (96, 48)])
def test_a_picture_is_placed_as_its_display_matrix_says(tmp_path, matrix, size):
    options = {"crf": "0"}
    path = write_video(tmp_path / "a.mp4", 1, size, options=options, matrix=matrix, picture=quarters(*size))
    shown = placed(quarters(*size), matrix)
    middle = shown.shape[1] // 2
    for half, part in ((None, shown), ("left", shown[:, :middle]), ("right", shown[:, middle:])):
        check_half(path, half, part)


def check_half(path: Path, half: str | None, shown: np.ndarray) -> None:
    """The whole of a half is what is shown of it, and extraction takes the middle."""
    with opened(path, 0, "video") as (container, stream):
        whole = picture.whole(next(container.decode(stream)), Fraction(1), half, WHITE)
    np.testing.assert_allclose(whole[0].astype(int), shown, atol=4)

    small = min(shown.shape)
    top, left = (shown.shape[0] - small) // 2, (shown.shape[1] - small) // 2
    found = video.load(Source(path, 0, half=half), gray(1, size=small))[0, 0]
    np.testing.assert_allclose(found.astype(int), shown[top : top + small, left : left + small], atol=4)


@pytest.mark.parametrize(
    "orientation, turn", [(1, "as stored"), (3, "turned round"), (6, "turned right"), (8, "turned left")]
)
def test_frames_that_carry_exif(tmp_path, orientation, turn):
    """As MJPEG of a camera does: each frame is a JPEG with its own EXIF."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = write_image(tmp_path / "a.jpg", quarters(64, 64), exif=exif, quality=100)
    found = video.load(Source(path, 0), gray(1, size=64))[0, 0]
    np.testing.assert_allclose(found.astype(int), placed(quarters(64, 64), PLACEMENTS[turn]), atol=6)


def test_a_damaged_display_matrix_places_nothing(tmp_path):
    path = write_video(tmp_path / "a.mp4", 1, (64, 64), matrix=[0, 0, 0, 0], picture=quarters(64, 64))
    np.testing.assert_allclose(video.load(Source(path, 0), gray(1, size=64))[0, 0], quarters(64, 64), atol=6)


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.avi", "a.ts"])
@pytest.mark.parametrize("aspect", [Fraction(1, 2), Fraction(16, 11), Fraction(2)])
def test_pixels_need_not_be_square(tmp_path, name, aspect):
    """A circle is shown as a circle, whatever the shape of the pixels it is stored in."""
    y, x = np.mgrid[:96, : round(96 / aspect)]
    circle = np.where(np.hypot((x + 0.5) * float(aspect) - 48, y + 0.5 - 48) < 32, 255, 0).astype(np.uint8)
    circle = circle[:, : circle.shape[1] // 2 * 2]
    path = write_video(tmp_path / name, 1, circle.shape[::-1], aspect=aspect, picture=circle)
    found = video.load(Source(path, 0), gray(1, size=96))[0, 0] > 127
    width, height = np.ptp(np.flatnonzero(found.any(axis=0))), np.ptp(np.flatnonzero(found.any(axis=1)))
    assert width == pytest.approx(64, abs=3) and height == pytest.approx(64, abs=3)
    with opened(path, 0, "video") as (container, stream):
        whole = picture.whole(next(container.decode(stream)), aspect, None, WHITE)
    assert whole.shape[1:] == (96, pytest.approx(96, abs=2))


@pytest.mark.parametrize("stated", [None, Fraction(0), Fraction(1, 300), Fraction(300)])
def test_a_pixel_that_no_format_has_is_square(stated):
    assert picture.pixel_aspect(stated) == 1


def test_the_centre_is_cropped(tmp_path):
    picture = np.zeros((32, 96), np.uint8)
    picture[:, 32:64] = 255
    pixels = video.load(Source(write_video(tmp_path / "a.mp4", 1, (96, 32), picture=picture), 0), gray(1, size=32))
    assert pixels[..., 2:-2].min() > 240


def test_a_header_may_claim_more_frames_than_there_are(tmp_path):
    path = write_video(tmp_path / "a.mp4", 12, container={"movflags": "faststart"}, options={"bf": "0"})
    path.write_bytes(path.read_bytes()[:-20])
    with video.opened(path, 0, "video") as (_, stream):
        assert stream.frames == 12
    found = levels(video.load(Source(path, 0), gray(12)))
    assert found[0] == 0 and set(found) <= set(range(12)) and all(a <= b for a, b in pairwise(found))


def test_a_damaged_stretch_costs_its_frames_only(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (48, 64), np.uint8)
    path = write_video(tmp_path / "a.mp4", 40, options={"g": "4", "crf": "10"}, picture=noise)
    whole = video.load(Source(path, 0), gray(8))
    content = bytearray(path.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 500] = bytes(500)
    path.write_bytes(content)
    found = video.load(Source(path, 0), gray(8))
    np.testing.assert_array_equal(found[[0, 1, 6, 7]], whole[[0, 1, 6, 7]])


UNEVEN = [0, 1, 2, 3, 40, 41, 42, 43, 44, 100]
"""Times of ten frames in tenths of a second: the fourth is shown for 3.7 s, the ninth for 5.6 s."""


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts"])
def test_frames_are_chosen_by_time_where_the_rate_varies(tmp_path, name):
    source = Source(write_video(tmp_path / name, 10, times=UNEVEN, options={"bf": "0"}), 0)
    # The middles of four pieces of 10.1 s are at 1.3, 3.8, 6.3 and 8.8 s.
    assert levels(video.load(source, gray(4))) == [3, 3, 8, 8]
    assert levels(video.load(source, gray(6, fps=0.5))) == [0, 3, 4, 8, 8, 9]
    assert levels(video.load(replace(source, start=1.0, end=3.0), gray(2))) == [3, 3]  # within the time of one frame
    assert levels(video.load(replace(source, start=3.5, end=4.5), gray(4))) == [3, 3, 5, 7]


def join(path: Path, *parts: Path) -> Path:
    """Write files one after another, as `cat` does."""
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    return path


def recordings(folder: Path, suffix: str, offset: int) -> list[Path]:
    """Two videos of 30 frames, of gray levels 0 … 29 and 30 … 59; the times of the second one begin at `offset` s."""
    pictures = (STEP * np.arange(60)).astype(np.uint8)[:, None, None].repeat(48, axis=1).repeat(64, axis=2)
    options = {"g": "10", "bf": "2"}
    first = write_video(folder / f"1{suffix}", 30, options=options, picture=pictures[:30])
    more = {"output_ts_offset": str(offset)}
    return [first, write_video(folder / f"2{suffix}", 30, options=options, picture=pictures[30:], container=more)]


@pytest.mark.parametrize(
    "suffix, offset",
    [(".ts", 0), (".ts", 1), (".ts", 5000), (".mpg", 0), (".mpg", 5000), (".mkv", 0), (".avi", 0)],
)
def test_times_that_go_back_or_jump_where_recordings_were_joined(tmp_path, suffix, offset):
    path = join(tmp_path / f"a{suffix}", *recordings(tmp_path, suffix, offset))
    assert levels(video.load(Source(path, 0), gray(6))) == [5, 15, 25, 35, 45, 55]
    assert levels(video.load(Source(path, 0), gray(6, fps=1))) == [0, 10, 20, 30, 40, 50]
    assert levels(video.load(Source(path, 0, start=2.0, end=4.0), gray(4))) == [22, 27, 32, 37]


@pytest.mark.parametrize("offset", [-3000, 5_000_000])
def test_times_of_a_live_recording_that_go_back_or_jump(tmp_path, offset):
    path = join_flv(tmp_path / "a.flv", *recordings(tmp_path, ".flv", 0), 3000 + offset)
    assert levels(video.load(Source(path, 0), gray(6))) == [5, 15, 25, 35, 45, 55]


def test_a_pause_is_none_of_a_recordings_joints(tmp_path):
    path = write_video(tmp_path / "a.ts", 4, times=[0, 60, 120, 180], options={"bf": "0"})
    assert levels(video.load(Source(path, 0), gray(4, fps=0.1))) == [0, 1, 3, 3]


def delay_a_frame(path: Path, seconds: float, timescale: int) -> int:
    """Make the composition offset of one frame of an MP4 too large, and return the frame's place in the file."""
    content = bytearray(path.read_bytes())
    table = content.index(b"ctts") + 8
    place = 0
    for entry in range(table + 4, table + 4 + 8 * int.from_bytes(content[table : table + 4]), 8):
        count, offset = (int.from_bytes(content[at : at + 4]) for at in (entry, entry + 4))
        if place > 20 and count == 1:
            content[entry + 4 : entry + 8] = (offset + round(seconds * timescale)).to_bytes(4)
            path.write_bytes(content)
            return place
        place += count
    raise AssertionError("no frame of its own offset")


@pytest.mark.parametrize("seconds", [0.35, 2.0, 2.03])
def test_one_wrong_time_costs_nothing(tmp_path, seconds):
    path = write_video(tmp_path / "a.mp4", 60, options={"g": "60", "bf": "2"})
    delay_a_frame(path, seconds, 10240)
    for settings in (gray(60), gray(60, fps=10)):
        found = levels(video.load(Source(path, 0), settings))
        assert np.abs(np.array(found) - np.arange(60)).max() <= 1


@pytest.mark.parametrize("name", ["a.avi", "a.h264"])
def test_containers_with_no_or_wrong_presentation_times(tmp_path, name):
    path = write_video(tmp_path / name, 12, options={"bf": "2"})
    assert levels(video.load(Source(path, 0), gray(3))) == [2, 6, 10]


@pytest.mark.parametrize(
    "content, said",
    [(b"", "empty"), (b"no video at all" * 100, "not a video or sound file"), ("cut", "truncated")],
    ids=["empty", "foreign", "truncated"],
)
def test_a_file_that_is_no_video_is_refused_with_a_reason(tmp_path, content, said):
    path = write_video(tmp_path / "a.mp4", 12)
    path.write_bytes(path.read_bytes()[:1500] if content == "cut" else content)
    with pytest.raises(Unusable, match=said):
        video.load(Source(path, 0), gray())


def test_a_stream_of_the_wrong_kind_is_refused(tmp_path):
    path = write_video(tmp_path / "a.mp4", 12)
    for index in (1, None):
        with pytest.raises(Unusable, match="no audio"):
            audio.load(Source(path, index), sound())
    with pytest.raises(Unusable, match="no video"):
        video.load(Source(write_wav(tmp_path / "a.wav", tone(100, 1, 8000), 8000), 0), gray())


@pytest.mark.skipif(not CLIPS.exists(), reason="the shared clips are not here")
def test_the_stream_that_the_manifest_names_is_read():
    path = CLIPS / "nasa_13013.mp4"
    first, second = (video.load(Source(path, index), gray(2, size=32, channels=3)) for index in (0, 3))
    assert first.shape == second.shape == (2, 3, 32, 32) and (first != second).any()
    for index in (1, 4):
        assert np.ptp(audio.load(Source(path, index), sound(seconds=2.0))) > 1


# --- sound ------------------------------------------------------------------------------------------------------


def sound(**changes) -> AudioFeatures:
    settings = {"kind": "audio", "sample_rate": 8000, "seconds": 1.0, "n_fft": 256, "hop_length": 128}
    return AudioFeatures(**(settings | changes))


def test_the_published_spectrogram_of_crema_d(tmp_path):
    """22.05 kHz, tiled to 3 s, STFT 512/353, log(abs + 1e-7): 257 × 188."""
    settings = AudioFeatures(kind="audio", sample_rate=22050, seconds=3.0, fit="tile", n_fft=512, hop_length=353)
    wave = np.random.default_rng(0).uniform(-0.5, 0.5, 30000)
    found = audio.load(Source(write_wav(tmp_path / "a.wav", wave, 22050), 0), settings)
    assert found.dtype == np.float32 and found.shape == audio.feature(settings).shape == (1, 257, 188)

    wave = (wave * 32767).round() / 32768
    tiled = np.pad(np.tile(wave, 3)[: 3 * 22050], 256, mode="reflect")
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(512) / 512)
    frames = np.stack([tiled[353 * k : 353 * k + 512] * window for k in range(188)], axis=1)
    np.testing.assert_allclose(found[0], np.log(np.abs(np.fft.rfft(frames, axis=0)) + 1e-7), atol=2e-3)


@pytest.mark.parametrize("representation, bins", [("spectrogram", 129), ("mel", 40)])
@pytest.mark.parametrize("power", [1, 2])
def test_shapes_and_scale(tmp_path, representation, bins, power):
    path = write_wav(tmp_path / "a.wav", tone(1000, 0.4, 8000), 8000)
    settings = sound(representation=representation, power=power, n_mels=40, log_floor=1e-5)
    found = audio.load(Source(path, 0), settings)
    assert found.shape == audio.feature(settings).shape == (1, bins, 63)
    np.testing.assert_allclose(found[0, :, -20:], math.log(1e-5), atol=1e-5)  # padding is silence
    quieter = write_wav(tmp_path / "b.wav", tone(1000, 0.4, 8000) / 10, 8000)
    louder = found.max() - audio.load(Source(quieter, 0), settings).max()
    assert louder == pytest.approx(power * math.log(10), rel=0.01)


@pytest.mark.parametrize("rate", [8000, 11025, 22050, 44100, 44101, 48000])
def test_a_tone_stays_where_it_is_whatever_the_rate(tmp_path, rate):
    found = audio.load(Source(write_wav(tmp_path / "a.wav", tone(1000, 1.0, rate), rate), 0), sound())
    assert found[0].mean(axis=1).argmax() == 32  # 1000 Hz of 31.25 Hz a bin


def test_sound_comes_out_of_a_video(tmp_path):
    path = write_video(tmp_path / "a.mp4", 10, sound=tone(1000, 1.0, 16000))
    assert audio.load(Source(path, 1), sound())[0].mean(axis=1).argmax() == 32


def test_channels_are_averaged(tmp_path):
    six = np.stack([tone(500 * (1 + channel), 1.0, 8000) for channel in range(6)], axis=1)
    mixed = audio.load(Source(write_wav(tmp_path / "six.wav", six, 8000), 0), sound(log_floor=1e-2))
    mean = audio.load(Source(write_wav(tmp_path / "mean.wav", six.mean(axis=1), 8000), 0), sound(log_floor=1e-2))
    np.testing.assert_allclose(mixed, mean, atol=0.02)


@pytest.mark.skipif(not CLIPS.exists(), reason="the shared clips are not here")
def test_six_channel_sound():
    found = audio.load(Source(CLIPS / "bigbuckbunny.mp4", 1), sound(seconds=5.0))
    assert found.shape == (1, 129, 313) and np.isfinite(found).all() and np.ptp(found) > 5


@pytest.mark.parametrize("fit", ["pad", "tile"])
def test_length(tmp_path, fit):
    short, long = (write_wav(tmp_path / f"{s}.wav", tone(500, s, 8000), 8000) for s in (0.25, 4.0))
    repeated, cut = (audio.load(Source(path, 0), sound(fit=fit))[0] for path in (short, long))
    assert repeated.shape == cut.shape
    assert cut[16, 1:].min() > 3  # the bin of 500 Hz; the first window mirrors the sound and so is quieter
    assert repeated[16, 1:].min() > 3 if fit == "tile" else repeated[16, -40:].max() < -10


def test_stored_types_give_the_same_values(tmp_path):
    """8-bit, 24-bit and float files of one tone, written by FFmpeg, against 16 bits."""

    wave, found = tone(1000, 1.0, 8000), []
    for codec, form in (
        ("pcm_u8", "u8"),
        ("pcm_s16le", "s16"),
        ("pcm_s24le", "s32"),
        ("pcm_f32le", "flt"),
        ("pcm_f64le", "dbl"),
    ):
        path = tmp_path / f"{codec}.wav"
        with av.open(str(path), "w") as file:
            stream = file.add_stream(codec, rate=8000, layout="mono")
            frame = av.AudioFrame.from_ndarray(wave.astype(np.float32)[None], "flt", "mono")
            frame.sample_rate = 8000
            for each in av.AudioResampler(form, "mono", 8000).resample(frame):
                file.mux(stream.encode(each))
            file.mux(stream.encode())
        found.append(audio.load(Source(path, 0), sound(log_floor=1.0)))
    for each in found:
        np.testing.assert_allclose(each, found[-1], atol=0.2 if each is found[0] else 2e-3)


def test_too_little_sound_is_refused(tmp_path):
    with pytest.raises(Unusable, match="too short: 100 samples at 8000 Hz"):
        audio.load(Source(write_wav(tmp_path / "a.wav", tone(500, 100 / 8000, 8000), 8000), 0), sound())
    with pytest.raises(Unusable, match=r"no sound|not a video or sound file"):
        audio.load(Source(write_wav(tmp_path / "b.wav", np.zeros(0), 8000), 0), sound())


# --- one clock of sound and picture ------------------------------------------------------------------------------

BEEPS = (2.0, 4.0)


def flashes_and_beeps(path: Path, **changes) -> Path:
    """Five seconds; white frames and a tone for .2 s at the `BEEPS`."""
    pictures, loud = np.zeros((50, 48, 64), np.uint8), np.zeros(5 * 16000)
    for second in BEEPS:
        pictures[round(10 * second) : round(10 * second) + 2] = 255
        loud[round(16000 * second) : round(16000 * (second + 0.2))] = 1
    wave = loud * tone(1000, 5.0, 16000)
    return write_video(path, 50, sound=wave, picture=pictures, **({"options": {"bf": "2"}} | changes))


def heard(path: Path, **piece: float) -> list[float]:
    """Seconds of the clip at which tones begin."""
    wave, rate = audio.mono(Source(path, 1, **piece), 20.0)
    step = rate // 100
    loud = np.abs(wave[: len(wave) // step * step]).reshape(-1, step).max(axis=1) > 0.1
    return [number / 100 for number in range(10, len(loud)) if loud[number] and not loud[number - 10 : number].any()]


def seen(path: Path, **piece: float) -> list[float]:
    """Seconds of the clip at which pictures become white."""
    bright = video.load(Source(path, 0, **piece), gray(220, fps=20)).mean(axis=(1, 2, 3)) > 128
    return [number / 20 for number in range(1, 220) if bright[number] and not bright[number - 1]]


HOLES = {
    "none": [],
    "a late start": [(-1, 0.92)],
    "a hole": [(2.5, 3.46)],
    "both": [(-1, 1.0), (2.5, 3.5)],
}


@pytest.mark.parametrize("name", ["a.mp4", "a.mov", "a.mkv", "a.ts", "a.flv"])
@pytest.mark.parametrize("holes", HOLES.values(), ids=HOLES)
def test_sound_and_picture_have_one_clock(tmp_path, name, holes):
    path = flashes_and_beeps(tmp_path / name, holes=holes)
    assert seen(path) == pytest.approx(BEEPS, abs=0.15)
    assert heard(path) == pytest.approx(seen(path), abs=0.08)
    assert heard(path, start=3.8, end=4.4) == pytest.approx(seen(path, start=3.8, end=4.4), abs=0.08)


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts"])
def test_a_picture_that_starts_later_than_the_sound(tmp_path, name):
    path = flashes_and_beeps(tmp_path / name, times=range(12, 62))
    assert seen(path) == pytest.approx([3.2, 5.2], abs=0.15)
    assert heard(path) == pytest.approx(BEEPS, abs=0.08)


@pytest.mark.parametrize(
    ("offset", "holes"),
    [(0, [[], []]), (5000, [[(4.5, 9)], []]), (5000, [[], [(-1, 0.6)]]), (0, [[(4.5, 9)], [(-1, 0.6)]])],
)
def test_joined_recordings_keep_sound_and_picture_together(tmp_path, offset, holes):
    later = {"output_ts_offset": str(offset)}
    parts = [
        flashes_and_beeps(tmp_path / "1.ts", holes=holes[0]),
        flashes_and_beeps(tmp_path / "2.ts", holes=holes[1], container=later),
    ]
    path = join(tmp_path / "a.ts", *parts)
    assert seen(path) == pytest.approx([2, 4, 7, 9], abs=0.25)
    assert heard(path) == pytest.approx(seen(path), abs=0.1)
    assert heard(path, start=6.8, end=7.4) == pytest.approx(seen(path, start=6.8, end=7.4), abs=0.1)


def test_one_wrong_time_of_a_sound_costs_nothing(tmp_path):
    path = flashes_and_beeps(tmp_path / "a.mkv")
    wanted, _ = audio.mono(Source(path, 1), 20.0)
    content = bytearray(path.read_bytes())
    # The time of a block relative to its cluster, in milliseconds, follows its head and the number of its track, 2.
    with av.open(str(path)) as file:
        late = [each for each in file.demux(file.streams[1]) if each.size][20]
    data = content.index(bytes(late))
    assert content[data - 4] == 0x82
    content[data - 3 : data - 1] = (int.from_bytes(content[data - 3 : data - 1]) + 2000).to_bytes(2)
    path.write_bytes(content)
    np.testing.assert_array_equal(audio.mono(Source(path, 1), 20.0)[0], wanted)


def test_a_clock_that_makes_no_sense_is_not_followed(tmp_path):
    """AVI counts the samples of this codec wrongly: by it three seconds last four."""
    path = tmp_path / "a.avi"
    with av.open(str(path), "w") as file:
        stream = file.add_stream("g722", rate=16000, layout="mono")
        frame = av.AudioFrame.from_ndarray((tone(1000, 3.0, 16000) * 32767).astype(np.int16)[None], "s16", "mono")
        frame.sample_rate = 16000
        file.mux(stream.encode(frame))
        file.mux(stream.encode())
    wave, rate = audio.mono(Source(path, 0), 20.0)
    assert (
        len(wave) / rate == pytest.approx(3.0, abs=0.01) and (np.abs(wave).reshape(-1, 100).max(axis=1)[5:] > 0.3).all()
    )


# --- images -----------------------------------------------------------------------------------------------------


def still(size: int = 16, channels: int = 1) -> ImageFeatures:
    return ImageFeatures(kind="image", size=size, channels=channels)


@pytest.mark.parametrize("size", [(33, 57), (57, 33), (16, 16), (5, 90)])
@pytest.mark.parametrize("channels", [1, 3])
def test_images_of_any_size(tmp_path, size, channels):
    path = write_image(tmp_path / "a.png", np.full((*size, 3), (200, 100, 50), np.uint8))
    found = image.load(Source(path), still(channels=channels))
    assert found.shape == image.feature(still(channels=channels)).shape and found.dtype == np.uint8
    assert found[:, 3, 3].tolist() == ([200, 100, 50] if channels == 3 else [124])


def test_an_image_of_the_right_size_is_kept_as_it_is(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16), np.uint8)
    np.testing.assert_array_equal(image.load(Source(write_image(tmp_path / "a.png", pixels)), still())[0], pixels)


def test_the_camera_says_which_way_is_up(tmp_path):

    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90° clockwise
    path = write_image(tmp_path / "a.jpg", halves(32, 32), exif=exif)
    found = image.load(Source(path), still())[0]
    assert found[:, -4:].mean() > 240 and found[:, :4].mean() < 15


def test_sixteen_bits_are_scaled_not_cut_off(tmp_path):
    path = write_image(tmp_path / "a.png", np.full((16, 16), 32768, np.uint16))
    assert image.load(Source(path), still(channels=3)).max() == 128


def test_bad_images_are_refused_with_a_reason(tmp_path):
    path = write_image(tmp_path / "a.png", np.random.default_rng(0).integers(0, 256, (64, 64), np.uint8))
    with under(Limits(pixels=64 * 63)), pytest.raises(Unusable, match=r"more than dataset\.limits\.pixels = 4,032"):
        image.load(Source(path), still())
    for content in (path.read_bytes()[:800], b"", b"text"):
        path.write_bytes(content)
        with pytest.raises(Unusable, match="cannot be decoded"):
            image.load(Source(path), still())


# --- text -------------------------------------------------------------------------------------------------------


def words(**changes) -> TextFeatures:
    return TextFeatures(**({"kind": "text", "max_tokens": 5} | changes))


@pytest.mark.parametrize(
    "content, expected",
    [
        ("Don't  stop, 'now'!", ["Don't", "stop", "now"]),
        ("it\N{RIGHT SINGLE QUOTATION MARK}s 3.5, or 1,000", ["it's", "3.5", "or", "1,000"]),
        (
            "The end.Start well-known tap_dancing U.S.A.",
            ["The", "end", "Start", "well", "known", "tap", "dancing", *"USA"],
        ),
        ("cafe\N{COMBINING ACUTE ACCENT} naïve", ["café", "naïve"]),
        ("ＡＢＣ ﬁne", ["ABC", "fine"]),
        ("हिन्दी भाषा", ["हिन्दी", "भाषा"]),
        ("한국어 단어", ["한국어", "단어"]),
        ("我喜欢学习。他说：好！", [*"我喜欢学习他说好"]),
        ("今日はテスト、です", ["今", "日", "は", "テスト", "で", "す"]),
        ("ﾃｽﾄ", ["テスト"]),
        ("ฉันรัก", ["ฉั", "น", "รั", "ก"]),
        ("… — ''", []),
        ("\N{ZERO WIDTH SPACE}\N{SOFT HYPHEN}", []),
    ],
)
def test_words(content, expected):
    assert text.words_of(content) == expected


@pytest.mark.parametrize("invisible", ["\u00ad", "\u200b", "\u200c", "\u200d", "\u2060", "\ufeff", "\u200e", "\ufe0f"])
def test_what_is_not_seen_cuts_no_word(invisible):
    assert text.words_of(f"super{invisible}star") == ["superstar"]


FLAG_OF_ENGLAND = "\U0001f3f4" + "".join(chr(0xE0000 + ord(each)) for each in "gbeng") + "\U000e007f"


@pytest.mark.parametrize(
    "emoji",
    ["😀", "👍🏽", "👨\u200d👩\u200d👧", "🏳\ufe0f\u200d🌈", "🇩🇪", FLAG_OF_ENGLAND, "☎"],
)
def test_an_emoji_is_one_word(emoji):
    [word] = text.words_of(emoji)
    assert word == emoji.replace("\ufe0f", "")
    assert text.words_of(f"so{emoji}{emoji}good") == ["so", word, word, "good"]


def test_an_emoji_is_the_same_word_with_and_without_its_selector():
    assert text.words_of("❤\ufe0f") == text.words_of("❤") == ["❤"]
    assert text.words_of("press 1\ufe0f\u20e3") == ["press", "1\u20e3"]


def test_no_emoji_vanishes():
    every = regex.findall(r"\p{Emoji_Presentation}", "".join(map(chr, range(0x110000))))
    assert len(every) > 1000 and all(len(text.words_of(each)) >= 1 for each in every)


def test_texts_in_scripts_without_spaces_share_words():
    """As one word each, two clauses had nothing in common: every text of the test was unknown."""
    known = text.vocabulary([Source(text="我喜欢猫"), Source(text="แมวน่ารัก")], words())
    ids = text.numbered(known)
    for content in ("猫喜欢我", "แมว"):
        found = text.load(Source(text=content), words(), ids)
        assert (found[found > 0] > text.UNKNOWN).all()


def test_the_vocabulary_is_the_most_frequent_words(tmp_path):
    paths = [tmp_path / name for name in ("a", "b")]
    paths[0].write_text("One two two THREE", encoding="utf-8")
    paths[1].write_bytes(b"\xff one")
    sources = [Source(str(path)) for path in (*paths, tmp_path / "absent")]
    assert text.vocabulary(sources, words()) == ["two", "one", "three"]
    assert text.vocabulary(sources, words(lowercase=False)) == ["two", "One", "THREE"]
    assert text.vocabulary([Source(text="ＡＢＣ™")], words()) == ["abctm"]
    assert text.vocabulary(sources, words(max_vocabulary=2)) == ["two", "one"]
    assert text.vocabulary(sources, words(min_count=2)) == ["two"]
    assert text.vocabulary([*sources, Source(text="three three")], words(max_vocabulary=1)) == ["three"]


def test_ids(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("\ufeffTwo four one", encoding="utf-8")
    found = text.load(Source(path), words(), text.numbered(["two", "one"]))
    assert found.dtype == np.int32 and found.tolist() == [2, 1, 3, 0, 0]
    path.write_text("one " * 9)
    assert text.load(Source(path), words(), {"one": 2}).tolist() == [2] * 5
    assert text.load(Source(text="Two four one"), words(), text.numbered(["two", "one"])).tolist() == [2, 1, 3, 0, 0]


@pytest.mark.parametrize(
    "content, said", [(b"ab\xff", "not UTF-8: byte 0xff at position 2"), (b"", "no word"), (b" ?!", "no word")]
)
def test_bad_texts_are_refused_with_a_reason(tmp_path, content, said):
    (tmp_path / "a.txt").write_bytes(content)
    with pytest.raises(Unusable, match=said):
        text.load(Source(tmp_path / "a.txt"), words(), {})


# --- the step ---------------------------------------------------------------------------------------------------

SETTINGS = {
    "video": {"frames": 2, "fps": None, "size": 16, "channels": 1},
    "audio": {"sample_rate": 8000, "seconds": 1.0, "n_fft": 256, "hop_length": 128},
    "text": {"max_tokens": 4, "max_vocabulary": 100},
}
ENCODERS = {"video": {"name": "conv"}, "audio": {"name": "conv"}, "text": {"name": "transformer"}}


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve clips with sound."""
    folder = tmp_path_factory.mktemp("clips")
    for number in range(12):
        write_video(folder / f"{number}.mp4", 4 + number, sound=tone(300 + 50 * number, 1.0, 16000))
    return folder


@pytest.fixture
def project(clips, tmp_path, monkeypatch):
    """Twelve clips with sound and text, a manifest and parameters, in the current folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AGM_WORKERS", "1")
    raw = shutil.copytree(clips, tmp_path / "raw")
    rows = []
    for number in range(12):
        split = ("train", "train", "val", "test")[number % 4]
        (raw / f"{number}.txt").write_text(f"{split} word{number}")
        sources = {"video": Source(f"{number}.mp4", 0), "audio": Source(f"{number}.mp4", 1)}
        sources = {name: asdict(each) for name, each in {**sources, "text": Source(f"{number}.txt")}.items()}
        rows.append({"clip_id": f"c{number}", "split": split, "label": number % 2, **sources})
    write_manifest(pl.DataFrame(rows, schema_overrides=dict.fromkeys(SETTINGS, STRUCT)))
    return raw


def write_manifest(rows: pl.DataFrame) -> None:
    folder = Path("data/few")
    folder.mkdir(parents=True, exist_ok=True)
    rows.write_parquet(folder / "manifest.parquet")
    sums = {"manifest.parquet": sha256(folder / "manifest.parquet")}
    write_json(folder / "manifest.json", {"classes": ["a", "b"], "sha256": sums})


def identify(modality: str, params: config.Params) -> None:
    """Put the files of a modality on record as they are now."""
    try:
        rows = pl.read_parquet("data/few/manifest.parquet")
    except pl.exceptions.ComputeError:
        return  # a damaged one, which is not ours to mend
    paths = sorted(rows[modality].struct.field("path").drop_nulls().unique())
    seen = {path: each for path, each in ask(params.dataset, paths).items() if not isinstance(each, str)}
    found = {None: None, **dict.fromkeys(paths), **identities(Graph(params), params.dataset, seen)}
    sources = [each | {"identity": found[each["path"]]} for each in rows[modality]]
    write_manifest(rows.with_columns(pl.Series(modality, sources, STRUCT)))


def parameters(**features) -> config.Params:
    content = yaml.safe_load((Path(__file__).parents[1] / "params.yaml").read_text())
    content["study"] |= {"modalities": list(SETTINGS)}
    content |= {"num_parts": 2, "features": SETTINGS | features, "encoders": ENCODERS}
    kinds = {name: {"kind": name, "column": name} for name in SETTINGS}
    content["dataset"] |= {"name": "few", "root": "raw", "modalities": kinds, "generated": []}
    return config.check(content, "test")


def extract(modality: str, part: int, params: config.Params | None = None):
    params = params or parameters()
    identify(modality, params)
    job = Graph(params).job("extract", modality, part)
    summary = step.run(params, job)
    json.dumps(summary, allow_nan=False)
    feature = Feature.from_json(summary["feature"] | {"vocabulary": None})
    tensors.check(pq.read_schema(job.outputs[0]), {"tensor": feature}, job.outputs[0], job.command)
    table = pq.read_table(job.outputs[0])
    assert summary["rows"] == len(table) and summary["sha256"] == {job.outputs[0].name: sha256(job.outputs[0])}
    return summary, table["clip_id"].to_pylist(), tensors.decode(table["tensor"], feature)


@pytest.mark.parametrize("modality", list(SETTINGS))
def test_parts_follow_the_manifest(project, modality):
    first, second = (extract(modality, part) for part in (0, 1))
    assert first[1] + second[1] == [f"c{number}" for number in range(12)]
    assert first[0]["quarantined"] == second[0]["quarantined"] == []
    if modality == "video":
        assert levels(second[2][-1]) == [3, 11]  # 15 frames


def test_bytes_do_not_depend_on_the_number_of_processes(project, monkeypatch):
    path = Path("data/few/features/audio/part-0.parquet")
    extract("audio", 0)
    alone = path.read_bytes()
    monkeypatch.setenv("AGM_WORKERS", "2")
    monkeypatch.setattr(step, "parallel_map", partial(parallel_map, chunk=2))
    extract("audio", 0)
    assert path.read_bytes() == alone


def test_rows_are_written_in_groups(project, monkeypatch):
    monkeypatch.setattr(step, "ROW_GROUP_BYTES", 2 * 2 * 16 * 16 + 100)
    _, names, pixels = extract("video", 0)
    metadata = pq.read_metadata("data/few/features/video/part-0.parquet")
    assert [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)] == [2, 2, 2]
    assert names == [f"c{number}" for number in range(6)] and levels(pixels[5]) == [2, 6]


def test_a_bad_clip_costs_one_clip(project):
    (project / "1.mp4").write_bytes(b"")
    (project / "2.mp4").write_bytes((project / "2.mp4").read_bytes()[:700])
    (project / "4.mp4").unlink()
    write_video(project / "5.mp4", 5)
    summary, names, _ = extract("audio", 0)
    assert names == ["c0", "c3"]
    assert [row["clip_id"] for row in summary["quarantined"]] == ["c1", "c2", "c4", "c5"]
    reasons = " | ".join(row["reason"] for row in summary["quarantined"])
    for said in ("empty", "truncated", "No such file", "no audio in stream 1"):
        assert said in reasons
    assert summary["quarantined"][0] == {
        "clip_id": "c1",
        "split": "train",
        "modality": "audio",
        "step": "extract",
        "reason": "the file is empty",
        "path": "1.mp4",
    }
    assert str(project) not in json.dumps(summary)


def test_a_decoder_that_fails_unforeseen_costs_one_clip(project, monkeypatch):
    load = video.load

    def failing(source, settings):
        if Path(source.path).name == "3.mp4":
            raise ZeroDivisionError("by a broken header")
        return load(source, settings)

    monkeypatch.setattr(video, "load", failing)
    summary, names, _ = extract("video", 0)
    assert len(names) == 5 and "ZeroDivisionError: by a broken header" in summary["quarantined"][0]["reason"]


def crashing(source):
    if Path(source.path).name == "3.mp4":
        os.kill(os.getpid(), signal.SIGSEGV)
    return np.zeros((2, 1, 16, 16), np.uint8)


def test_a_decoder_that_crashes_costs_one_clip(project, monkeypatch):
    monkeypatch.setenv("AGM_WORKERS", "2")
    recipe = step.recipe
    monkeypatch.setattr(step, "recipe", lambda *each: replace(recipe(*each), load=crashing))
    summary, names, _ = extract("video", 0)
    assert names == ["c0", "c1", "c2", "c4", "c5"]
    assert summary["quarantined"][0]["reason"] == "the decoder crashed on the file, or memory ran out"


def test_a_part_without_any_usable_clip_stops_the_run(project):
    for number in range(6):
        (project / f"{number}.mp4").write_bytes(b"")
    with pytest.raises(
        AgmError, match=r"Not one of 6 clips can be used; the first because: the file is empty"
    ) as caught:
        extract("video", 0)
    assert "dataset.root" in str(caught.value)
    assert list(Path("data/few/features/video").iterdir()) == []
    assert extract("video", 1)[0]["rows"] == 6


def test_a_part_without_clips_is_an_empty_file(project):
    write_manifest(pl.read_parquet("data/few/manifest.parquet").head(1))
    summary, names, pixels = extract("video", 0)
    assert summary["rows"] == 0 and names == [] and pixels.shape == (0, 2, 1, 16, 16)


def test_only_training_clips_make_the_vocabulary(project):
    summary, _, ids = extract("text", 0)
    known = summary["feature"]["vocabulary"]
    assert known == ["train", *sorted(f"word{number}" for number in range(12) if number % 4 < 2)]
    assert extract("text", 1)[0]["feature"] == summary["feature"]
    assert ids[2].tolist() == ids[3].tolist() == [1, 1, 0, 0]  # a validation and a test clip: words never seen
    before = Path("data/few/features/text/part-1.parquet").read_bytes()
    for number in (2, 3):
        (project / f"{number}.txt").write_text("quite other words")
    again, _, changed = extract("text", 0)
    assert again["feature"] == summary["feature"] and changed[:2].tolist() == ids[:2].tolist()
    extract("text", 1)
    assert Path("data/few/features/text/part-1.parquet").read_bytes() == before


def test_a_damaged_manifest_is_refused(project):
    path = Path("data/few/manifest.parquet")
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(AgmError, match="agm ingest"):
        extract("video", 0)


def test_threads_do_not_change_the_values(tmp_path):
    path = write_wav(tmp_path / "a.wav", np.random.default_rng(0).uniform(-1, 1, 44100), 44100)
    one = audio.load(Source(path, 0), sound())
    assert torch.get_num_threads() == 1 and STEP == 4
    np.testing.assert_array_equal(one, audio.load(Source(path, 0), sound()))
