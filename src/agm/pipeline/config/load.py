"""Read and check `params.yaml`, the only file that the engines and the commands take parameters from."""

import json
from collections.abc import Iterator
from pathlib import Path
from textwrap import indent
from typing import Any

from pydantic import ValidationError

from agm.pipeline.config import plain, renamed
from agm.pipeline.config.schema import Params
from agm.pipeline.errors import AgmError, meant

PARAMS_FILE = Path("params.yaml")
ANEW = "correct the file, or let `agm compose` write it anew"


def load(path: Path = PARAMS_FILE) -> Params:
    """Read and check the parameters.

    Raises:
        AgmError: naming each unknown key, wrong type or impossible combination and what was expected.
    """
    return check(read(path), path)


def read(path: Path = PARAMS_FILE) -> dict[str, Any]:
    """The parameters as they stand in the file, unchecked.

    Raises:
        AgmError: when the file is not there, or as `parse` does.
    """
    try:
        return parse(path.read_text(encoding="utf-8"), path)
    except FileNotFoundError:
        raise AgmError(
            "There are no parameters",
            where=path.absolute(),
            fix="run from the project's root, or `agm compose`",
        ) from None
    except UnicodeDecodeError as error:
        raise AgmError(f"The parameters are not UTF-8: {error}", where=path, fix=ANEW) from None


def parse(text: str, source: object) -> dict[str, Any]:
    """The parameters in a text of YAML, unchecked.

    Raises:
        AgmError: when it is no YAML, or has what DVC would read differently (`agm.pipeline.config.plain`).
    """
    try:
        content = plain.parse(text)
    except ValueError as error:
        raise AgmError(f"The parameters cannot be read:\n{indent(str(error), '  ')}", where=source, fix=ANEW) from None
    if not isinstance(content, dict):
        raise AgmError("The parameters are not a mapping", where=source, fix=ANEW)
    return content


def check(content: dict[str, Any], source: object) -> Params:
    """Turn raw parameters into typed ones, or say everything that is wrong with them.

    Raises:
        AgmError: with one line per problem.
    """
    if unset := list(_unset(content)):
        raise AgmError(
            f"A parameter has no value yet: {', '.join(unset)}",
            where=source,
            fix=f"agm compose … {unset[0]}=VALUE",
        )
    if old := renamed.found(content):
        lines = "\n".join(f"  {line}" for line in old)
        how = f"`agm compose --migrate {source}` rewrites an old file" if isinstance(source, Path) else renamed.HOW
        raise AgmError(f"Keys of the configuration have other names now:\n{lines}", where=source, fix=how)
    try:
        # JSON mode is strict about types (no "3" for 3, no true for 1), and yet a YAML list is a list.
        params = Params.model_validate_json(json.dumps(content), strict=True)
    except ValidationError as error:
        problems = []
        for one in error.errors():
            # What does not fit together is no fault of one key: each line names its own.
            problems += [f"{_key(one['loc'])}: {message(one)}"] if one["loc"] else message(one).splitlines()
        raise wrong(problems, source) from None
    if absent := list(_absent(params)):
        raise wrong([f"{key}: it is missing, and DVC knows no default of it" for key in absent], source)
    return params


def wrong(problems: list[str], source: object) -> AgmError:
    """The error that names every one of `problems`."""
    lines = "\n".join(f"  {problem}" for problem in problems)
    return AgmError(
        f"The configuration is wrong:\n{lines}",
        where=source,
        fix="src/agm/pipeline/config/schema/ and src/agm/methods/ list every parameter; params/ holds the defaults",
    )


def select(content: dict[str, Any], keys: list[str]) -> dict[str, Any]:
    """The values of dotted `keys` in raw parameters; a key that is absent is absent from the result."""
    chosen = {}
    for key in keys:
        value: Any = content
        for name in key.split("."):
            value = value.get(name) if isinstance(value, dict) else None
        if value is not None:
            chosen[key] = value
    return chosen


def _unset(content: Any, key: str = "") -> Iterator[str]:
    """Full names of the values that a group leaves to the user (`???` in Hydra)."""
    for name, value in content.items() if isinstance(content, dict) else ():
        yield from [f"{key}{name}"] if value == "???" else _unset(value, f"{key}{name}.")


def _absent(params: Params) -> Iterator[str]:
    """Full names of the keys that have a default and are not written. The stages of dvc.yaml name them."""
    blocks = {"": params, "study.": params.study, "dataset.": params.dataset, "evaluation.": params.evaluation}
    for prefix, block in blocks.items():
        for name in type(block).model_fields:
            # Only demo sets have parameters of their own.
            if name not in block.model_fields_set and name != "dial":
                yield f"{prefix}{name}"


LONGEST_SHOWN = 80
KEY = "[key]"
"""What pydantic puts behind a key that is wrong itself."""
TAGGED = {("trainer", "optimizer"), "features", "encoders", "fusions"}


def _key(location: tuple[int | str, ...]) -> str:
    """The key's full name: pydantic's location less the tag that it adds behind a choice of blocks."""
    if len(location) > 2 and (location[0] in TAGGED or location[:2] in TAGGED):
        location = location[:2] + location[3:]
    return ".".join(str(part) for part in location if part != KEY) or "params.yaml"


def message(error: Any) -> str:
    """One of pydantic's errors in our words."""
    if error["type"] == "missing":
        return "it is missing"
    if error["type"] in ("value_error", "unknown_key"):
        return error["msg"].removeprefix("Value error, ")
    if error["type"] == "union_tag_invalid":
        tag, known = error["ctx"]["tag"], error["ctx"]["expected_tags"]
        alike = meant(tag, known.replace("'", "").split(", "))
        return f"there is no {tag!r}{alike}; there are {known}"
    value = repr(error["input"])
    return f"{error['msg']} (found {value if len(value) <= LONGEST_SHOWN else f'{value[:LONGEST_SHOWN]}…'})"
