"""Seeing the data: planted duplicates are found and others are not, one clip is explained, everything can be drawn."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from PIL import Image

from agm import cli
from agm.files import read_json, write_json
from agm.inspect import duplicates as searching
from agm.inspect.duplicates import EVERY, duplicates, findings, summary
from agm.inspect.sheet import Shown, draw
from agm.inspect.signature import Signatures, Signer
from agm.inspect.step import choose, durations
from agm.inspect.transcript import Transcript
from agm.tensors import Feature
from media import tone, write_image, write_wav
from pipeline import STEPS, Pipeline

pytestmark = pytest.mark.numerical

RATE = 8000
CLIPS = {"train": 16, "val": 6, "test": 6}
WORDS = ("amber", "birch", "cedar", "delta", "ember", "fjord", "grove", "heath")


def picture(seed: int) -> np.ndarray:
    """Something to see: coarse blobs, uint8 [64, 64, 3]."""
    blobs = np.random.default_rng(seed).integers(30, 200, size=(6, 6, 3)).astype(np.uint8)
    return np.asarray(Image.fromarray(blobs).resize((64, 64), Image.Resampling.BICUBIC))


def sound(seed: int) -> np.ndarray:
    """Something to hear: three tones one after the other, and a little noise; float [samples]."""
    random = np.random.default_rng(seed)
    tones = np.concatenate([tone(hertz, 0.4, RATE) for hertz in random.uniform(200, 3500, size=3)])
    return 0.6 * tones + 0.005 * random.standard_normal(len(tones))


def text(seed: int) -> str:
    return " ".join(np.random.default_rng(seed).choice(WORDS, 7))


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    """28 clips that have nothing in common but what is planted, and one that is broken."""
    folder = tmp_path_factory.mktemp("study")
    raw = folder / "raw"
    raw.mkdir()
    names = [f"{split}{number:02}" for split, clips in CLIPS.items() for number in range(clips)]
    for seed, name in enumerate(names):
        write_image(raw / f"{name}.png", picture(seed))
        write_wav(raw / f"{name}.wav", sound(seed), RATE)
        (raw / f"{name}.txt").write_text(text(seed))
    # test00: the files of train00. test01: train01 saved anew, brighter, less loud. test02: the sound of train02 only.
    for suffix in ("png", "wav", "txt"):
        (raw / f"test00.{suffix}").write_bytes((raw / f"train00.{suffix}").read_bytes())
    brighter = (picture(1).astype(float) * 1.15 + 15).clip(0, 255).astype(np.uint8)
    Image.fromarray(brighter).save(raw / "test01.png", format="JPEG", quality=70)
    write_wav(raw / "test01.wav", 0.4 * sound(1), RATE)
    (raw / "test01.txt").write_bytes((raw / "train01.txt").read_bytes())
    (raw / "test02.wav").write_bytes((raw / "train02.wav").read_bytes())
    (raw / "train15.wav").write_bytes(b"RIFF, and nothing else")
    rows = [f"{name},{name[:-2]},{'ab'[int(name[-1]) % 2]},{name}.png,{name}.wav,{name}.txt" for name in names]
    (raw / "manifest.csv").write_text("clip_id,split,label,image,audio,text\n" + "\n".join(rows) + "\n")
    with pytest.MonkeyPatch.context() as patch:
        made = Pipeline(
            folder,
            patch,
            "study=spoken_digits",
            f"dataset.root={raw}",
            "+dataset.modalities.text={kind: text, column: text}",
            "features.image={size: 32, channels: 3}",
            "+features.text={words: 8, vocabulary: 6}",
            "+encoders.text={name: transformer}",
        )
        made.folder = folder
        return made.run((*STEPS, "inspect"))


@pytest.fixture
def inside(study: Pipeline, monkeypatch: pytest.MonkeyPatch) -> Pipeline:
    monkeypatch.chdir(study.folder)
    return study


# --- what leaks ---


def test_planted_duplicates_are_found_and_distinct_clips_are_not(inside: Pipeline) -> None:
    found = pl.read_parquet(inside.data / "duplicates.parquet")
    pairs = {(row["modality"], row["clip_id"], row["like"]): row["similarity"] for row in found.iter_rows(named=True)}
    whole = {("test00", "train00"), ("test01", "train01")}
    wanted = {(modality, *pair) for pair in whole for modality in (EVERY, "image", "audio", "text")}
    assert pairs.keys() == wanted | {("audio", "test02", "train02")}
    assert {pair for pair, similarity in pairs.items() if similarity == 1} == {
        *((modality, "test00", "train00") for modality in (EVERY, "image", "audio", "text")),
        ("audio", "test02", "train02"),
        ("text", "test01", "train01"),
    }
    assert set(found["split"]) == {"test"} and set(found["like_split"]) == {"train"}


def test_index_tells_the_leaks_the_balance_and_the_durations(inside: Pipeline) -> None:
    index = read_json(inside.data / "inspection.json")
    told = "2 clips of test look the same as a clip of train in every modality (the first: "
    assert len(index["leaks"]) == 1 and index["leaks"][0].startswith(told)
    counts = {(pair["split"], pair["in"]): pair["clips"] for pair in index["duplicates"]}
    assert counts["test", "train"] == {
        EVERY: {"alike": 2, "identical": 1},
        "image": {"alike": 2, "identical": 1},
        "audio": {"alike": 3, "identical": 2},
        "text": {"alike": 2, "identical": 2},
    }
    assert all(each["alike"] == 0 for each in counts["val", "train"].values())
    assert index["clips"] == {"train": {"a": 8, "b": 7}, "val": {"a": 3, "b": 3}, "test": {"a": 3, "b": 3}}
    assert sum(index["durations"]["splits"]["train"]) == 15


def test_leaks_of_the_manifest_are_told_first(inside: Pipeline) -> None:
    index = read_json(inside.data / "manifest.json")
    write_json(inside.data / "manifest.json", index | {"leaks": ["3 actors of test are in train too"]})
    assert cli.main(["inspect"]) == 0
    leaks = read_json(inside.data / "inspection.json")["leaks"]
    assert leaks[0] == "3 actors of test are in train too" and len(leaks) == 2
    write_json(inside.data / "manifest.json", index)


def signatures(values: np.ndarray, digests: list[int], blank: list[bool]) -> Signatures:
    unit = values / np.linalg.norm(values, axis=1, keepdims=True)
    unit[blank] = 0
    return Signatures(unit.astype(np.float16), np.array(digests, np.uint64), np.array(blank))


def test_tiles_find_what_a_loop_over_all_pairs_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(searching, "ROWS", 3)
    monkeypatch.setattr(searching, "COLUMNS", 4)
    random = np.random.default_rng(0)
    splits = random.choice(["train", "val", "test"], 60).tolist()
    names = [f"clip{number:02}" for number in range(60)]
    seen = {}
    for modality in ("one", "other"):
        # Few places, so that many clips are at the same one, nearly or exactly.
        place = random.integers(8, size=60)
        values = np.eye(8)[place] + 0.01 * random.standard_normal((60, 8))
        digests = np.where(random.random(60) < 0.5, place, 100 + np.arange(60)).tolist()
        seen[modality] = signatures(values, digests, [each % 5 == 0 for each in digests])
    found = duplicates(names, splits, seen)

    def likeness(one: Signatures, a: int, b: int) -> float:
        if one.blank[a] or one.blank[b]:
            return 0.0
        if one.digests[a] == one.digests[b]:
            return 1.0
        return min(searching.NEARLY, float(one.values[a].astype(np.float32) @ one.values[b].astype(np.float32)))

    def every(a: int, b: int) -> float:
        said = [each for each in seen.values() if not (each.blank[a] and each.blank[b])]
        return min((likeness(each, a, b) for each in said), default=0.0)

    order = {"train": 0, "val": 1, "test": 2}
    measures = {EVERY: every} | {name: lambda a, b, each=each: likeness(each, a, b) for name, each in seen.items()}
    wanted = {}
    for a in range(60):
        for b in range(60):
            for modality, measure in measures.items():
                if order[splits[a]] > order[splits[b]] and (similarity := measure(a, b)) >= searching.ALIKE:
                    key = (modality, names[a], splits[b])
                    wanted[key] = max(wanted.get(key, 0.0), round(similarity, 4))
    keys = found.select("modality", "clip_id", "like_split").rows()
    assert dict(zip(keys, found["similarity"], strict=True)) == pytest.approx(wanted, abs=1e-4)
    assert len(keys) == len(wanted) > 20 and any(key[0] == EVERY for key in keys)
    told = summary(found, list(seen))
    assert sum(pair["clips"][EVERY]["alike"] for pair in told) == sum(key[0] == EVERY for key in keys)
    assert findings(found)


# --- signatures ---

IMAGE = Feature("image", "uint8", (3, 20, 20), (100.0,) * 3, (50.0,) * 3)
AUDIO = Feature("audio", "float32", (1, 30, 40), (-8.0,), (3.0,))
SEQUENCE = Feature("sequence", "float32", (6, 4), (0.0, 0.0, 0.0, 1e6), (1.0, 1.0, 1.0, 1e6))
TEXT = Feature("text", "int32", (8,), vocabulary=30)


def signed(feature: Feature, tensors: np.ndarray) -> Signatures:
    signer = Signer(feature)
    for start in range(0, len(tensors), 4):
        signer.add(torch.from_numpy(np.ascontiguousarray(tensors[start : start + 4], feature.dtype)))
    return signer.signatures()


def test_brightness_and_loudness_do_not_count() -> None:
    random = np.random.default_rng(0)
    pictures = np.stack([np.moveaxis(np.asarray(Image.fromarray(picture(n)).resize((20, 20))), 2, 0) for n in range(9)])
    pictures[8] = (0.8 * pictures[0] + 20).round()
    sounds = random.normal(-8, 3, size=(9, 1, 30, 40))
    sounds[8] = sounds[0] - 2.0  # the logarithm of a sound less loud
    for feature, tensors in ((IMAGE, pictures), (AUDIO, sounds)):
        values = signed(feature, tensors).values.astype(np.float32)
        products = values @ values.T
        assert products[0, 8] > 0.998
        assert products[0, 1:8].max() < 0.9


def test_what_shows_nothing_is_blank() -> None:
    random = np.random.default_rng(0)
    black = random.integers(0, 2, size=(4, 3, 20, 20))
    assert signed(IMAGE, np.concatenate([black, random.integers(256, size=(4, 3, 20, 20))])).blank.tolist() == (
        [True] * 4 + [False] * 4
    )
    assert signed(AUDIO, np.full((2, 1, 30, 40), -16.1)).blank.all()
    # Where every clip is constant there is no spread to compare with, and the mean of equal values is not quite theirs.
    flat = Feature("audio", "float32", (1, 30, 41), (0.3,), (0.0,))
    assert signed(flat, np.linspace(0.1, 0.9, 40).reshape(40, 1, 1, 1) * np.ones((1, 1, 30, 41))).blank.all()
    assert signed(TEXT, np.array([[5, 6, 7, 8, 0, 0, 0, 0], [5, 6, 7, 8, 9, 0, 0, 0]])).blank.tolist() == [True, False]


def test_one_large_channel_of_a_sequence_does_not_decide() -> None:
    random = np.random.default_rng(0)
    tensors = random.standard_normal((8, 6, 4))
    tensors[:, :, 3] = 1e6 * random.standard_normal((6,))  # the same in every clip
    values = signed(SEQUENCE, tensors).values.astype(np.float32)
    assert (values @ values.T)[np.triu_indices(8, 1)].max() < 0.9


def test_clips_without_anything_to_compare_are_no_duplicates() -> None:
    silent = signed(AUDIO, np.full((4, 1, 30, 40), -16.1))
    assert duplicates(["a", "b", "c", "d"], ["train", "val", "test", "test"], {"audio": silent}).is_empty()


# --- one clip ---


def test_one_clip_is_explained(inside: Pipeline, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["inspect", "test00"]) == 0
    lines = dict(line.split(None, 1) for line in capsys.readouterr().out.splitlines() if not line.startswith("looks"))
    assert lines["label"] == "a" and lines["split"] == "test" and lines["seconds"] == "1.20"
    assert lines["image"] == "test00.png" and lines["picture"] == "inspected/test00.png"
    with Image.open("inspected/test00.png") as image:
        assert image.format == "PNG" and len(set(image.convert("L").tobytes())) > 50
    assert cli.main(["inspect", "train01"]) == 0
    assert "looks like  test01 of test in every modality (0.99" in capsys.readouterr().out


def test_a_clip_in_quarantine_is_explained(inside: Pipeline, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["inspect", "train15"]) == 0
    printed = capsys.readouterr().out
    assert "left out    by ingest, audio: not a video or sound file" in printed
    assert "split       train" in printed and "picture     none" in printed


def test_an_unknown_clip_is_refused(inside: Pipeline, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["inspect", "../train00"]) == 1
    assert "has no clip '../train00'" in capsys.readouterr().err


def test_the_name_of_the_data_set_is_the_whole_job(inside: Pipeline) -> None:
    index, sheet = ((inside.data / name) for name in ("inspection.json", "contact_sheet.png"))
    before = sheet.read_bytes(), (inside.data / "duplicates.parquet").read_bytes()
    index.unlink()
    assert cli.main(["inspect", "spoken_digits"]) == 0
    assert index.exists() and (sheet.read_bytes(), (inside.data / "duplicates.parquet").read_bytes()) == before


# --- the contact sheet ---


def test_the_first_clips_of_each_class_are_chosen() -> None:
    def clips(classes: int) -> pl.DataFrame:
        return pl.DataFrame(
            {"clip_id": [f"c{number}" for number in range(60)], "label": [n % classes for n in range(60)]}
        )

    assert choose(clips(2))["clip_id"].to_list() == ["c0", "c2", "c1", "c3"]
    assert choose(clips(10))["clip_id"].to_list() == [f"c{number}" for number in range(10)]
    assert len(choose(clips(30))) == 12


def test_every_kind_of_modality_can_be_drawn(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    features = {
        "video": Feature("video", "uint8", (6, 3, 16, 16)),
        "flow": Feature("video", "uint8", (2, 4, 16, 16)),
        "image": Feature("image", "float32", (1, 16, 16)),
        "audio": AUDIO,
        "array": SEQUENCE,
        "text": TEXT,
        "vectors": SEQUENCE,
    }
    tensors = {name: random.integers(0, 255, size=each.shape).astype(each.dtype) for name, each in features.items()}
    texts = {
        "text": Transcript("costs $5, or 漢字, or " + "very " * 200 + "much", "costs □ or □ [200 more]"),
        "vectors": Transcript("a text of which networks see vectors", None),
    }
    del tensors["array"]
    clip = Shown("an id that is far too long for one line of it", "test", "a label of many words", 1.5, tensors, texts)
    draw([clip, clip], features, tmp_path / "a.png")
    draw([clip, clip], features, tmp_path / "b.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    with Image.open(tmp_path / "a.png") as image:
        assert image.width > 1000 and len(image.getcolors(1 << 20)) > 100


def test_clips_without_duration_have_no_histogram() -> None:
    clips = pl.DataFrame({"split": ["train"], "duration": [None]}, schema={"split": pl.String, "duration": pl.Float64})
    assert durations(clips) is None
