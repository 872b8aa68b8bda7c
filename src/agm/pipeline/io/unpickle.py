"""Read a pickle that holds nothing but plain values and NumPy arrays, without running code of it.

A pickle is a program, which may call whatever it names. Here it can name only what stands in `STAND_INS`: functions of
this module that replace those with which NumPy writes arrays, and Python writes sets and bytes. Everything else is
refused before it is imported.

A hostile file can take memory in proportion to its size, up to some hundred bytes for each of its own (empty sets), but
not more. A pickle can use a value that it holds once again and again. So this module counts the bytes that arrays are
made of, and only `asarray`, which counts too, writes out lists that hold one list many times.
"""

import math
import mmap
import pickle
import re
from collections.abc import Callable, Iterable
from contextvars import ContextVar
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from agm.pipeline.errors import AgmError
from agm.pipeline.io import limits

FIX = "it may be damaged; or, if you trust who made it, save its arrays anew, as .npy or .h5"
NUMBERS = re.compile(r"[<>|=]?(b1|i[1248]|u[1248]|f[248]|[SU][1-9][0-9]{0,5})")
OBJECTS = ("O", "O4", "O8", "|O")
# Protocol 2 stores the bytes of an array as text, which is decoded, encoded, and copied into the array.
COPIES = 2
SPARE_BYTES = 2**20
_left: ContextVar[int] = ContextVar("left", default=0)
"""The number of bytes that arrays, bytes and sets may still take."""


class Refused(Exception):
    """The file holds something that is not read here; the message says what."""


def load(path: str | Path) -> Any:
    """The value in a pickle: None, bool, int, float, str, bytes, list, tuple, dict, set, NumPy arrays and scalars.

    Text of Python 2 is read as Latin-1.

    Raises:
        AgmError: when the file is damaged, or names anything else.
    """
    try:
        with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            _left.set(COPIES * len(content) + SPARE_BYTES)
            return _Unpickler(content, encoding="latin1").load()
    except Refused as error:
        raise AgmError(f"The pickle is refused: {error}", where=path, fix=FIX) from None
    except OSError:
        raise
    except Exception as error:  # a damaged program fails in any way
        raise AgmError(f"The pickle is damaged: {error or type(error).__name__}", where=path, fix=FIX) from None


def asarray(value: Any) -> np.ndarray:
    """`np.asarray` of a value in a pickle.

    Raises:
        Unusable: when it has more numbers, written out, than the limit.
        ValueError, TypeError, OverflowError: as NumPy does.
    """
    try:
        limits.check("numbers", _written_out(value, {}), "an array in the pickle has {} numbers")
    except RecursionError:
        raise ValueError("lists within lists within lists") from None
    return np.asarray(value)


def _written_out(value: Any, known: dict[int, float]) -> float:
    """How many numbers lists within lists hold. `known` has the count of each list by its id: one list may occur many
    times."""
    if isinstance(value, np.ndarray):
        return value.size
    if not isinstance(value, list | tuple):
        return 1
    if id(value) not in known:
        # While the list is counted: if it holds itself, its count is infinite.
        known[id(value)] = math.inf
        known[id(value)] = sum(_written_out(element, known) for element in value)
    return known[id(value)]


def _spend(count: int) -> None:
    """Count bytes, and refuse a pickle that uses one value again and again to fill the memory."""
    _left.set(_left.get() - count)
    if _left.get() < 0:
        raise Refused("it unfolds to far more than the file's size")


