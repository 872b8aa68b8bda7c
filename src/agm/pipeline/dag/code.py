"""Fingerprints of the source code that makes a result: one for every step, and one for every method.

A fingerprint covers the meaning of the source. Comments, docstrings and the layout of lines do not count, and every
version of Python gives the same fingerprint (`ast.dump` does not: newer versions have other fields). Templates count
byte for byte. Only files with the suffixes of `COUNTED` count, so those of editors and systems (`.swp`, `.DS_Store`,
`~`) do not.
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
"""The source of each step, below the package: what it imports, without the code that cannot change a result."""
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
"""Libraries whose versions decide the result of a step: those that decode files, and the one that trains."""


@cache
def fingerprint(name: str) -> str:
    """The fingerprint of a step, or of "methods/<name>": the method's file and the files of `methods` that it imports.

    Raises:
        KeyError: when there is no such step.
        SyntaxError: when a file is no Python.
    """
    method = name.removeprefix("methods/")
    paths = STEPS[name] if method == name else method_files(method)
    total = hashlib.sha256()
    for path in _files(paths):
        relative = path.relative_to(PACKAGE).as_posix()
        # The zeros separate names from checksums: no two lists of files give the same bytes.
        total.update(f"{relative}\0{_of_file(path)}\0".encode())
    return total.hexdigest()


forget = fingerprint.cache_clear
"""Forget all fingerprints, so that the source is read again."""


@cache
def versions(name: str) -> dict[str, str]:
    """The versions of the libraries that decide the result of a step; none for "methods/<name>".

    Builds of one version, for another processor or CUDA, count as the same.
    """
    return {library: _version(library) for library in LIBRARIES.get(name, ())}


def _version(library: str) -> str:
    """The version of an installed library. Some belong to an extra, and are needed for some features only."""
    try:
        return version(library).partition("+")[0]
    except PackageNotFoundError:
        return "not installed"


def method_files(name: str) -> tuple[str, ...]:
    """The files of one method below the package, without those that all methods share."""
    paths: set[str] = set()
    to_visit = [name]
    while to_visit:
        path = f"methods/{to_visit.pop()}.py"
        if path in paths or path in METHODS or not (PACKAGE / path).exists():
            continue
        paths.add(path)
        # A method may import others, and these others again.
        for node in ast.walk(ast.parse((PACKAGE / path).read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("agm.methods."):
                to_visit.append(node.module.removeprefix("agm.methods."))
    return tuple(sorted(paths))


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
    """Append a syntax tree as words from which it could be built again.

    Fields that are absent or empty are left out: a newer Python has fields that the source does not use.
    """
    if isinstance(node, list):
        # The length, because the end of a list would not show otherwise.
        words.append(f"[{len(node)}")
        for element in node:
            _spell(element, words)
    elif isinstance(node, ast.AST):
        words.append(f"({type(node).__name__}")
        for name in node._fields:
            value = getattr(node, name, None)
            if name == "body" and _has_docstring(node):
                value = value[1:]
            if value is None or value == []:
                continue
            words.append(name)
            _spell(value, words)
        words.append(")")
    else:
        # With its type: 1 and 1.0 and True differ.
        words.append(f"{type(node).__name__} {node!r}")


def _has_docstring(node: ast.AST) -> bool:
    return isinstance(node, DOCUMENTED) and ast.get_docstring(node, clean=False) is not None


def _files(paths: tuple[str, ...]) -> Iterator[Path]:
    """The files below the given paths of the package that count, sorted."""
    for name in sorted(paths):
        path = PACKAGE / name
        candidates = sorted(path.rglob("*")) if path.is_dir() else [path]
        for file in candidates:
            if file.suffix in COUNTED and not file.name.startswith("."):
                yield file


def _of_file(path: Path) -> str:
    content = path.read_bytes()
    if path.suffix == ".py":
        return of_source(content.decode())
    return hashlib.sha256(content).hexdigest()
