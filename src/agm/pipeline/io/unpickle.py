"""Read a pickle that holds nothing but plain values and NumPy arrays, and run nothing of it.

A pickle is a program, which may call whatever it names. Here it gets nothing by name but what stands in `STAND_INS`:
functions of this module in the place of those with which NumPy writes arrays, and Python its sets and bytes. All else
is refused, unseen.

A file made for it can take memory in proportion to its size, up to some hundred bytes for each of its own (empty sets),
but not more: what a pickle holds once it can use again and again, so the bytes that arrays are made of are counted, and
lists that hold a list many times are only written out by `asarray`, which counts too.
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
# Protocol 2 has the bytes of an array as text: decoded, encoded, and copied into the array.
COPIES = 2
SPARE_BYTES = 2**20
_left: ContextVar[int] = ContextVar("left", default=0)
"""Bytes that arrays, bytes and sets may still be made of."""


class Refused(Exception):
    """What the file holds that is not read here."""


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
        ValueError, TypeError, OverflowError: as NumPy's.
    """
    try:
        limits.check("numbers", _written_out(value, {}), "an array in the pickle has {} numbers")
    except RecursionError:
        raise ValueError("lists within lists within lists") from None
    return np.asarray(value)


def _written_out(value: Any, known: dict[int, float]) -> float:
    """How many numbers lists within lists hold. `known` is of each list by its id: it may be there many times."""
    if not isinstance(value, list | tuple):
        return value.size if isinstance(value, np.ndarray) else 1
    if id(value) not in known:
        known[id(value)] = math.inf  # while it is counted: of a list that holds itself
        known[id(value)] = sum(_written_out(each, known) for each in value)
    return known[id(value)]


def _spend(count: int) -> None:
    """Refuse a pickle that uses what it holds again and again, to fill the memory."""
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
            said = f"{module}.{name}"[:100]
            raise Refused(f"it names {said}, which is neither a plain value nor an array") from None


class _StandIn:
    """What a pickle gets for a name: something to call, of which nothing can be changed."""

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
        name = name.decode("ascii") if isinstance(name, bytes) else name
        if name not in OBJECTS and not NUMBERS.fullmatch(name):
            raise Refused(f"it holds an array of {name[:40]!r}, and only numbers and text are read")
        self.dtype = np.dtype(name)

    def __setstate__(self, state: Any) -> None:
        # Behind them: size, alignment and flags, which follow from the name; then metadata, which can hold anything.
        _, order, subarray, names, fields, *rest = state
        if subarray is not None or names is not None or fields is not None or any(rest[3:]):
            raise Refused("it holds an array of records, or with metadata")
        self.dtype = self.dtype.newbyteorder(order)


class _Array(np.ndarray):
    """An array that is still empty: its values follow."""

    def __setstate__(self, state: Any) -> None:
        _, shape, kind, fortran, content = state
        if kind.dtype.hasobject != (type(content) is list):
            raise Refused("its arrays do not hold what they say")
        _spend(len(content))
        content = content.encode("latin-1") if isinstance(content, str) else content
        super().__setstate__((1, shape, kind.dtype, bool(fortran), content))


def _reconstruct(kind: Any, *_: Any) -> _Array:
    if kind is not STAND_INS["numpy.ndarray"]:
        raise Refused("it holds a subclass of NumPy's array")
    return np.ndarray.__new__(_Array, 0, np.int8)


def _scalar(kind: _Dtype, content: Any) -> Any:
    return _frombuffer(content, kind, (), "C")[()]


def _frombuffer(content: Any, kind: _Dtype, shape: tuple[int, ...], order: str) -> np.ndarray:
    _spend(len(content))
    content = content.encode("latin-1") if isinstance(content, str) else content
    return np.frombuffer(content, kind.dtype).reshape(shape, order=order)


def _encode(text: str, codec: str) -> bytes:
    """How Python 3 writes bytes for Python 2."""
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
    name: _StandIn(call)
    for name, call in {
        "numpy.dtype": _Dtype,
        "numpy.ndarray": _never,
        "_codecs.encode": _encode,
        **{
            f"{core}.{name}": call
            for core in ("numpy.core", "numpy._core")
            for name, call in {
                "multiarray._reconstruct": _reconstruct,
                "multiarray.scalar": _scalar,
                "numeric._frombuffer": _frombuffer,
            }.items()
        },
        **{
            f"{builtins}.{name}": call
            for builtins in ("builtins", "__builtin__")
            for name, call in {"bytes": _no_bytes, "set": _set, "frozenset": _frozenset}.items()
        },
    }.items()
}
"""What a pickle may name, and what it gets for it."""
