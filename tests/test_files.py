"""Files of the DAG, read where they may be missing or damaged."""

from pathlib import Path

import pytest

from agm.pipeline.io.files import index_bytes, read_json_or_none

INDEX = index_bytes({"clips": 12})


def test_a_whole_file_gives_its_content(tmp_path: Path) -> None:
    path = tmp_path / "index.json"
    path.write_bytes(INDEX)
    assert read_json_or_none(path) == {"clips": 12}


@pytest.mark.parametrize(
    "content",
    [None, b"", INDEX[: len(INDEX) // 2], INDEX.replace(b"12", b"13"), b"\xff"],
    ids=["missing", "empty", "cut short", "another content than its checksum", "no text"],
)
def test_a_file_that_is_missing_or_damaged_gives_none(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "index.json"
    if content is not None:
        path.write_bytes(content)
    assert read_json_or_none(path) is None


def test_what_is_no_file_gives_none(tmp_path: Path) -> None:
    assert read_json_or_none(tmp_path) is None
