"""Texts that stand in the cells of a CSV: read as they are, told from names of files, shown as a person reads them."""

import csv
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from matplotlib import font_manager, get_data_path
from PIL import Image

from agm.pipeline import cli
from agm.pipeline.config.schema import Dataset
from agm.pipeline.errors import AgmError
from agm.pipeline.io.files import read_json
from agm.pipeline.io.tensors import Feature
from agm.pipeline.steps.ingest.adapters import read
from agm.pipeline.steps.ingest.listing import look
from agm.pipeline.steps.inspect.fonts import Fonts
from agm.pipeline.steps.inspect.transcript import transcripts
from clone import ROOT
from media import write_image
from pipeline import STEPS, Pipeline

EMOJI = ROOT.parent / "shared/data/emoji"
IMAGE_AND_TEXT = (
    "study=spoken_digits",
    "dataset.group=group",
    "~dataset.modalities.audio",
    "~features.audio",
    "~encoders.audio",
    "+dataset.modalities.text={kind: text, column: text}",
    "+encoders.text={name: transformer}",
    "features.image={size: 16, channels: 3}",
)
TEXTS = ("grinning face", "cara sonriendo", "嘿嘿", "笑っている顔", "ใบหน้ายิ้ม", "so 👍🏽 good")


def dataset(root: Path, *texts: str, choice: str | None = None) -> Dataset:
    root.mkdir(exist_ok=True)
    with open(root / "clips.csv", "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("clip_id", "label", "text"), *((n, n % 2, text) for n, text in enumerate(texts))])
    return Dataset(
        name="own",
        adapter="manifest",
        root=str(root),
        annotations={"clips": str(root / "clips.csv")},
        modalities={"text": {"kind": "text", "column": "text"}},
        texts=choice,
    )


def texts_of(data: Dataset) -> list[str | None]:
    return [clip.sources["text"].text if "text" in clip.sources else None for clip in read(data)]


# --- texts or files ---


def test_sentences_are_texts_as_they_are(tmp_path):
    texts = [*TEXTS, "two\nlines", "costs $5, or ../etc/passwd", "/etc/hostname is a file.", "?" * 300, "1"]
    assert texts_of(dataset(tmp_path, *texts)) == texts


@pytest.mark.parametrize("names", [("a.txt", "sub/b.txt"), ("a", "b c"), ("0.text", "my text.TXT")])
def test_names_of_files_are_files(tmp_path, names):
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("a word")
    clips = read(dataset(tmp_path, *names))
    assert [clip.sources["text"].path for clip in clips] == list(names)


def test_names_of_files_that_are_not_there_are_not_taken_for_texts(tmp_path):
    data = dataset(tmp_path, "texts/0.txt", "texts/1.txt")
    with pytest.raises(AgmError) as error:
        look(data, read(data))
    message = str(error.value)
    assert message.count("row 2: text: file not found: texts/0.txt") == 1
    assert "if the cells are texts and no paths: agm compose … dataset.texts=cells" in message


def test_the_key_has_the_last_word(tmp_path):
    (tmp_path / "a.txt").write_text("a word")
    assert texts_of(dataset(tmp_path, "a.txt", choice="cells")) == ["a.txt"]
    assert read(dataset(tmp_path, "a sentence", choice="files"))[0].sources["text"].path == "a sentence"


def test_an_empty_or_missing_cell_is_no_text(tmp_path):
    assert texts_of(dataset(tmp_path, "a sentence", "", "NaN", "  ")) == ["a sentence", None, None, None]


def test_texts_in_cells_and_in_files_have_the_same_limits(tmp_path, monkeypatch):
    long, blank = f"{'word ' * 40_000}end", "\N{ZERO WIDTH SPACE} \N{SOFT HYPHEN}"
    texts = {"fits": "word " * 10, "long": long, "blank": blank, "none": "…!", "fits too": "e f"}
    texts |= {"a": "a b", "b": "c d", "c": "a c", "d": "b d", "e": "a d"}
    rows = [
        f'{name},{split},{n % 2},"{text}",{name}.txt'
        for n, ((name, text), split) in enumerate(
            zip(texts.items(), (*["train"] * 5, *["val"] * 2, *["test"] * 3), strict=True)
        )
    ]
    root = tmp_path / "raw"
    root.mkdir()
    for name, text in texts.items():
        (root / f"{name}.txt").write_text(text, encoding="utf-8")
    (root / "manifest.csv").write_text("\n".join(["clip_id,split,label,cell,file", *rows, ""]), encoding="utf-8")
    found = {}
    for column in ("cell", "file"):
        pipeline = Pipeline(
            tmp_path / column,
            monkeypatch,
            "study=spoken_digits",
            f"dataset.root={root}",
            "dataset.limits.text_bytes=150000",
            "~dataset.modalities",
            f"+dataset.modalities={{text: {{kind: text, column: {column}}}}}",
            "~features",
            "+features={text: {max_tokens: 4}}",
            "~encoders",
            "+encoders={text: {name: transformer}}",
        ).run()
        assert set(pl.read_parquet(pipeline.data / "clips.parquet")["text"].struct["path"].is_null()) == {
            column == "cell"
        }
        found[column] = pipeline.quarantine
    assert found["cell"].pop("blank") == "the annotations name no file for text"
    assert found["file"].pop("blank") == "the text is blank"
    assert (
        found["cell"]
        == found["file"]
        == {
            "long": "the text has 200,003 bytes, more than dataset.limits.text_bytes = 150,000",
            "none": "the text holds no word",
        }
    )


# --- what a person sees, and what the network gets ---


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    """Pictures with alpha and a text in a cell, two of each group."""
    folder = tmp_path_factory.mktemp("emoji")
    rows = []
    for number in range(24):
        name = f"g{number:02}"
        pixels = np.random.default_rng(number).integers(0, 255, (24, 24, 4)).astype(np.uint8)
        (folder / "raw").mkdir(exist_ok=True)
        write_image(folder / f"raw/{name}.png", pixels)
        split = ("train", "train", "val", "test")[number // 2 % 4]
        rows.append((name, f"{name}.png", TEXTS[number % 6], "ab"[number % 2], number // 2, split))
    with open(folder / "raw/manifest.csv", "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("clip_id", "image", "text", "label", "group", "split"), *rows])
    with pytest.MonkeyPatch.context() as patch:
        root = f"dataset.root={folder / 'raw'}"
        made = Pipeline(folder / "work", patch, *IMAGE_AND_TEXT, root, "+features.text={max_tokens: 3, min_count: 2}")
        made.folder = folder / "work"
        return made.run((*STEPS, "inspect"))


def test_the_inspection_tells_both(study, monkeypatch):
    monkeypatch.chdir(study.folder)
    texts = {each["clip_id"]: each for each in read_json(study.data / "inspection.json")["texts"]}
    assert {each["person"] for each in texts.values()} <= set(TEXTS)
    for each in texts.values():
        if each["person"] == "grinning face":
            assert each["network"] in (None, "grinning face", "□ □")
        if each["person"] == "笑っている顔":
            assert each["network"].endswith("[3 more]") and len(each["network"].split()) == 5
    with Image.open(study.data / "contact_sheet.png") as sheet:
        assert len(sheet.convert("RGB").getcolors(1 << 20)) > 100


def shown(study: Pipeline, ids: list[int], text: str | None, path: str | None = None) -> tuple[str | None, str | None]:
    clip = {"text": {"text": text, "path": path}}
    features = {"text": Feature("text", "int32", (3,), vocabulary=40)}
    found = transcripts(study.params, clip, {"text": np.array(ids, np.int32)}, features)["text"]
    return found.person, found.network


def test_the_network_is_shown_only_where_it_gets_something_else(study, monkeypatch):
    monkeypatch.chdir(study.folder)
    words = read_json(study.data / "features/text/part-0.json")["feature"]["vocabulary"]
    first, second = words[0], words[1]
    assert shown(study, [2, 3, 0], f"{first.upper()}, {second}!") == (f"{first.upper()}, {second}!", None)
    assert shown(study, [2, 1, 0], f"{first} zebra") == (f"{first} zebra", f"{first} □")
    assert shown(study, [2, 3, 2], f"{first} {second} " * 2)[1] == f"{first} {second} {first} [1 more]"


def test_of_a_text_in_a_file_a_person_sees_the_file(study, monkeypatch):
    monkeypatch.chdir(study.folder)
    path = Path(study.params.dataset.root, "own.txt")
    path.write_text("A zebra.", encoding="utf-8")
    assert shown(study, [1, 1, 0], None, "own.txt") == ("A zebra.", "□ □")
    path.unlink()
    assert shown(study, [1, 1, 0], None, "own.txt") == (None, "□ □")


def test_what_no_font_draws_is_named(monkeypatch):
    """On a machine that has the fonts of matplotlib alone; one of them may claim to have every character."""
    brought = [each for each in font_manager.fontManager.ttflist if Path(each.fname).is_relative_to(get_data_path())]
    monkeypatch.setattr(font_manager.fontManager, "ttflist", brought)
    fonts = Fonts("a 嘿嘿 b ใบ ❤\ufe0f")
    assert fonts.families == ["DejaVu Sans"]
    assert fonts.drawable("a 嘿嘿 b ❤\ufe0f") == "a [2 × CJK, no font] b ❤"
    assert fonts.drawable("ใบ") == "[2 × THAI, no font]"


def test_fonts_of_the_machine_are_used_for_what_the_first_lacks(tmp_path, monkeypatch):
    """The mathematical font that matplotlib brings has signs that DejaVu Sans has not."""
    cmex = next(
        each for each in font_manager.fontManager.ttflist if each.name == "STIXGeneral" and each.style == "normal"
    )
    letters = set(map(chr, font_manager.get_font(cmex.fname).get_charmap()))
    first = set(map(chr, font_manager.get_font(font_manager.findfont("DejaVu Sans")).get_charmap()))
    sign = min(each for each in letters - first if each.isprintable())
    monkeypatch.setattr(font_manager.fontManager, "ttflist", [cmex])
    fonts = Fonts(f"a{sign}")
    assert fonts.families == ["DejaVu Sans", "STIXGeneral"] and fonts.drawable(sign) == sign


# --- the real data ---


@pytest.mark.skipif(not EMOJI.is_dir(), reason=f"the pictures of emoji are not at {EMOJI}")
def test_the_emoji_run_as_they_are(tmp_path, monkeypatch):
    # A third of them: a language with spaces and one without.
    table = pl.read_csv(EMOJI / "manifest.csv").filter(pl.col("language").is_in(["en", "zh"]))
    table.write_csv(tmp_path / "manifest.csv")
    chosen = (f"dataset.root={EMOJI}", f"dataset.annotations.clips={tmp_path}/manifest.csv")
    pipeline = Pipeline(tmp_path, monkeypatch, *IMAGE_AND_TEXT, *chosen, "+features.text={max_tokens: 24}")
    pipeline.run((*STEPS, "inspect"))
    assert pipeline.index["clips"] == dict(table["split"].value_counts().iter_rows()) and len(table) > 300
    assert pipeline.index["leaks"] == [] and len(pipeline.index["classes"]) == 8 and pipeline.quarantine == {}
    names = dict(table.select("clip_id", "text").iter_rows())
    inspection = read_json(pipeline.data / "inspection.json")
    for each in inspection["texts"]:
        assert each["person"] == names[each["clip_id"]]
    assert inspection["flaws"] == {} and inspection["blank"] == {"image": 0} and inspection["leaks"] == []
    # Most corners are transparent, and seen white.
    pictures = pl.read_parquet(pipeline.data / "features/image/part-0.parquet")["tensor"]
    corners = [np.frombuffer(each, np.uint8).reshape(3, 16, 16)[:, 0, 0] for each in pictures]
    assert np.all(np.array(corners) == 255, axis=1).mean() > 0.8
    assert cli.main(["inspect", table["clip_id"][0]]) == 0
    # A text of a language without spaces has more words than one, and most of them are known from training.
    ids = pl.read_parquet(pipeline.data / "features/text/part-0.parquet")
    found = {name: np.frombuffer(each, np.int32) for name, each in ids.select("clip_id", "tensor").iter_rows()}
    chinese = table.filter(language="zh", split="test")["clip_id"].to_list()
    numbers = np.concatenate([found[name][found[name] > 0] for name in chinese])
    assert len(numbers) / len(chinese) > 2 and (numbers == 1).mean() < 0.4
