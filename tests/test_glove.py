"""The vectors of a text's words, from a small file in GloVe's format with the traps of the published ones."""

from pathlib import Path

import numpy as np
import pytest

from agm.pipeline.config.schema import TextFeatures
from agm.pipeline.errors import AgmError
from agm.pipeline.io.media import Unusable
from agm.pipeline.io.source import Source
from agm.pipeline.io.tensors import Feature
from agm.pipeline.steps.extract.recipe import Recipe, recipe

# As in the file of 840 billion tokens: a token that holds spaces, one of them beginning like a word of ours.
LINES = [
    ", 0.5 0.5 0.5",
    "the 1 2 3",
    ". . . 9 9 9",
    "at name@domain.com 8 8 8",
    "at 4 5 6",
    "do 1 1 1",
    "n't -1 -1 -1",
    "Über 7 7 7",
    "über 0.25 -0.5 1e-3",
    "the 6 6 6",
]


@pytest.fixture
def path(tmp_path) -> Path:
    found = tmp_path / "glove.txt"
    found.write_bytes(("\n".join(LINES) + "\n").encode())
    return found


def settings(path: Path, **changed: object) -> TextFeatures:
    return TextFeatures(**{"kind": "text", "max_tokens": 4, "glove": str(path)} | changed)


def made(path: Path, *texts: str, **changed: object) -> Recipe:
    return recipe(settings(path, **changed), "features.text", [], [Source(text=text) for text in texts])


def vectors(path: Path, text: str, **changed: object) -> list[list[float]]:
    found = made(path, text, **changed)
    [tensor] = found.finish([found.load(Source(text=text))])
    assert tensor.dtype == np.float32 and found.feature == Feature("sequence", "float32", (4, 3))
    return tensor.tolist()


NONE = [0, 0, 0]


@pytest.mark.parametrize(
    "text, expected",
    [
        ("The, at.", [[1, 2, 3], [4, 5, 6], NONE, NONE]),
        ("the quick the", [[1, 2, 3], [1, 2, 3], NONE, NONE]),  # a word without a vector is left out
        ("don't", [[1, 1, 1], [-1, -1, -1], NONE, NONE]),
        ("the the the the at", [[1, 2, 3]] * 4),
    ],
)
def test_words_become_their_vectors(path, text, expected):
    assert vectors(path, text) == expected


def test_case_is_kept_if_it_shall_be(path):
    np.testing.assert_allclose(vectors(path, "Über")[0], [0.25, -0.5, 0.001])
    assert vectors(path, "Über", lowercase=False)[0] == [7, 7, 7]


def test_lines_may_end_as_windows_ends_them(path):
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert vectors(path, "at the") == [[4, 5, 6], [1, 2, 3], NONE, NONE]


def test_a_text_of_unknown_words_costs_its_clip(path):
    found = made(path, "the quick", "quick")
    with pytest.raises(Unusable, match="none of the text's words has a vector"):
        found.load(Source(text="quick"))


def test_a_part_without_texts_has_the_same_shape(path):
    assert made(path).feature == made(path, "the").feature


def test_a_text_that_cannot_be_read_costs_its_clip(path, tmp_path):
    sources = [Source(str(tmp_path / "missing.txt")), Source(text="the")]
    found = recipe(settings(path), "features.text", [], sources)
    assert found.load(sources[1]).tolist() == [0]
    with pytest.raises(OSError):
        found.load(sources[0])


def test_the_share_of_words_is_told(path, capsys):
    made(path, "the don't quick")
    assert "glove: 2 of 3 different words have a vector" in capsys.readouterr().err


@pytest.mark.parametrize(
    "content, line",
    [
        (b"", 0),
        (b"the\n", 1),
        (b"400000 300\n", 1),  # the header of another program's format
        (b"a b c d\n", 1),
        (b", 1 2 3\nthe 1 2\n", 2),
        (b", 1 2 3\nthe 1 x 3\n", 2),
        (b", 1 2 3\nthe 1 nan 3\n", 2),
        (b"\x89PNG\r\n\x1a\n", 1),
    ],
)
def test_other_files_are_refused(path, content, line):
    path.write_bytes(content)
    with pytest.raises(AgmError, match="not in GloVe's text format") as error:
        made(path, "the")
    assert f"line {line} " in str(error.value) or line == 0
    path.unlink()
    with pytest.raises(AgmError, match="no word vectors"):
        made(path, "the")
