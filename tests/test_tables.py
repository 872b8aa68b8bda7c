"""CSV files as table programs write them: long cells, other delimiters and encodings, blank rows, absolute paths."""

from pathlib import Path

import pytest

from agm.pipeline.config.schema import Dataset
from agm.pipeline.errors import AgmError
from agm.pipeline.io.encoding import as_text
from agm.pipeline.io.source import Source
from agm.pipeline.steps.extract import text
from agm.pipeline.steps.ingest.adapters import read
from agm.pipeline.steps.ingest.listing import look
from agm.pipeline.steps.ingest.probe import probe
from agm.pipeline.steps.ingest.table import rows

TABLE = "clip_id,label,text\na,café,a.txt\nb,dog,sub/b.txt\n"


def dataset(root: Path, csv: str | bytes) -> Dataset:
    (root / "sub").mkdir(parents=True, exist_ok=True)
    (root / "a.txt").write_text("a word")
    (root / "sub/b.txt").write_text("a word")
    (root / "clips.csv").write_bytes(csv if isinstance(csv, bytes) else csv.encode())
    return Dataset(
        name="own",
        adapter="manifest",
        root=str(root),
        annotations={"clips": str(root / "clips.csv")},
        modalities={"text": {"kind": "text", "column": "text"}},
    )


def found(data: Dataset) -> list[tuple[str, str, str]]:
    clips = read(data)
    look(data, clips)
    return [(clip.clip_id, clip.label, clip.sources["text"].path) for clip in clips]


WANTED = [("a", "café", "a.txt"), ("b", "dog", "sub/b.txt")]


def test_a_long_cell_in_an_unused_column(tmp_path):
    long = (
        TABLE.replace("\n", ",note\n", 1).replace("a.txt\n", f"a.txt,{'x' * 500_000}\n").replace("b.txt\n", "b.txt,\n")
    )
    assert found(dataset(tmp_path, long)) == WANTED


@pytest.mark.parametrize("delimiter", [";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be", "utf-32"])
def test_other_delimiters_and_encodings(tmp_path, capfd, delimiter, encoding):
    content = TABLE.replace(",", delimiter).replace("\n", "\r\n").encode(encoding)
    if encoding == "utf-16-be":
        content = b"\xfe\xff" + content
    assert found(dataset(tmp_path, content)) == WANTED
    name = {";": "semicolons", "\t": "tabs", "|": "bars"}[delimiter]
    assert (
        f"clips.csv is read as {encoding[:6].upper().removesuffix('-')} with {name} between the cells"
        in capfd.readouterr().err
    )


def test_quoted_cells_with_semicolons_and_commas(tmp_path):
    csv = '"clip_id";"label";"text"\n"a";"violin, fiddle; or viola";"a.txt"\n'
    assert found(dataset(tmp_path, csv)) == [("a", "violin, fiddle; or viola", "a.txt")]


def test_a_usual_table_is_read_without_a_word(tmp_path, capfd):
    assert found(dataset(tmp_path, TABLE)) == WANTED
    assert "is read as" not in capfd.readouterr().err


@pytest.mark.parametrize("blank", [",,", "  ", " , ,\t", '"",,', ",,,,,,"])
def test_rows_of_blanks_are_passed_over_and_counted(tmp_path, blank):
    data = dataset(tmp_path, TABLE.replace("b,dog", f"{blank}\nb,dog") + f"{blank}\n")
    assert found(data) == WANTED
    assert [row.number for row in rows(data.annotations["clips"], [])] == [2, 4]


def test_what_was_recognised_is_said_where_columns_are_missing(tmp_path):
    for content, said in [
        ("clip_id;label;txt\na;b;c\n", "read as UTF-8 with commas between the cells"),
        ("clip_id,label,txt\na,b,c\n".encode("utf-16"), "read as UTF-16 with commas between the cells"),
    ]:
        with pytest.raises(AgmError) as error:
            read(dataset(tmp_path, content))
        assert said in str(error.value) and "lacks the column" in str(error.value)


def test_utf_16_without_a_mark_is_explained(tmp_path):
    with pytest.raises(AgmError, match="UTF-16 without a byte order mark"):
        read(dataset(tmp_path, TABLE.replace("é", "e").encode("utf-16-le")))


def test_half_of_a_file_in_utf_16(tmp_path):
    with pytest.raises(AgmError, match="The annotations are not UTF-16: row"):
        read(dataset(tmp_path, TABLE.encode("utf-16")[:-1]))


# --- paths ---


def test_absolute_paths_below_the_root_are_read(tmp_path):
    root = tmp_path / "root"
    csv = TABLE.replace("a.txt", f"{root}/a.txt").replace("sub/b.txt", f"{root}/sub/../sub//b.txt")
    assert found(dataset(root, csv)) == WANTED


def test_absolute_paths_below_a_root_that_is_a_link(tmp_path):
    root = tmp_path / "root"
    data = dataset(root, TABLE.replace("a.txt", f"{root}/a.txt"))
    (tmp_path / "link").symlink_to(root)
    assert found(data.model_copy(update={"root": str(tmp_path / "link")})) == WANTED


@pytest.mark.parametrize("path", ["{root}x/a.txt", "{root}/../out.txt", "{root}", "/etc/hostname"])
def test_absolute_paths_elsewhere_are_refused(tmp_path, path):
    root = tmp_path / "root"
    (tmp_path / "rootx").mkdir()
    (tmp_path / "rootx/a.txt").write_text("outside")
    (tmp_path / "out.txt").write_text("outside")
    data = dataset(root, TABLE.replace("a.txt", path.format(root=root)))
    with pytest.raises(AgmError, match=r"row 2: text: the path '.*' leaves the root folder"):
        look(data, read(data))


# --- texts in files ---


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_texts_in_files_in_every_marked_encoding(tmp_path, encoding):
    path = tmp_path / "a.txt"
    path.write_text("eine Grüße 你好", encoding=encoding)
    assert as_text(path.read_bytes()) == text.content(Source(str(path))) == "eine Grüße 你好"
    probe(Source(str(path)), "text")
