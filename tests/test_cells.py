"""One thing is one thing however a table spells it: labels, groups, missing values; and look-alikes are warned of."""

import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agm.pipeline import cli
from agm.pipeline.config.compose import compose
from agm.pipeline.config.schema import Dataset, Split
from agm.pipeline.errors import AgmError
from agm.pipeline.io.files import read_json
from agm.pipeline.steps.ingest.adapters import read
from agm.pipeline.steps.ingest.cell import MISSING, category, look_alikes, plain
from agm.pipeline.steps.ingest.split import assign
from clone import ROOT

INVISIBLE = ("\N{SOFT HYPHEN}", "\N{ZERO WIDTH SPACE}", "\N{ZERO WIDTH NO-BREAK SPACE}", "\N{RIGHT-TO-LEFT MARK}")


def dataset(root: Path, *rows: str, header: str = "clip_id,split,label,speaker,text") -> Dataset:
    root.mkdir(exist_ok=True)
    (root / "a.txt").write_text("a word")
    (root / "clips.csv").write_text("\n".join([header, *rows, ""]), encoding="utf-8")
    return Dataset(
        name="own",
        adapter="manifest",
        root=str(root),
        annotations={"clips": str(root / "clips.csv")},
        modalities={"text": {"kind": "text", "column": "text"}},
        group="speaker",
    )


def refused(data: Dataset) -> str:
    with pytest.raises(AgmError) as error:
        read(data)
    return str(error.value)


# --- the rule ---


@pytest.mark.parametrize("spelling", ["1", "01", "+1", "1.0", "1.", "1.00", " 1 ", "\N{NO-BREAK SPACE}1"])
def test_a_whole_number_has_one_spelling(spelling):
    assert category(spelling) == "1"


@pytest.mark.parametrize("spelling", ["1.5", "1e3", "0x1", "1 1", "1-1", "١", "one"])
def test_what_is_no_whole_number_stays_as_it_is(spelling):
    assert category(spelling) == spelling


def test_truth_values_have_one_spelling():
    assert {category(each) for each in ("TRUE", "True", "true")} == {"true"}
    assert {category(each) for each in ("FALSE", "False", "false")} == {"false"}


@given(st.text())
def test_the_rule_is_idempotent_and_knows_no_normal_forms(text):
    found = category(text)
    assert category(found) == found
    assert plain(unicodedata.normalize("NFD", text)) == plain(text)


@pytest.mark.parametrize("invisible", INVISIBLE)
def test_what_nobody_sees_does_not_count(invisible):
    assert plain(f"Kat{invisible}ze") == plain("Katze")


def test_joiners_belong_to_words():
    family = "\N{MAN}\N{ZERO WIDTH JOINER}\N{GIRL}"
    assert plain(family) == family


def test_numerals_of_any_length_are_read():
    assert category("9" * 5000) == "9" * 5000
    assert category("0" * 30 + "7") == "7"


# --- labels ---


def labels(root: Path, *spelt: str) -> list[str]:
    rows = [f"c{number},train,{label},ann,a.txt" for number, label in enumerate(spelt)]
    return [clip.label for clip in read(dataset(root, *rows))]


def test_composed_and_decomposed_letters_are_one_class(tmp_path):
    assert (
        len(set(labels(tmp_path, "café", unicodedata.normalize("NFD", "café"), "cafe\u200b\N{COMBINING ACUTE ACCENT}")))
        == 1
    )


def test_numbers_as_table_programs_write_them_are_one_class(tmp_path):
    assert labels(tmp_path, "1", "1.0", "01", "+1", "-0", "0") == ["1", "1", "1", "1", "0", "0"]


def test_truth_values_are_two_classes(tmp_path):
    assert set(labels(tmp_path, "TRUE", "True", "true", "FALSE")) == {"true", "false"}


