"""Seeing the data: planted duplicates are found and others are not, one clip is explained, everything can be drawn."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from PIL import Image

from agm.pipeline import cli
from agm.pipeline.io.files import read_json, write_json
from agm.pipeline.io.tensors import Feature
from agm.pipeline.steps.inspect import duplicates as searching
from agm.pipeline.steps.inspect import step
from agm.pipeline.steps.inspect.duplicates import EVERY, duplicates, findings, summary
from agm.pipeline.steps.inspect.sheet import Shown, draw
from agm.pipeline.steps.inspect.signature import Signatures, Signer
from agm.pipeline.steps.inspect.step import choose, durations
from agm.pipeline.steps.inspect.transcript import Transcript
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
            "+features.text={max_tokens: 8, max_vocabulary: 6}",
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
    manifest, inspect = (inside.graph.job(step) for step in ("ingest", "inspect"))
    written, index = manifest.index.read_bytes(), read_json(manifest.index)
    write_json(manifest.index, index | {"leaks": ["3 actors of test are in train too"]})
    leaks = step.run(inside.params, inspect)["leaks"]
    assert leaks[0] == "3 actors of test are in train too" and len(leaks) == 2
    manifest.index.write_bytes(written)


def signatures(values: np.ndarray, digests: np.ndarray, blank: np.ndarray, random: np.random.Generator) -> Signatures:
    unit = values / np.linalg.norm(values, axis=1, keepdims=True)
    unit[blank] = 0
    levels = random.integers(3, size=(len(values), 2)).astype(np.float32)
    # Equal tensors have equal contrast.
    contrast = np.array([0.0, 0.9, 1.1], np.float32)[digests % 3]
    return Signatures(unit.astype(np.float16), digests.astype(np.uint64), blank, levels, contrast)


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
        digests = np.where(random.random(60) < 0.5, place, 100 + np.arange(60))
        seen[modality] = signatures(values, digests, digests % 5 == 0, random)
    # A text: no values and no levels, and two short ones are the same where they are equal.
    nothing = np.empty((60, 0), np.float32)
    seen["text"] = Signatures(nothing, digests.astype(np.uint64), digests % 5 == 0, nothing, np.zeros(60, np.float32))
    found = duplicates(names, splits, seen)

    def likeness(one: Signatures, a: int, b: int) -> float:
        if one.blank[a] or one.blank[b]:
            return 0.0
        if one.digests[a] == one.digests[b]:
            return 1.0
        if abs(one.contrast[a] - one.contrast[b]) > 1:
            return 0.0
        return min(searching.NEARLY, float(one.values[a].astype(np.float32) @ one.values[b].astype(np.float32)))

    def same(one: Signatures, a: int, b: int) -> float:
        if not (one.blank[a] and one.blank[b]):
            return likeness(one, a, b)
        near = one.values.shape[1] > 0 and (np.abs(one.levels[a] - one.levels[b]) <= 1).all()
        return float(one.digests[a] == one.digests[b] or near)

    def every(a: int, b: int) -> float:
        if all(each.blank[a] for each in seen.values()) or all(each.blank[b] for each in seen.values()):
            return 0.0
        return min(same(each, a, b) for each in seen.values())

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


def signed(feature: Feature, tensors: np.ndarray, texts: list[str] | None = None) -> Signatures:
    names = [f"clip{number}" for number in range(len(tensors))]
    signer = Signer(feature, None if texts is None else dict(zip(names, texts, strict=True)))
    for start in range(0, len(tensors), 4):
        batch = torch.from_numpy(np.ascontiguousarray(tensors[start : start + 4], feature.dtype))
        signer.add(names[start : start + 4], batch)
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
    texts = np.array([[5, 6, 7, 8, 0, 0, 0, 0], [5, 6, 7, 8, 9, 0, 0, 0]])
    assert signed(TEXT, texts, ["a", "b"]).blank.tolist() == [True, False]


def test_one_large_channel_of_a_sequence_does_not_decide() -> None:
    random = np.random.default_rng(0)
    tensors = random.standard_normal((8, 6, 4))
    tensors[:, :, 3] = 1e6 * random.standard_normal((6,))  # the same in every clip
    values = signed(SEQUENCE, tensors).values.astype(np.float32)
    assert (values @ values.T)[np.triu_indices(8, 1)].max() < 0.9


def test_clips_without_anything_to_compare_are_no_duplicates() -> None:
    silent = signed(AUDIO, np.full((4, 1, 30, 40), -16.1))
    assert duplicates(["a", "b", "c", "d"], ["train", "val", "test", "test"], {"audio": silent}).is_empty()


def circle(colour: tuple[int, int, int], ground: tuple[int, int, int] = (255, 255, 255)) -> np.ndarray:
    """A disc, uint8 [3, 20, 20]."""
    down, across = np.mgrid[:20, :20] - 9.5
    return np.moveaxis(np.where(np.hypot(down, across)[:, :, None] < 7, colour, ground).astype(np.uint8), 2, 0)


PURPLE, ORANGE = (170, 86, 187), (200, 120, 12)
"""Of the same brightness: as gray pictures they are equal."""


@pytest.mark.parametrize("kind", ["image", "video", "array"])
def test_colour_counts(kind: str) -> None:
    others = np.stack([np.moveaxis(np.asarray(Image.fromarray(picture(n)).resize((20, 20))), 2, 0) for n in range(9)])
    brighter = (0.9 * circle(PURPLE) + 20).round()
    tensors = np.stack([circle(PURPLE), circle(ORANGE), brighter, *others])
    feature = IMAGE
    if kind == "video":
        feature = Feature("video", "uint8", (4, 3, 20, 20), (100.0,) * 3, (50.0,) * 3)
        tensors = np.repeat(tensors[:, None], 4, axis=1)
    if kind == "array":
        feature = Feature("image", "float32", (3, 20, 20), (100.0,) * 3, (50.0,) * 3)
    names, splits = [f"clip{number}" for number in range(12)], ["train", "test", "val", *["train"] * 9]
    found = duplicates(names, splits, {"seen": signed(feature, tensors)})
    assert found.filter(modality=EVERY).select("clip_id", "like").rows() == [("clip2", "clip0")]


def test_black_on_white_is_not_light_gray_on_white() -> None:
    others = [np.moveaxis(np.asarray(Image.fromarray(picture(n)).resize((20, 20))), 2, 0) for n in range(9)]
    tensors = np.stack([circle((0, 0, 0)), circle((230, 230, 230)), circle((60, 60, 60)), *others])
    names, splits = [f"clip{number}" for number in range(12)], ["train", "test", "val", *["train"] * 9]
    found = duplicates(names, splits, {"image": signed(IMAGE, tensors)})
    assert found.filter(modality=EVERY).select("clip_id", "like").rows() == [("clip2", "clip0")]


def test_an_array_of_many_channels_is_compared_channel_by_channel() -> None:
    random = np.random.default_rng(0)
    feature = Feature("image", "float32", (6, 20, 20), (0.0,) * 5 + (1e6,), (1.0,) * 5 + (1e6,))
    tensors = random.normal(size=(9, 6, 1, 1)) + random.normal(size=(9, 6, 20, 20)) / 9
    tensors[:, 5] = 1e6 * random.normal()  # the same in every clip
    tensors[8] = tensors[0]
    found = duplicates([f"c{n}" for n in range(9)], ["train"] * 8 + ["test"], {"array": signed(feature, tensors)})
    assert found.filter(modality=EVERY).select("clip_id", "like").rows() == [("c8", "c0")]


def test_flow_to_the_right_is_not_flow_to_the_left() -> None:
    feature = Feature("video", "uint8", (4, 4, 16, 16), (128.0,) * 4, (20.0,) * 4)
    blobs = np.kron(np.random.default_rng(0).integers(-60, 60, (9, 2, 4, 4)), np.ones((4, 4)))
    flows = np.tile(128 + blobs, (1, 2, 1, 1))[:, None].repeat(4, axis=1)
    flows[1] = flows[0][:, [1, 0, 3, 2]]  # across and down change places, and their mean stays
    flows[2] = flows[0]
    found = duplicates(
        [f"c{n}" for n in range(9)], ["train", "test", "val", *["train"] * 6], {"f": signed(feature, flows)}
    )
    assert found.filter(modality=EVERY).select("clip_id", "like").rows() == [("c2", "c0")]


def test_every_means_every_modality_texts_included() -> None:
    pictures = np.stack([np.moveaxis(np.asarray(Image.fromarray(picture(n)).resize((20, 20))), 2, 0) for n in range(5)])
    pictures = np.concatenate([pictures, pictures])
    # The ids of short texts, and of long ones that are equal as far as a network is given them.
    unknown, long = [1, 0, 0, 0, 0, 0, 0, 0], [2, 3, 4, 5, 6, 7, 8, 9]
    ids = np.array([unknown, unknown, unknown, long, long] * 2)
    texts = ["aa", "ab", "ac", "ad", "ae", "aa", "bb", "bc", "ad", "be"]
    seen = {"image": signed(IMAGE, pictures), "text": signed(TEXT, ids, texts)}
    names = [f"{split}{number}" for split in ("train", "test") for number in range(5)]
    found = duplicates(names, ["train"] * 5 + ["test"] * 5, seen)

    def pairs(modality: str) -> list[tuple[str, str]]:
        return sorted(found.filter(modality=modality).select("clip_id", "like").rows())

    assert pairs("image") == [(f"test{number}", f"train{number}") for number in range(5)]
    assert pairs("text") == [("test3", "train3")], "short texts alone tell nothing"
    assert pairs(EVERY) == [("test0", "train0"), ("test3", "train3")]


def test_pictures_of_one_colour_are_the_same_where_the_colour_is() -> None:
    sounds = np.random.default_rng(0).normal(-8, 3, size=(4, 1, 30, 40))
    colours = ((250, 250, 250), (0, 0, 0), (200, 60, 60), (60, 60, 200))
    flat = [np.broadcast_to(np.array(each)[:, None, None], (3, 20, 20)) for each in colours]
    pictures = np.stack([*flat, flat[0] - 1, flat[0], flat[2], flat[2]])
    names = [f"{split}{number}" for split in ("train", "test") for number in range(4)]
    seen = {"image": signed(IMAGE, pictures), "audio": signed(AUDIO, np.concatenate([sounds, sounds]))}
    found = duplicates(names, ["train"] * 4 + ["test"] * 4, seen)
    assert found.filter(modality="image").is_empty(), "alone it tells nothing"
    every = found.filter(modality=EVERY).select("clip_id", "like").rows()
    assert sorted(every) == [("test0", "train0"), ("test2", "train2")]


def test_texts_are_the_same_by_what_they_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through the steps: `probe` reads the texts, of files, and ids cannot tell them apart."""
    raw = tmp_path / "raw"
    raw.mkdir()
    rows = ["clip_id,split,label,image,audio,text"]
    for split in ("train", "val", "test"):
        for number in range(8):
            name = f"{split}{number}"
            write_image(raw / f"{name}.png", picture(number))
            write_wav(raw / f"{name}.wav", sound(number), RATE)
            (raw / f"{name}.txt").write_text(f"{text(number)} and at the end {split if number else 'alike'}")
            rows.append(f"{name},{split},{'ab'[number % 2]},{name}.png,{name}.wav,{name}.txt")
    alike = (raw / "train0.txt").read_text().upper() + "\n"
    (raw / "test0.txt").write_text(alike.replace(" ", "\N{SOFT HYPHEN}  ", 1))
    (raw / "manifest.csv").write_text("\n".join(rows) + "\n")
    made = Pipeline(
        tmp_path / "study",
        monkeypatch,
        "study=spoken_digits",
        f"dataset.root={raw}",
        "+dataset.modalities.text={kind: text, column: text}",
        "features.image={size: 32, channels: 3}",
        "+features.text={max_tokens: 6, max_vocabulary: 4}",
        "+encoders.text={name: transformer}",
    )
    made.run((*STEPS, "inspect"))
    counts = {
        (pair["split"], pair["in"]): pair["clips"] for pair in read_json(made.data / "inspection.json")["duplicates"]
    }
    assert counts["test", "train"]["image"]["alike"] == 8
    assert counts["test", "train"]["text"] == counts["test", "train"][EVERY] == {"alike": 1, "identical": 1}
    assert all(
        "0" in row["clip_id"]
        for row in pl.read_parquet(made.data / "duplicates.parquet").filter(modality=EVERY).to_dicts()
    )


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
    assert "quarantined by ingest, audio: not a video or sound file" in printed
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
