"""The demo data: deterministic, balanced, free of leaks, and as noisy as its parameters say."""

import csv
import hashlib
import io
import re
from collections import Counter
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agm.pipeline.cli import main
from agm.pipeline.config.compose import compose
from agm.pipeline.config.schema import Dial
from agm.pipeline.steps.generate import dial
from agm.pipeline.steps.generate.mp4 import encode

GROUPS = Path(__file__).parents[1] / "params"
CLIPS = 40


def generate(folder: Path, monkeypatch: pytest.MonkeyPatch, workers: int, *overrides: str) -> Path:
    folder.mkdir(exist_ok=True)
    compose([f"dial.clips={CLIPS}", *overrides], folder / "params.yaml", groups=GROUPS)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("AGM_WORKERS", str(workers))
    assert main(["generate", "dial"]) == 0
    return folder / "data/raw/dial"


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def labels(folder: Path) -> list[dict[str, str]]:
    with open(folder / "labels.csv", newline="") as file:
        return list(csv.DictReader(file))


def decoded(content: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Luma in grey levels [frames, height, width] and samples [samples] of an MP4."""
    with av.open(io.BytesIO(content)) as file:
        luma = [frame.to_ndarray()[: dial.SIZE].astype(float) for frame in file.decode(video=0)]
    with av.open(io.BytesIO(content)) as file:
        sound = np.concatenate([frame.to_ndarray()[0] for frame in file.decode(audio=0)])
    return (np.stack(luma) - 16) * 255 / 219, sound


def test_bytes_repeat_with_any_number_of_workers(tmp_path, monkeypatch):
    one = contents(generate(tmp_path / "one", monkeypatch, 1))
    two = contents(generate(tmp_path / "two", monkeypatch, 2))
    assert len(one) == 2 * CLIPS + 2
    assert one == two
    again = contents(generate(tmp_path / "two", monkeypatch, 1))
    assert again == one, "a second run replaces the first"
    other = contents(generate(tmp_path / "other", monkeypatch, 1, "dial.seed=1"))
    assert other["clips/dial-00000.mp4"] != one["clips/dial-00000.mp4"]


def test_the_files_are_what_labels_csv_says(tmp_path, monkeypatch):
    folder = generate(tmp_path, monkeypatch, 1, "dial.noise.text=0")
    rows = labels(folder)
    assert list(rows[0]) == ["clip_id", "split", "label", "video", "text", "sha256", "text_sha256"]
    assert len({row["clip_id"] for row in rows}) == len(list(folder.glob("clips/*.mp4"))) == CLIPS
    for row in rows:
        content = (folder / row["video"]).read_bytes()
        assert hashlib.sha256(content).hexdigest() == row["sha256"]
        assert hashlib.sha256((folder / row["text"]).read_bytes()).hexdigest() == row["text_sha256"]
        assert named_digit((folder / row["text"]).read_text()) == int(row["label"])
    with av.open(str(folder / rows[0]["video"])) as file:
        assert [stream.codec_context.name for stream in file.streams] == ["h264", "aac"]
        assert file.duration / av.time_base == pytest.approx(1, abs=0.15)
        assert file.streams.video[0].frames == dial.FRAMES


def named_digit(sentence: str) -> int:
    return dial.WORDS.index(re.search(r"dial (\w+)", sentence).group(1))


@settings(max_examples=15, deadline=None)
@given(clips=st.integers(10, 300), seed=st.integers(0, 2**40))
def test_no_sample_in_two_splits_and_labels_balanced(clips, seed):
    plans = dial.plan(Dial(clips=clips, seed=seed))
    assert len({plan.clip_id for plan in plans}) == clips
    ink = {split: {plan.ink.tobytes() for plan in plans if plan.split == split} for split in dial.SHARES}
    assert not ink["train"] & ink["val"] and not ink["train"] & ink["test"] and not ink["val"] & ink["test"]
    for split, share in dial.SHARES.items():
        counts = Counter(plan.label for plan in plans if plan.split == split)
        assert abs(counts.total() - share * clips) <= 1
        assert max(counts.values()) - min(counts[digit] for digit in range(10)) <= 1


def test_the_samples_are_divided_without_remainder():
    pools = dial._pools(seed=0)
    sizes = {split: sum(map(len, parts)) for split, parts in pools.items()}
    assert sum(sizes.values()) == 1797
    assert sizes["train"] / 1797 == pytest.approx(0.6, abs=0.01)


def test_each_modality_has_its_own_noise():
    plan = dial.plan(Dial(clips=10))[3]
    assert np.array_equal(dial.frames(plan, 0.5), dial.frames(plan, 0.5))
    assert not np.array_equal(dial.frames(plan, 0.5), dial.frames(plan, 0.6))
    quiet, loud = dial.sound(plan, 0.0), dial.sound(plan, 2.0)
    assert np.std(loud - quiet) == pytest.approx(2 * dial.AMPLITUDE, rel=0.05)
    assert np.abs(quiet).max() <= 2 * dial.AMPLITUDE


@pytest.mark.parametrize("noise", [0.25, 1.0])
def test_the_encoders_keep_the_noise(noise):
    plan = dial.plan(Dial(clips=10))[7]
    frames, sound = dial.frames(plan, noise), dial.sound(plan, noise)
    seen, heard = decoded(encode(frames, dial.FPS, sound, dial.RATE))
    assert seen.shape == frames.shape
    paper = frames[:, :4].astype(float)  # the digit may reach into it, the same in both
    assert seen[:, :4].std() == pytest.approx(paper.std(), rel=0.05)
    assert np.corrcoef(seen.ravel(), frames.ravel().astype(float))[0, 1] > 0.99
    heard = heard[: len(sound)]
    assert heard.std() == pytest.approx(sound.std(), rel=0.05)
    assert np.corrcoef(heard, sound)[0, 1] > 0.98


@pytest.mark.parametrize("digit", range(10))
def test_the_tone_is_that_of_the_telephone_key(digit):
    keypad = {1: (697, 1209), 2: (697, 1336), 3: (697, 1477), 4: (770, 1209), 5: (770, 1336)}
    keypad |= {6: (770, 1477), 7: (852, 1209), 8: (852, 1336), 9: (852, 1477), 0: (941, 1336)}
    plan = dial.plan(Dial(clips=10 * 5))[digit]
    _, heard = decoded(encode(dial.frames(plan, 0.0), dial.FPS, dial.sound(plan, 0.0), dial.RATE))
    power = np.abs(np.fft.rfft(heard, n=dial.RATE))  # a bin per Hz
    found = int(power[600:1100].argmax()) + 600, int(power[1100:1600].argmax()) + 1100
    assert found == pytest.approx(keypad[digit], abs=4)


def test_transcripts_are_wrong_as_often_as_asked_and_distractors_tell_nothing():
    plans = dial.plan(Dial(clips=2000))
    sentences = [dial.sentence(plan, 0.3) for plan in plans]
    right = [named_digit(sentence) == plan.label for plan, sentence in zip(plans, sentences, strict=True)]
    assert np.mean(right) == pytest.approx(0.7, abs=0.04)
    others = [re.findall(r"\w+", re.sub(r"dial \w+", "", sentence)) for sentence in sentences]
    spoken = [[word for word in words if word in dial.WORDS] for words in others]
    assert {len(words) for words in spoken} == {2}
    hits = [dial.WORDS[plan.label] in words for plan, words in zip(plans, spoken, strict=True)]
    assert np.mean(hits) == pytest.approx(1 - 0.9**2, abs=0.03)
    assert max(len(sentence.split()) for sentence in sentences) <= 16
