"""`agm datasets`: the list, the cards, and what of a data set is in a folder."""

import re
from pathlib import Path

import polars as pl
import pytest

from agm.pipeline import cli
from agm.pipeline.io.tables import QUARANTINE
from agm.pipeline.steps.ingest.adapters import find
from agm.pipeline.steps.ingest.datasets import cards
from clone import ROOT

CLIPS = ("1001_IEO_ANG_LO", "1001_IEO_HAP_LO", "1002_IEO_SAD_LO", "1003_TIE_NEU_XX")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project without params.yaml."""
    (tmp_path / "params").symlink_to(ROOT / "params")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def raw(folder: Path) -> Path:
    """CREMA-D in its official layout, three of four clips whole: one sound is missing."""
    root = folder / "download"
    for name, suffix in (("AudioWAV", "wav"), ("VideoFlash", "flv")):
        (root / name).mkdir(parents=True)
        for clip in CLIPS:
            (root / name / f"{clip}.{suffix}").write_bytes(b"not looked at")
    (root / "AudioWAV" / f"{CLIPS[2]}.wav").unlink()
    rows = "".join(f'{number},"{clip}"\n' for number, clip in enumerate(CLIPS, start=1))
    (root / "SentenceFilenames.csv").write_text(f'"Stimulus_Number","Filename"\n{rows}')
    return root


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert cli.main(["datasets", *arguments]) == 0
    return capsys.readouterr().out


def test_every_published_data_set_has_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    lines = said(capsys).splitlines()
    assert cards().keys() >= {"crema_d", "ave", "ucf101"} and not {"manifest", "dial"} & cards().keys()
    for name, card in cards().items():
        [line] = [line for line in lines if line.split(" ")[0] == name]
        assert card.title in line and f"{card.classes} classes" in line and card.licence in line


@pytest.mark.parametrize("name", cards())
def test_a_card_says_what_is_expected_and_how_to_give_a_folder(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    printed, card = said(capsys, name), find(name).card
    words = " ".join(printed.split())
    for text in (card.title, card.citation, card.licence, card.source):
        assert " ".join(text.split()) in words
    for key in (*card.columns, *card.annotations, *card.schemes, *card.labels):
        assert re.search(rf"^  {re.escape(key)} ", printed, re.MULTILINE), key
    assert all(line.strip() in printed for line in card.layout.splitlines())
    for scheme in card.schemes.values():
        assert all(f"{split} {number:,}" in words for split, number in scheme.counts.items())
    assert re.search(r"agm datasets [\w ]+ dataset\.root=/its/folder\n$", printed)


def test_what_is_there_is_counted_and_nothing_is_written(raw: Path, capsys: pytest.CaptureFixture[str]) -> None:
    printed = said(capsys, "crema_d", f"dataset.root={raw}")
    assert re.search(r"^ *split +official +annotated +quarantined +incomplete +there$", printed, re.MULTILINE)
    assert re.search(r"^ *to draw +– +4 +0 +1 +3$", printed, re.MULTILINE)
    assert f"1 of 8 files are not there, the first: AudioWAV/{CLIPS[2]}.wav" in printed
    assert "clips quarantined (" not in printed
    assert sorted(each.name for each in Path().iterdir()) == ["download", "params"]


def test_official_counts_stand_beside_those_of_the_annotations(raw: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (raw / "train.csv").write_text(f"{CLIPS[0]},ANG\n{CLIPS[1]},HAP\n")
    (raw / "test.csv").write_text(f"{CLIPS[2]},SAD\n")
    lists = [f"+dataset.annotations.ogm_{split}={raw}/{split}.csv" for split in ("train", "test")]
    printed = said(capsys, "crema_d", "dataset.split.scheme=ogm", *lists, f"dataset.root={raw}")
    assert re.search(r"^ *train +6,698 +2 +0 +0 +2$", printed, re.MULTILINE)
    assert re.search(r"^ *test +744 +1 +0 +1 +0$", printed, re.MULTILINE)
    assert "officially there are 744" in printed


def test_params_yaml_and_the_quarantine_are_used(raw: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["compose", "dataset=crema_d", f"dataset.root={raw}"]) == 0
    data = Path("data/crema_d")
    data.mkdir(parents=True)
    reasons = ["the file is empty", "the file is empty", "no sound"]
    rows = [(f"c{number}", "train", "audio", "ingest", reason, None) for number, reason in enumerate(reasons)]
    pl.DataFrame(rows, schema=QUARANTINE, orient="row").write_parquet(data / "quarantine-ingest.parquet")
    printed = said(capsys, "crema_d")
    assert re.search(r"^ *to draw +– +4 ", printed, re.MULTILINE)
    assert "3 clips quarantined (data/crema_d/quarantine-ingest.parquet)" in printed
    assert re.search(r"^ +2  ingest, audio: the file is empty$", printed, re.MULTILINE)
    assert "To see what is in your copy" in said(capsys, "ave"), "params.yaml is about another data set"


def test_ones_own_data_are_counted_too(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "a.png").touch()
    (folder / "manifest.csv").write_text("clip_id,label,image,audio\nx,1,a.png,a.png\ny,2,a.png,\n")
    printed = said(capsys, "spoken_digits", f"dataset.root={folder}")
    assert re.search(r"^ *to draw +– +2 +0 +1 +1$", printed, re.MULTILINE)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing"], "There is no data set 'nothing'"),
        (["crema_d", "dataset.root=/nowhere/at/all"], "dataset.root) does not exist"),
        (["crema_d", "dataset.rot=/x"], "did you mean 'dataset.root'?"),
        (["crema_d", "/data/crema_d"], "given as dataset.root=/data/crema_d"),
        (["crema_d", "dataset.split.scheme=ogm"], "A parameter has no value yet: dataset.root"),
    ],
)
def test_mistakes_are_explained(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["datasets", *arguments]) == 1
    assert message in capsys.readouterr().err
