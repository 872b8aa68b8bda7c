"""UPMC Food-101: tables of titles, a folder of texts and MMBT's lists; and a small tree in the official layout."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agm.pipeline.config.schema import Dataset, Split
from agm.pipeline.errors import AgmError
from agm.pipeline.io.source import Source
from agm.pipeline.steps.ingest.adapters import read
from agm.pipeline.steps.ingest.clip import Clip
from media import write_image
from pipeline import Pipeline


def dataset(root: Path, scheme: str | None = None, **annotations: Path) -> Dataset:
    return Dataset(
        name="upmc_food101",
        adapter="upmc_food101",
        root=str(root),
        annotations={key: str(path) for key, path in annotations.items()},
        modalities={name: {"kind": name, "column": name} for name in ("image", "text")},
        split=Split(scheme=scheme),
    )


def titles(root: Path, train: bytes, test: bytes = b"") -> Dataset:
    (root / "texts").mkdir(parents=True, exist_ok=True)
    paths = {}
    for half, content in (("train", train), ("test", test)):
        paths[f"{half}_titles"] = root / f"texts/{half}_titles.csv"
        paths[f"{half}_titles"].write_bytes(content)
    return dataset(root, **paths)


def by_name(data: Dataset) -> dict[str, Clip]:
    return {clip.clip_id: clip for clip in read(data)}


# --- titles ---


def test_titles_with_commas_and_quotes(tmp_path):
    train = (
        b'\xef\xbb\xbfapple_pie_0.jpg,"Apple Pie, the ""best"" of all",apple_pie\r\n'
        b'apple_pie_1.jpg,Say "pie" now,apple_pie\r\n'
        b"apple_pie_2.jpg,Apples, pears and more,apple_pie\r\n"
        b'pho_10.jpg,"Pho\nin two lines",pho\r\n'
        b"pho_11.jpg,,pho\r\n"
    )
    clips = by_name(titles(tmp_path, train, b"pho_3.jpg,Pho \xe2\x80\x93 soup,pho\n"))
    assert [clip.sources["text"].text for clip in clips.values()] == [
        'Apple Pie, the "best" of all',
        'Say "pie" now',
        "Apples, pears and more",
        "Pho\nin two lines",
        "",
        "Pho – soup",
    ]
    assert clips["pho_10"] == Clip(
        "pho_10",
        "train",
        "pho",
        None,
        {"image": Source("images/train/pho/pho_10.jpg"), "text": clips["pho_10"].sources["text"]},
        4,
    )
    assert clips["pho_3"].split == "test" and clips["pho_3"].sources["image"].path == "images/test/pho/pho_3.jpg"
    assert clips["pho_11"].row == 6


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (b"pho_2.jpg,pho\n", "row 2: not `<class>_<number>.jpg,<title>,<class>`"),
        (b"image,title,class\n", "row 2: not `<class>_<number>.jpg,<title>,<class>`"),
        (b"../../pho_2.jpg,Pho,pho\n", "row 2: not `<class>_<number>.jpg,<title>,<class>`"),
        (b"pho_2.jpg,Pho,ramen\n", "row 2: the image pho_2.jpg cannot be of the class 'ramen'"),
        (b"pho_1.jpg,Pho,pho\n", "row 2: pho_1 is in row 1 of the train list already"),
        (b'pho_2.jpg,"Pho,pho\n', "row 2: "),
    ],
)
def test_wrong_rows_are_refused_with_file_and_row(tmp_path, row, expected):
    with pytest.raises(AgmError) as error:
        read(titles(tmp_path, b"pho_1.jpg,Pho,pho\n" + row))
    assert expected in str(error.value) and "train_titles.csv" in str(error.value)


def test_an_image_in_both_tables_is_refused(tmp_path):
    with pytest.raises(AgmError, match="pho_1 is in row 1 of the train list already"):
        read(titles(tmp_path, b"pho_1.jpg,Pho,pho\n", b"pho_1.jpg,Pho,pho\n"))


VALID = b'apple_pie_0.jpg,"Pie, warm",apple_pie\npho_1.jpg,Pho,pho\nramen_2.jpg,Ramen,ramen\n'


@settings(max_examples=50, deadline=None)
@given(st.integers(0, len(VALID) - 1), st.integers(0, 8), st.binary(max_size=8))
def test_no_edit_of_the_titles_ends_in_a_traceback_or_a_wrong_label(tmp_path_factory, place, length, new):
    data = titles(tmp_path_factory.mktemp("titles"), VALID[:place] + new + VALID[place + length :])
    try:
        clips = read(data)
    except AgmError as error:
        assert "train_titles.csv" in str(error)
        return
    assert all(clip.clip_id.startswith(f"{clip.label}_") for clip in clips)


# --- the folder of texts ---


def test_texts_are_in_the_split_of_their_image(tmp_path):
    for path in ("images/train/pho/pho_1.jpg", "images/test/pho/pho_2.JPG", "images/train/pho/pho_4.jpg"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    (tmp_path / "images/test/pho/pho_4.jpg").touch()
    texts = tmp_path / "texts_txt"
    (texts / "pho").mkdir(parents=True)
    for name in ("pho_1.txt", "pho_2.txt", "pho_3.txt", "pho_4.txt", "._pho_1.txt", "notes.md"):
        (texts / "pho" / name).write_text("Pho")
    clips = by_name(dataset(tmp_path, texts=texts))
    assert list(clips) == ["pho_1", "pho_2", "pho_3", "pho_4"]
    assert clips["pho_1"].sources == {
        "image": Source("images/train/pho/pho_1.jpg"),
        "text": Source("texts_txt/pho/pho_1.txt"),
    }
    assert clips["pho_2"].split == "test" and clips["pho_2"].sources["image"].path == "images/test/pho/pho_2.JPG"
    assert clips["pho_3"].sources["image"].path == "images/train/pho/pho_3.jpg", "missing: it costs its clip"
    assert clips["pho_4"].left_out == "images of that name are in train and in test"


def test_texts_elsewhere_are_refused(tmp_path):
    (tmp_path / "root").mkdir()
    (tmp_path / "texts_txt").mkdir()
    with pytest.raises(AgmError, match="The folder of texts does not lie below"):
        read(dataset(tmp_path / "root", texts=tmp_path / "texts_txt"))


# --- MMBT's lists ---


def mmbt(root: Path, **more: str) -> Dataset:
    paths = {}
    for number, name in enumerate(("train", "dev", "test")):
        half = "test" if name == "test" else "train"
        row = {
            "id": f"pho_pho_{number}.jpg",
            "label": "pho",
            "text": "a soup",
            "img": f"images/{half}/pho/pho_{number}.jpg",
        }
        paths[f"mmbt_{name}"] = root / f"{name}.jsonl"
        paths[f"mmbt_{name}"].write_text(json.dumps(row) + "\n" + more.get(name, ""))
    return dataset(root, "mmbt", **paths)


def test_the_lists_of_mmbt(tmp_path):
    clips = read(mmbt(tmp_path))
    assert [(clip.clip_id, clip.split, clip.label) for clip in clips] == [
        ("pho_0", "train", "pho"),
        ("pho_1", "val", "pho"),
        ("pho_2", "test", "pho"),
    ]
    assert clips[2].sources == {"image": Source("images/test/pho/pho_2.jpg"), "text": Source(text="a soup")}


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ("{\n", "row 2: not a JSON object with the texts label, text and img"),
        ("[1, 2]\n", "row 2: not a JSON object"),
        ('{"label": "pho", "text": "a"}\n', "row 2: not a JSON object"),
        ('{"label": "pho", "text": "a", "img": 3}\n', "row 2: not a JSON object"),
        ('{"label": "pho", "text": 1, "img": "images/train/pho/pho_9.jpg"}\n', "row 2: not a JSON object"),
        ('{"label": "pho", "text": "\\ud800", "img": "images/train/pho/pho_9.jpg"}\n', "row 2: not a JSON object"),
        ('{"label": "pho", "text": "a", "img": "../pho_9.jpg"}\n', "row 2: not `images/"),
        ('{"label": "ramen", "text": "a", "img": "images/train/pho/pho_9.jpg"}\n', "cannot be of the class 'ramen'"),
        ('{"label": ["pho"], "text": "a", "img": "images/train/pho/pho_9.jpg"}\n', "row 2: not a JSON object"),
        (
            '{"label": "pho", "text": "a", "img": "images/train/pho/pho_0.jpg"}\n',
            "row 2: pho_0 is in row 1 of the train",
        ),
    ],
)
def test_wrong_rows_of_mmbt_are_refused(tmp_path, row, expected):
    with pytest.raises(AgmError) as error:
        read(mmbt(tmp_path, dev=row))
    assert expected in str(error.value) and "dev.jsonl" in str(error.value)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 80), st.integers(0, 8), st.binary(max_size=8))
def test_no_edit_of_a_list_ends_in_a_traceback_or_a_wrong_label(tmp_path_factory, place, length, new):
    data = mmbt(tmp_path_factory.mktemp("mmbt"))
    path = Path(data.annotations["mmbt_train"])
    content = path.read_bytes()
    path.write_bytes(content[:place] + new + content[place + length :])
    try:
        clips = read(data)
    except AgmError as error:
        assert ".jsonl" in str(error)
        return
    assert all(clip.clip_id.startswith(f"{clip.label}_") for clip in clips)


# --- from the raw folder to a trained network ---


def tree(root: Path) -> None:
    """Twelve images of two classes with their titles; some are missing, damaged, or have a blank title."""
    chance = np.random.default_rng(0)
    rows = {"train": [], "test": []}
    for label in ("apple_pie", "pho"):
        for number in range(12):
            half = "test" if number >= 9 else "train"
            folder = root / "images" / half / label
            folder.mkdir(parents=True, exist_ok=True)
            write_image(folder / f"{label}_{number}.jpg", chance.integers(0, 255, (20, 24, 3), dtype=np.uint8))
            rows[half].append(f'{label}_{number}.jpg,"{label}, number {number}",{label}\n')
    pho = root / "images/train/pho"
    (pho / "pho_0.jpg").unlink()
    (pho / "pho_1.jpg").write_bytes((pho / "pho_2.jpg").read_bytes()[:200])
    (pho / "pho_3.jpg").write_bytes(b"<html>404</html>")
    rows["train"].append("pho_99.jpg,,pho\n")
    write_image(pho / "pho_99.jpg", np.zeros((8, 8), np.uint8))
    titles(root, "".join(rows["train"]).encode(), "".join(rows["test"]).encode())


SMALL = ("study=upmc_food101", "trainer=small", "encoder@encoders.image=conv", "features.image.size=16")


def test_from_the_official_folder_to_a_trained_network(tmp_path, monkeypatch):
    tree(tmp_path / "raw")
    run = Pipeline(tmp_path / "run", monkeypatch, *SMALL, f"dataset.root={tmp_path}/raw").run()
    assert run.train()
    reasons = run.quarantine
    assert reasons["pho_0"] == "the file is not there"
    assert reasons["pho_1"].startswith("the image is damaged") and reasons["pho_3"].startswith("not an image")
    assert reasons["pho_99"] == "the text is blank"
    assert len(reasons) == 4
    assert run.index["clips"]["test"] == 6 and run.index["clips"]["val"] > 0


def test_the_folder_of_texts_takes_the_place_of_the_titles(tmp_path, monkeypatch):
    tree(tmp_path / "raw")
    for label in ("apple_pie", "pho"):
        folder = tmp_path / "raw/texts_txt" / label
        folder.mkdir(parents=True)
        for number in range(12):
            (folder / f"{label}_{number}.txt").write_text(f"How to make {label} {number}")
    run = Pipeline(
        tmp_path / "run",
        monkeypatch,
        *SMALL,
        f"dataset.root={tmp_path}/raw",
        "~dataset.annotations.train_titles",
        "~dataset.annotations.test_titles",
        "+dataset.annotations.texts=${dataset.root}/texts_txt",
    ).run()
    assert Counter(run.manifest["split"]) == {"train": 13, "val": 2, "test": 6}
    assert run.quarantine.keys() == {"pho_0", "pho_1", "pho_3"}
