"""Reading pickles: what honest ones hold is read as Python reads it, and of others nothing runs."""

import datetime
import json
import os
import pickle
import pickletools
import subprocess
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from agm.pipeline.errors import AgmError
from agm.pipeline.io import unpickle
from pipeline import official

ARRAYS = [
    np.arange(6, dtype="<f4").reshape(2, 3),
    np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    np.arange(4, dtype=">i2"),
    np.array([True, False]),
    np.array([b"ab", b"c"]),
    np.array(["é", "xyz"]),
    np.zeros((0, 3), np.uint8),
    np.array(3, np.int64),
    np.arange(10)[::2],
    np.array([1.5, -2.0], np.float16),
]


def saved(folder: Path, content: bytes) -> Path:
    path = folder / "a.pkl"
    path.write_bytes(content)
    return path


def loaded(folder: Path, value: Any, protocol: int) -> Any:
    return unpickle.load(saved(folder, pickle.dumps(value, protocol)))


def refused(path: Path) -> str:
    with pytest.raises(AgmError) as error:
        unpickle.load(path)
    assert str(path) in str(error.value)
    return error.value.what


# --- honest pickles ---


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("array", ARRAYS, ids=lambda array: f"{array.dtype.str}{list(array.shape)}")
def test_arrays(tmp_path, array, protocol):
    found, again = loaded(tmp_path, [array, {"again": array}], protocol)
    assert found.dtype.newbyteorder("=") == array.dtype.newbyteorder("=") and found.shape == array.shape
    np.testing.assert_array_equal(found, array)
    assert again["again"] is found


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("value", [np.float32(1.5), np.int64(-3), np.bool_(True), np.str_("hé"), np.bytes_(b"x")])
def test_numpy_scalars(tmp_path, value, protocol):
    found = loaded(tmp_path, {"a": value}, protocol)["a"]
    assert found == value and type(found) is type(value)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda each: (
        st.lists(each, max_size=4)
        | st.lists(each, max_size=4).map(tuple)
        | st.dictionaries(st.text() | st.integers(), each, max_size=4)
        | st.sets(st.integers() | st.text(), max_size=4)
    ),
)


@settings(max_examples=100, deadline=None)
@given(value=VALUES, protocol=st.integers(0, 5))
def test_plain_values(tmp_path_factory, value, protocol):
    assert loaded(tmp_path_factory.getbasetemp(), value, protocol) == value


def test_long_lists_of_floats(tmp_path):
    value = {number: [[0.5 + step] * 400 for step in range(3)] for number in range(5)}
    assert loaded(tmp_path, value, 2) == value


def test_a_row_of_plain_objects(tmp_path):
    array = np.empty(3, object)
    array[:] = [np.arange(2), "a", None]
    first, *others = loaded(tmp_path, {"ragged": array}, 4)["ragged"]
    assert first.tolist() == [0, 1] and others == ["a", None]


# What Python 2 writes: its str, its Unicode, its long, an array whose bytes are a str, a set.
PYTHON_2 = [
    (b"(dp0\nS'caf\\xe9'\np1\nV\\u20ac\np2\nsS'n'\nL12L\nsI01\nF1.5\ns.", {"café": "€", "n": 12, True: 1.5}),
    (b"\x80\x02U\x03a\xe9bq\x01.", "aéb"),
    (b"c__builtin__\nset\np0\n((lp1\nI1\naI2\natp2\nRp3\n.", {1, 2}),
    (
        b"cnumpy.core.multiarray\n_reconstruct\np0\n(cnumpy\nndarray\np1\n(I0\ntp2\nS'b'\np3\ntp4\nRp5\n(I1\n(I2\ntp6\n"
        b"cnumpy\ndtype\np7\n(S'i1'\np8\nI0\nI1\ntp9\nRp10\n(I3\nS'|'\np11\nNNNI-1\nI-1\nI0\ntp12\nbI00\nS'\\x01\\xff'\n"
        b"p13\ntp14\nb.",
        [1, -1],
    ),
]