@pytest.mark.parametrize("spelling", sorted(MISSING - {""}))
def test_a_missing_value_is_missing_in_every_column(tmp_path, spelling):
    message = refused(dataset(tmp_path, f"a,train,{spelling},ann,a.txt", f"b,train,0,{spelling},a.txt"))
    assert f"row 2: label is {spelling!r}, which means a missing value" in message
    assert f"row 3: speaker is {spelling!r}, which means a missing value, so the clip's group is not known" in message
    assert "which means a missing value" in refused(dataset(tmp_path, f"{spelling},train,0,ann,a.txt"))
    first, second = read(dataset(tmp_path, f"a,{spelling},0,ann,a.txt", f"b,train,0,ann,{spelling}"))
    assert first.split is None and "text" not in second.sources


def test_a_class_may_be_called_none_and_is_warned_of(tmp_path):
    assert labels(tmp_path, "none", "some") == ["none", "some"]
    [warning] = look_alikes("label", ["none", "some"])
    assert "'none' (1 clip) looks like a missing value" in warning


# --- groups ---


def test_a_speaker_in_three_spellings_is_one_speaker(tmp_path):
    rows = ["a,train,0,1,a.txt", "b,test,1,1.0,a.txt", "c,val,1,01,a.txt"]
    assert "row 3: speaker '1' is in split test, but in row 2 in split train" in refused(dataset(tmp_path, *rows))


def test_no_spelling_of_a_speaker_leaks_where_the_split_is_drawn(tmp_path):
    spellings = ("{}", "0{}", "{}.0", "\N{ZERO WIDTH SPACE}{}")
    rows = [f"c{n},,{n % 2},{spellings[n % 4].format(n // 4)},a.txt" for n in range(80)]
    clips = read(dataset(tmp_path, *rows))
    splits = assign(clips, Split(val=0.2, test=0.2))
    assert set(splits) == {"train", "val", "test"}
    for speaker in range(20):
        assert len(set(splits[4 * speaker : 4 * speaker + 4])) == 1


# --- look-alikes ---


@pytest.mark.parametrize(
    ("names", "alike"),
    [
        (["Joy", "joy"], True),
        (["tap dancing", "tap_dancing"], True),
        (["spk1", "spk01", "SPK_1"], True),
        (["ｊｏｙ", "joy"], True),
        (["Straße", "STRASSE"], True),
        (["می\u200cخواهم", "میخواهم"], True),
        (["-1", "1", "10"], False),
        (["1-2", "12"], False),
        (["C", "C++"], False),
        (["spk1", "spk10"], False),
        (["joy", "joyful"], False),
    ],
)
def test_look_alikes(names, alike):
    found = look_alikes("label", names)
    assert bool(found) == alike
    assert not alike or all(repr(name) in found[0] for name in names)


def test_a_thousand_look_alikes_are_counted():
    found = look_alikes("label", [name for number in range(30) for name in (f"a{number}", f"A{number}")])
    assert len(found) == 11 and found[-1] == "label: 20 more names look alike"


def test_look_alikes_are_told_by_list_and_kept_by_ingest(tmp_path, monkeypatch, capsys):
    rows = [
        f"c{n},{split},{('joy', 'Joy')[n % 2]},{('Ann', 'ann')[n % 2]}{n // 2},a.txt"
        for n, split in enumerate(["train", "train", "val", "val", "test", "test"])
    ]
    data = dataset(tmp_path / "raw", *rows)
    changes = [f"dataset.root={data.root}", "dataset.group=speaker"]
    changes += ["~dataset.modalities", "+dataset.modalities={text: {kind: text, column: text}}"]
    changes += ["~features", "+features={text: {max_tokens: 4}}", "~encoders", "+encoders={text: {name: transformer}}"]
    changes += [f"dataset.annotations.clips={data.annotations['clips']}"]
    compose(["study=spoken_digits", *changes], tmp_path / "params.yaml", ROOT / "params")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AGM_WORKERS", "1")
    for step in ("annotations clips", "list", "ingest"):
        assert cli.main(step.split()) == 0
    warnings = read_json(Path("data/spoken_digits/manifest.json"))["warnings"]
    assert "label: 'Joy' (3 clips) and 'joy' (3 clips) look alike; if they are one, spell them alike" in warnings
    assert sum(line.startswith("speaker: 'Ann") for line in warnings) == 3
    assert "label: 'Joy' (3 clips) and 'joy'" in capsys.readouterr().err
