"""`agm compose`: write `params.yaml` from Hydra's groups, byte for byte as `dvc exp run -S` does."""

import re
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path
from typing import Any

from agm.config.load import PARAMS_FILE, check, read
from agm.errors import AgmError
from agm.files import replacing

GROUPS = Path("params")
FIX = (
    "see the folders of params/; a value with other signs than letters, digits and _-./:@%$ goes in quotes for Hydra, "
    """and all of it in quotes for the shell: agm compose 'dataset.root="/data/a,b (1)"'"""
)


def compose(overrides: list[str], target: Path = PARAMS_FILE, groups: Path = GROUPS) -> None:
    """Compose `groups` under Hydra `overrides` into `target`; an invalid result leaves `target` as it was.

    Raises:
        AgmError: for an unknown group or key, or a combination that the schema refuses.
    """
    # DVC's own function, so that its bytes are ours. Imported late, as the methods are: together they take seconds.
    from dvc.utils.hydra import compose_and_dump
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from agm import methods

    if not (groups / "config.yaml").exists():
        raise AgmError("There are no Hydra groups", where=groups.absolute(), fix="run from the project's root")
    with replacing(target) as temporary:
        try:
            given = [_readable(each) for each in overrides]
            compose_and_dump(str(temporary), str(groups.absolute()), None, "config", "", given)
            said = " ".join(["agm compose", *overrides])
            params = check(read(temporary), said)
            _check_settings(params.study.settings, groups, said)
            methods.check(params, said)
        except (HydraException, OmegaConfBaseException) as error:
            cause = f"{error}" if error.__cause__ is None else f"{error}: {error.__cause__}"
            raise AgmError(
                f"Hydra cannot compose this: {cause}",
                where=" ".join(overrides),
                fix=FIX,
            ) from None


def _check_settings(settings: dict[str, Any], groups: Path, said: str) -> None:
    """Refuse a setting that no file of params/method takes: it would be ignored without a word."""
    for method, parameters in settings.items():
        path = groups / "method" / f"{method}.yaml"
        text = path.read_text(encoding="utf-8") if path.is_file() else ""
        for name in _leaves(parameters):
            key = f"study.settings.{method}.{name}"
            # A mapping as a whole may be what is taken.
            if not any(f"{{oc.select:{part}," in text for part in accumulate(key.split("."), "{}.{}".format)):
                raise AgmError(
                    f"{key} is taken by no method: {path} does not read it",
                    where=said,
                    fix=f"set methods.{method}.{name}",
                )


def _leaves(parameters: dict[str, Any]) -> Iterator[str]:
    """The full names of the values in nested parameters."""
    for name, value in parameters.items():
        if isinstance(value, dict):
            yield from (f"{name}.{rest}" for rest in _leaves(value))
        else:
            yield name


def _readable(override: str) -> str:
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
    quoted = re.sub(r"(\\*)('|$)", lambda found: 2 * found[1] + (found[2] and r"\'"), value)
    return f"{key}='{quoted}'"