@pytest.mark.parametrize(("content", "expected"), PYTHON_2)
def test_pickles_of_python_2(tmp_path, content, expected):
    found = unpickle.load(saved(tmp_path, content))
    assert (found.tolist() if isinstance(found, np.ndarray) else found) == expected
    theirs = pickle.loads(content, encoding="latin1")
    assert (theirs.tolist() if isinstance(theirs, np.ndarray) else theirs) == expected


@pytest.mark.parametrize("name", ["mustard/split_indices", "ur_funny/data_folds", "ur_funny/humor_label_sdk"])
def test_official_pickles(name):
    path = next(official(name + ".json").parent.glob(f"{Path(name).name}.p*"))
    found = json.loads(json.dumps(unpickle.load(path), default=lambda array: array.tolist()))
    assert found == json.loads(official(name + ".json").read_text())


# --- malicious ones ---


EMPTY_ARRAY = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00tC\x01btR"


class Call:
    """Pickled, it is a call of `function`."""

    def __init__(self, function: Callable[..., Any], *arguments: Any, state: Any = None) -> None:
        self.reduced = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self) -> Any:
        return self.reduced


def attacks(target: Path) -> dict[str, bytes]:
    """Pickles that would create `target`, or make something else happen, under Python's own machine."""
    touch = f"open({str(target)!r}, 'w')"
    command = f"touch {target}"
    smuggled = np.empty(2, object)
    smuggled[:] = [1, Call(os.system, command)]
    objects = {
        "system": Call(os.system, command),
        "eval": Call(eval, touch),
        "exec": Call(exec, touch),
        "subprocess": Call(subprocess.check_call, ["touch", str(target)]),
        "getattr": Call(getattr, Call(__import__, "os"), "system"),
        "open": Call(open, str(target), "w"),
        "numpy.load": Call(np.load, str(target)),
        "tofile": Call(np.ndarray.tofile, np.arange(3), str(target)),
        "memmap": Call(np.memmap, str(target), "u1", "w+", 0, (4,)),
        "object array": smuggled,
        "in a dict": {"a": [1, (2, Call(os.system, command))]},
        "class": OrderedDict(a=1),
        "subclass of array": np.recarray((1,), [("a", "i4")]),
        "record array": np.array([(1, 2.0)], [("a", "i4"), ("b", "f8")]),
        "datetime": np.array(["2020-01-01"], "M8[D]"),
        "python's date": datetime.date(2020, 1, 1),
        "complex": 1j,
        "complex array": np.ones(2, complex),
        "dtype with metadata": np.array([1], np.dtype("i4", metadata={"a": 1})),
    }
    pickles = {
        f"{name}, protocol {protocol}": pickle.dumps(each, protocol)
        for name, each in objects.items()
        for protocol in (2, 4)
    }
    names = b"cos\nsystem\n"
    argument = b"(V" + command.encode() + b"\nt"
    return pickles | {
        "global": names + argument + b"R.",
        "inst": b"(V" + command.encode() + b"\nios\nsystem\n.",
        "obj": b"(" + names + b"V" + command.encode() + b"\no.",
        "newobj": names + argument + b"\x81.",
        "newobj_ex": names + argument + b"}\x92.",
        "stack global": b"\x80\x04\x8c\x02os\x94\x8c\x06system\x94\x930h\x00h\x01\x93" + argument + b"R.",
        "names from bytes": b"\x80\x04C\x02osC\x06system\x93" + argument + b"R.",
        "name of two parts": b"\x80\x04\x8c\x05numpy\x8c\x10dtype.__module__\x93.",
        "attribute of an allowed name": b"\x80\x04\x8c\x05numpy\x8c\x0endarray.tofile\x93.",
        "persistent id": b"V1\nQ.",
        "extension": b"\x82\x01.",
        "out-of-band buffer": b"\x80\x05\x97.",
        "build on a dict": b"}}V__class__\nNsb.",
        "state on a name": b"cnumpy\nndarray\n}b.",
        "state on an array": EMPTY_ARRAY + b"}V__setstate__\nNsb.",
        "codec": b"c_codecs\nencode\n(Vabc\nVzlib\ntR.",
        "reconstruct of another class": b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\ndtype\n(K\x00tC\x01btR.",
        "copyreg": b"ccopyreg\n_reconstructor\n(c__builtin__\nobject\nc__builtin__\nobject\nNtR.",
        "import by f2py": b"cnumpy.f2py\ncompile\n(V\ntR.",
        "the function in the name's place": b"(V" + command.encode() + b"\nK\x01tR.",
        "protocol 6": b"\x80\x06N.",
    }


def test_nothing_of_a_malicious_pickle_runs(tmp_path):
    target = tmp_path / "ran"
    for name, content in attacks(target).items():
        message = refused(saved(tmp_path, content))
        assert not target.exists(), name
        assert message.startswith(("The pickle is refused", "The pickle is damaged")), name
    with pytest.raises(AgmError, match=r"it names posix\.system"):
        unpickle.load(saved(tmp_path, pickle.dumps(Call(os.system, "true"))))
    # The test would notice: Python's own machine runs it.
    pickle.loads(attacks(target)["system, protocol 4"])
    assert target.exists()


def bombs() -> dict[str, bytes]:
    """Small files that would need much memory, much time or a deep stack."""
    array = EMPTY_ARRAY + b"(K\x01(%stcnumpy\ndtype\n(V%s\ntR%s%stb."
    big = b"L" + b"9" * 5000 + b"L\n"
    return {
        "text length": b"\x8d" + (2**60).to_bytes(8, "little") + b"x.",
        "bytes length": b"\x8e" + (2**62).to_bytes(8, "little") + b"x.",
        "bytearray length": b"\x80\x05\x96" + (2**40).to_bytes(8, "little") + b"x.",
        "integer length": b"\x8b\xff\xff\xff\x7fx.",
        "long number": big + b".",
        "shape": array % (b"J\xff\xff\xff\x7fJ\xff\xff\xff\x7f", b"f8", b"K\x00", b"C\x04abcd"),
        "negative shape": array % (b"J\xff\xff\xff\xff", b"i1", b"K\x00", b"C\x04abcd"),
        "huge items": array % (b"K\x01", b"S999999999", b"K\x00", b"C\x04abcd"),
        "no items": array % (b"K\x00", b"S0", b"K\x00", b"C\x00"),
        "laughs": b"]("
        + b"N" * 10
        + b"e"
        + b"".join(b"q%c0](" % n + b"h%c" % n * 10 + b"e" for n in range(25))
        + b"V.",
    }


@pytest.mark.parametrize("name", bombs())
def test_bombs_are_refused(tmp_path, name):
    refused(saved(tmp_path, bombs()[name]))


def test_a_memo_number_costs_nothing(tmp_path):
    assert unpickle.load(saved(tmp_path, b"Nr\xff\xff\xff\xff.")) is None  # Python would take 64 GB


def test_what_is_shared_is_not_copied(tmp_path):
    row: list[Any] = [1.0]
    for _ in range(20):
        row = [row] * 10  # 10^20 numbers, written out
    found = loaded(tmp_path, row, 4)
    assert found[0] is found[9] and found[0][0][0][0] is found[9][9][9][9]


# --- damaged ones ---

HONEST = [
    pickle.dumps({"a": [1, 2.5, "x", (None, True), {3}], "array": ARRAYS[0], "s": np.float32(1)}, protocol)
    for protocol in range(6)
]


@pytest.mark.parametrize("content", HONEST)
def test_truncated_at_every_byte(tmp_path, content):
    for end in range(len(content)):
        refused(saved(tmp_path, content[:end]))


CODES = [opcode.code.encode("latin-1") for opcode in pickletools.opcodes]


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    content = bytearray(draw(st.sampled_from(HONEST)))
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.integers(0, len(content) - 1))
        piece = draw(st.binary(max_size=4) | st.sampled_from(CODES))
        content[at : at + draw(st.integers(0, 4))] = piece
        content = content or bytearray(b".")
    return bytes(content)


@settings(max_examples=400, deadline=None)
@given(st.binary(max_size=60) | st.lists(st.sampled_from(CODES), max_size=40).map(b"".join) | mutated())
@example(b"")
@example(b".")
@example(b"(.")
@example(b"2.")
def test_anything_else_is_told_and_not_raised(tmp_path_factory, content):
    path = saved(tmp_path_factory.getbasetemp(), content)
    with suppress(AgmError):
        unpickle.load(path)
