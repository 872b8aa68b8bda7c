"""Hydra's overrides as people type them: what is made readable for Hydra, and what is said where one is mistaken."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from agm.pipeline.config import renamed
from agm.pipeline.errors import AgmError, meant

FIX = (
    "see the folders of params/; a value with other signs than letters, digits and _-./:@%$ goes in quotes for Hydra, "
    """and all of it in quotes for the shell: agm compose 'dataset.root="/data/a,b (1)"'"""
)


def readable(override: str) -> str:
    """The override, a path in quotes where Hydra's grammar cannot read it as it is.

    Folders are called `data (1)`, `a,b` or `Übung`, which are calls, choices and errors there.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    key, equals, value = override.partition("=")
    path = ("/" in value or key == "dataset.root") and value[:1] not in ("'", '"', "[", "{")
    if not equals or not path:
        return override
    try:
        if not OverridesParser.create().parse_override(override).is_sweep_override():
            return override
    except HydraException:
        pass
    # In quotes a quote is written \', and backslashes count only before one.
    quoted = re.sub(r"(\\*)('|$)", lambda match: 2 * match[1] + (match[2] and r"\'"), value)
    return f"{key}='{quoted}'"


def check_form(overrides: Sequence[str], groups: Path) -> None:
    """Refuse what is not `key=value`, before Hydra answers with its grammar.

    Raises:
        AgmError: with what was probably meant.
    """
    for override in overrides:
        if "=" in override or override.startswith("~"):
            continue
        choices = [
            f"{path.parent.name}={override}" for path in sorted(groups.glob("*/*.yaml")) if path.stem == override
        ]
        if "/" in override or Path(override).is_dir():
            fix = f"the folder of a data set is given as dataset.root={override}"
        elif choices:
            fix = f"did you mean {' or '.join(choices)}?"
        else:
            fix = "such as study=demo, or methods.agm.alpha=2; ~KEY takes a parameter out"
        raise AgmError(f"{override!r} is not of the form KEY=VALUE", where=" ".join(overrides), fix=fix)


def composed(overrides: Sequence[str], groups: Path) -> Any:
    """The configuration that Hydra composes: an OmegaConf node, with its references as they stand.

    Raises:
        HydraException, OmegaConfBaseException: as Hydra does.
    """
    from hydra import compose, initialize_config_dir

    with initialize_config_dir(str(groups.absolute()), version_base=None):
        return compose("config", overrides=list(overrides))


def mistake(overrides: Sequence[str], groups: Path, error: Exception) -> AgmError:
    """Why Hydra cannot compose `overrides`, in our words where it is a mistyped group, file of a group or key."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException
    from omegaconf import OmegaConf

    where = " ".join(overrides)
    try:
        parsed = OverridesParser.create().parse_overrides(list(overrides))
    except (HydraException, ValueError) as unreadable:
        return AgmError(f"Hydra cannot read this: {unreadable}", where=where, fix=FIX)
    choices = [override for override in parsed if (groups / override.key_or_group).is_dir()]
    for choice in choices:
        if said := _unknown_file(choice, groups):
            return AgmError(said, where=where, fix=f"choose one of the files in {groups / choice.key_or_group}")
    # The parameters that there are, with these files: an override of the package encoders.video needs that modality.
    whole = [choice.input_line for choice in choices if choice.package is None]
    try:
        content = OmegaConf.to_container(composed(whole, groups))
    except (HydraException, ValueError):
        content = {}
    for override in parsed:
        if said := _renamed(override.key_or_group, content):
            return AgmError(said, where=where, fix=renamed.HOW)
    for override in parsed if content else ():
        if said := _unknown_key(override, content, groups):
            return AgmError(said, where=where, fix="a parameter that the groups do not write is added by +KEY=VALUE")
    if said := _renamed_reference(error, content):
        return AgmError(said, where=where, fix=renamed.HOW)
    cause = f"{error}" if error.__cause__ is None else f"{error}: {error.__cause__}"
    return AgmError(f"Hydra cannot compose this: {cause}", where=where, fix=FIX)


def _renamed(key: str, content: dict[str, Any]) -> str | None:
    """The new name of an old key, or None."""
    new = renamed.now(tuple(key.split(".")), renamed.kinds_in(content))
    return None if new is None else f"{key} is now {new}"


def _renamed_reference(error: Exception, content: dict[str, Any]) -> str | None:
    """The new name of an old key that a file of params/ refers to, or None."""
    reference = re.search(r"Interpolation key '([^']+)' not found", str(error))
    said = None if reference is None else _renamed(reference[1], content)
    return None if said is None else f"A file of params/ refers to an old key: {said}"


def _unknown_file(choice: Any, groups: Path) -> str | None:
    """What is wrong with the choice of a file of a group, or None."""
    group, value = choice.key_or_group, choice.value()
    files = sorted(path.stem for path in (groups / group).glob("*.yaml"))
    for name in value if isinstance(value, list) else [value]:
        if isinstance(name, str) and name not in files:
            return f"There is no {group} {name!r}{meant(name, files)}; there are {', '.join(files)}"
    return None


def _unknown_key(override: Any, content: dict[str, Any], groups: Path) -> str | None:
    """What is wrong with the key of an override, or None."""
    key = override.key_or_group
    if override.package is not None:
        known = [f"encoders.{name}" for name in content["encoders"]]
        wrong = override.package not in known
        return f"There is no {key}@{override.package}{meant(override.package, known, f'{key}@')}" if wrong else None
    if override.is_add() or (groups / key).is_dir():
        return None
    path = ""
    place: Any = content
    for name in key.split("."):
        known = list(place) if isinstance(place, dict) else []
        if name not in known:
            if "." not in key:
                known += [folder.name for folder in groups.iterdir() if folder.is_dir()]
            return f"There is no parameter {path}{name}{meant(name, known, path)}"
        path += f"{name}."
        place = place[name]
    return None
