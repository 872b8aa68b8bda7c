"""Fingerprints of the source code that makes a result: one of every step, and one of every method.

A fingerprint is of what the source says. Comments, docstrings and the layout of lines do not count, and every version
of Python finds the same one (`ast.dump` does not: newer versions have other fields). Templates count byte for byte.
Files of editors and systems (`.swp`, `.DS_Store`, `~`) do not count: only these three kinds of files do.
"""

import ast
import hashlib
from collections.abc import Iterator
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import agm

PACKAGE = Path(agm.__file__).parent
COUNTED = (".py", ".j2", ".css")
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
STEP = "pipeline/steps"
IO = "pipeline/io"
NETWORKS = (
    "attribution.py",
    "distributed.py",
    "models",
    "pipeline/networks.py",
    f"{IO}/tensors.py",
    "pipeline/runtime/device.py",
    f"{STEP}/shard/stream.py",
)
METHODS = ("methods/__init__.py", "methods/method.py", "methods/parameters.py", "pipeline/config/methods.py")
SCORES = ("metrics",)
FILES = tuple(f"{IO}/{name}.py" for name in ("encoding", "hdf5", "limits", "media", "source"))
TABLES = (f"{IO}/tables.py", f"{IO}/tensors.py")
STEPS = {
    "generate": (f"{STEP}/generate",),
    "annotations": (f"{STEP}/ingest/annotations.py",),
    "list": (f"{STEP}/ingest", *FILES, f"{IO}/tables.py", f"{IO}/unpickle.py"),
    "ingest": (f"{STEP}/ingest", *FILES, f"{IO}/pixels.py", f"{IO}/tables.py", f"{IO}/unpickle.py"),
    "extract": (
        f"{STEP}/extract",
        f"{STEP}/ingest/raw.py",
        *FILES,
        f"{IO}/packed.py",
        f"{IO}/pixels.py",
        f"{IO}/tensors.py",
        f"{IO}/unpickle.py",
        "pipeline/runtime/device.py",
    ),
    "shard": (f"{STEP}/shard", *TABLES),
    "inspect": (
        f"{STEP}/inspect",
        f"{STEP}/extract/text.py",
        f"{STEP}/extract/tokens.py",
        f"{STEP}/shard/stream.py",
        *TABLES,
        *(path for path in FILES if "hdf5" not in path),
    ),
    "train": (f"{STEP}/train", *METHODS, *NETWORKS),
    "concept": (f"{STEP}/train", *METHODS, *NETWORKS),
    "evaluate": (f"{STEP}/evaluate", *METHODS, *SCORES, *NETWORKS),
    "evaluate_concept": (f"{STEP}/evaluate", *METHODS, *SCORES, *NETWORKS),
    "report": (
        f"{STEP}/report",
        *SCORES,
        f"{IO}/tables.py",
        "pipeline/runtime/terminal.py",
    ),
}
"""The source of each step, below the package: what it imports, less the plumbing that cannot change a result."""
DECODERS = (
    "av",
    "h5py",
    "numpy",
    "opencv-python-headless",
    "pillow",
    "tokenizers",
    "torch",
    "torchaudio",
    "torchvision",
)
LIBRARIES = {"extract": DECODERS, "train": ("torch",), "concept": ("torch",)}
"""Libraries whose versions decide a step's result: those that decode files, and the one that trains."""


@cache
def fingerprint(name: str) -> str:
    """The fingerprint of a step, or of "methods/<name>": of the method's file and those of `methods` that it imports.

    Raises:
        KeyError: when there is no such step.
        SyntaxError: when a file is no Python.
    """
    paths = STEPS[name] if not name.startswith("methods/") else method_files(name.removeprefix("methods/"))
    found = hashlib.sha256()
    for path in _files(paths):
        found.update(f"{path.relative_to(PACKAGE).as_posix()}\0{_of_file(path)}\0".encode())
    return found.hexdigest()


forget = fingerprint.cache_clear
"""Read the source anew when it is next asked for."""


@cache
def versions(name: str) -> dict[str, str]:
    """The versions of the libraries that decide the result of a step; none for "methods/<name>".

    Builds of one version, for another processor or CUDA, count as one.
    """
    return {library: _version(library) for library in LIBRARIES.get(name, ())}


def _version(library: str) -> str:
    """The version of an installed library. Some belong to an extra, and are needed for some features only."""
    try:
        return version(library).partition("+")[0]
    except PackageNotFoundError:
        return "not installed"


def method_files(name: str) -> tuple[str, ...]:
    """The files of one method below the package, less those that all methods share."""
    found: set[str] = set()
    todo = [name]
    while todo:
        path = f"methods/{todo.pop()}.py"
        if path in found or path in METHODS or not (PACKAGE / path).exists():
            continue
        found.add(path)
        for node in ast.walk(ast.parse((PACKAGE / path).read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("agm.methods."):
                todo.append(node.module.removeprefix("agm.methods."))
    return tuple(sorted(found))


@cache
def of_source(source: str) -> str:
    """Checksum of a Python source's syntax tree.

    Raises:
        SyntaxError: when it is no Python.
    """
    words: list[str] = []
    _spell(ast.parse(source), words)
    return hashlib.sha256("\0".join(words).encode()).hexdigest()


def _spell(node: Any, words: list[str]) -> None:
    """Append a tree as words from which it could be built again.

    Fields that are absent or empty are left out: a newer Python has fields that the source does not use.
    """
    if isinstance(node, list):
        words.append(f"[{len(node)}")
        for each in node:
            _spell(each, words)
    elif isinstance(node, ast.AST):
        words.append(f"({type(node).__name__}")
        for name in node._fields:
            value = getattr(node, name, None)
            if name == "body" and isinstance(node, DOCUMENTED) and ast.get_docstring(node, clean=False) is not None:
                value = value[1:]
            if value is None or value == []:
                continue
            words.append(name)
            _spell(value, words)
        words.append(")")
    else:
        words.append(f"{type(node).__name__} {node!r}")


def _files(paths: tuple[str, ...]) -> Iterator[Path]:
    """The files below the given paths of the package that count, sorted."""
    for name in sorted(paths):
        path = PACKAGE / name
        for each in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if each.suffix in COUNTED and not each.name.startswith("."):
                yield each


def _of_file(path: Path) -> str:
    content = path.read_bytes()
    return of_source(content.decode()) if path.suffix == ".py" else hashlib.sha256(content).hexdigest()