# Python's own in Python: the one in C keeps values by number in a table as long as the largest number, so that one
# damaged byte can fill the memory.
class _Unpickler(pickle._Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return STAND_INS[f"{module}.{name}"]
        except KeyError:
            shown = f"{module}.{name}"[:100]
            raise Refused(f"it names {shown}, which is neither a plain value nor an array") from None


class _StandIn:
    """The object that a pickle gets for a name: it can be called, and the pickle can change nothing of it."""

    __slots__ = ("_call",)

    def __init__(self, call: Callable[..., Any]) -> None:
        self._call = call

    def __call__(self, *arguments: Any) -> Any:
        return self._call(*arguments)

    def __setstate__(self, state: Any) -> NoReturn:
        raise Refused("it changes a function")


class _Dtype:
    """The type of an array's values."""

    __slots__ = ("dtype",)

    def __init__(self, name: Any, *_: Any) -> None:
        if isinstance(name, bytes):  # as Python 2 writes it
            name = name.decode("ascii")
        if name not in OBJECTS and not NUMBERS.fullmatch(name):
            raise Refused(f"it holds an array of {name[:40]!r}, and only numbers and text are read")
        self.dtype = np.dtype(name)

    def __setstate__(self, state: Any) -> None:
        # The rest is size, alignment and flags, which follow from the name, then metadata, which can hold anything.
        _, order, subarray, names, fields, *rest = state
        if subarray is not None or names is not None or fields is not None or any(rest[3:]):
            raise Refused("it holds an array of records, or with metadata")
        self.dtype = self.dtype.newbyteorder(order)


class _Array(np.ndarray):
    """An array that is still empty: `__setstate__` brings its values."""

    def __setstate__(self, state: Any) -> None:
        _, shape, kind, fortran, content = state
        # An array of objects comes as a list, every other one as bytes or text.
        if kind.dtype.hasobject != (type(content) is list):
            raise Refused("its arrays do not hold what they say")
        _spend(len(content))
        if isinstance(content, str):
            content = content.encode("latin-1")
        super().__setstate__((1, shape, kind.dtype, bool(fortran), content))


def _reconstruct(kind: Any, *_: Any) -> _Array:
    if kind is not STAND_INS["numpy.ndarray"]:
        raise Refused("it holds a subclass of NumPy's array")
    return np.ndarray.__new__(_Array, 0, np.int8)


def _scalar(kind: _Dtype, content: Any) -> Any:
    return _frombuffer(content, kind, (), "C")[()]


def _frombuffer(content: Any, kind: _Dtype, shape: tuple[int, ...], order: str) -> np.ndarray:
    _spend(len(content))
    if isinstance(content, str):
        content = content.encode("latin-1")
    return np.frombuffer(content, kind.dtype).reshape(shape, order=order)


def _encode(text: str, codec: str) -> bytes:
    """Bytes from text: the form in which Python 3 writes bytes for Python 2."""
    if codec not in ("latin1", "latin-1"):
        raise Refused("it encodes text in another way than as Latin-1")
    _spend(len(text))
    return text.encode("latin-1")


def _never(*_: Any) -> NoReturn:
    raise Refused("it makes an array in another way than NumPy does")


def _no_bytes() -> bytes:
    return b""


def _set(items: Iterable[Any] = ()) -> set[Any]:
    _spend(len(items))
    return set(items)


def _frozenset(items: Iterable[Any] = ()) -> frozenset[Any]:
    return frozenset(_set(items))


STAND_INS = {
    "numpy.dtype": _StandIn(_Dtype),
    "numpy.ndarray": _StandIn(_never),
    "_codecs.encode": _StandIn(_encode),
}
"""The names that a pickle may use, and what each stands for."""

# NumPy 1 and NumPy 2 call the module by different names.
for _core in ("numpy.core", "numpy._core"):
    STAND_INS[f"{_core}.multiarray._reconstruct"] = _StandIn(_reconstruct)
    STAND_INS[f"{_core}.multiarray.scalar"] = _StandIn(_scalar)
    STAND_INS[f"{_core}.numeric._frombuffer"] = _StandIn(_frombuffer)

# So do Python 3 and Python 2.
for _builtins in ("builtins", "__builtin__"):
    STAND_INS[f"{_builtins}.bytes"] = _StandIn(_no_bytes)
    STAND_INS[f"{_builtins}.set"] = _StandIn(_set)
    STAND_INS[f"{_builtins}.frozenset"] = _StandIn(_frozenset)
