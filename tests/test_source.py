"""A clip may be a piece of a file: from one second to another, one half of the picture, or text of the annotations."""

from dataclasses import asdict

import numpy as np
import polars as pl
import pytest

from agm.pipeline.config.schema import AudioFeatures, VideoFeatures
from agm.pipeline.io.media import Unusable
from agm.pipeline.io.source import STRUCT, Source
from agm.pipeline.steps.extract import audio, video
from agm.pipeline.steps.ingest.probe import Media, probe
from media import levels, tone, write_video, write_wav


def frames(count: int, **more: object) -> VideoFeatures:
    return VideoFeatures(kind="video", frames=count, size=16, channels=1, **more)


def sound(seconds: float) -> AudioFeatures:
    return AudioFeatures(kind="audio", sample_rate=8000, seconds=seconds, n_fft=64, hop_length=64, log_floor=1e-3)


def test_a_source_survives_a_table():
    sources = [Source("a.mp4", 1, start=0.5, end=2.0, half="left"), Source("b.h5", member="x/17"), Source(text="words")]
    table = pl.DataFrame({"m": [asdict(each) for each in sources]}, schema={"m": STRUCT})
    assert [Source(**each) for each in table["m"]] == sources


def test_only_a_path_is_below_the_root():
    assert Source("a/b.wav", member="3").below("/data") == Source("/data/a/b.wav", member="3")
    assert Source(text="words").below("/data") == Source(text="words")


@pytest.mark.parametrize("options", [{"g": "4", "bf": "2"}, {"g": "100"}])
def test_the_frames_of_a_piece(tmp_path, options):
    path = str(write_video(tmp_path / "a.mp4", 60, rate=10, options=options))
    assert levels(video.load(Source(path, 0, start=2.0, end=3.0), frames(10))) == list(range(20, 30))
    assert levels(video.load(Source(path, 0, end=0.5), frames(5))) == [0, 1, 2, 3, 4]
    assert levels(video.load(Source(path, 0, start=5.0), frames(2, fps=5.0))) == [50, 52]
    # The last frame of the piece is repeated, not what follows it.
    assert levels(video.load(Source(path, 0, start=2.0, end=2.25), frames(4, fps=10.0))) == [20, 21, 22, 22]
    with pytest.raises(Unusable, match="no frame between 8 and 9 s"):
        video.load(Source(path, 0, start=8.0, end=9.0), frames(1))


@pytest.mark.parametrize("size", [(64, 32), (62, 48), (40, 60)])
def test_half_of_the_picture(tmp_path, size):
    picture = np.full(size[::-1], 200, np.uint8)
    picture[:, : size[0] // 2] = 50
    path = str(write_video(tmp_path / "a.mp4", 2, size, picture=picture, pixels="yuv444p", options={"crf": "5"}))
    for half, gray in (("left", 50), ("right", 200)):
        found = video.load(Source(path, 0, half=half), frames(1))
        assert found.shape == (1, 1, 16, 16)
        assert abs(np.median(found).astype(int) - gray) <= 4
        assert np.mean(np.abs(found.astype(int) - gray) > 20) <= 1 / 16, "of the other half at most an edge"


def test_the_sound_of_a_piece(tmp_path):
    wave = np.concatenate([tone(500, 1.0, 8000), tone(2000, 1.0, 8000), tone(3000, 1.0, 8000)])
    whole = str(write_wav(tmp_path / "whole.wav", wave, 8000))
    piece = str(write_wav(tmp_path / "piece.wav", wave[8000:16000], 8000))
    found = audio.load(Source(whole, 0, start=1.0, end=2.0), sound(1.5))
    np.testing.assert_array_equal(found, audio.load(Source(piece, 0), sound(1.5)))
    assert audio.load(Source(whole, 0, start=2.0), sound(0.5))[0].mean(axis=1).argmax() == round(3000 / 125)
    with pytest.raises(Unusable, match=r"ends after 3 s, before the clip begins \(4 s\)"):
        audio.load(Source(whole, 0, start=4.0, end=5.0), sound(1.0))


def test_probing_a_piece(tmp_path):
    path = str(write_wav(tmp_path / "a.wav", tone(500, 2.0, 8000), 8000))
    assert probe(Source(path, start=0.5, end=1.25), "audio") == Media(0, 0.75)
    assert probe(Source(path, start=1.5), "audio").duration == pytest.approx(0.5)
    assert probe(Source(path, end=9.0), "audio").duration == pytest.approx(2.0)
    with pytest.raises(Unusable, match="before the clip begins"):
        probe(Source(path, start=2.5, end=3.0), "audio")


def test_probing_text_of_the_annotations_and_files_of_many_clips(tmp_path):
    nice = probe(Source(text="It's nice."), "text")
    assert nice == Media(digest=nice.digest) == probe(Source(text="IT'S  nice."), "text")
    assert nice != probe(Source(text="It is nice."), "text")
    with pytest.raises(Unusable, match="blank"):
        probe(Source(text=" \n"), "text")
    np.save(tmp_path / "many.npy", np.zeros((3, 4)))
    assert probe(Source(str(tmp_path / "many.npy"), member="2"), "sequence") == Media()
    with pytest.raises(Unusable, match="not there"):
        probe(Source(str(tmp_path / "none.npy"), member="2"), "sequence")
